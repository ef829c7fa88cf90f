"""The `tailrace` command.  Heavy modules are imported by the verb that needs them: `--help` stays instant.

Exit codes: 0 done, 1 failed at run time, 2 wrong configuration, 3 tables differ (verify), 130 interrupted.
Standard output is data only; talk goes to standard error.
"""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from tailrace.changes.errors import TailraceError, operating_system_error

if TYPE_CHECKING:
    from tailrace.pipeline.plan import Plan

_P = ParamSpec("_P")

FILE = click.argument("file", type=click.Path(path_type=Path))
DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="State of the run; by default .tailrace/<pipeline> beside FILE.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tailrace")
def main() -> None:
    """Keep lakehouse tables true to a Postgres database, exactly once."""


def command(name: str, group: click.Group = main) -> Callable[[Callable[_P, int | None]], click.Command]:
    """Add a verb whose TailraceErrors become one paragraph and an exit code."""

    def decorate(function: Callable[_P, int | None]) -> click.Command:
        @wraps(function)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
            try:
                code = function(*args, **kwargs)
            except TailraceError as error:
                click.echo(f"error: {error}", err=True)
                sys.exit(error.exit_code)
            except BrokenPipeError:  # the reader of our output has gone, as with `| head`
                sys.exit(0)
            except OSError as error:
                click.echo(f"error: {operating_system_error(error)}", err=True)
                sys.exit(1)
            except KeyboardInterrupt:
                sys.exit(130)
            sys.exit(code or 0)

        return group.command(name)(run)

    return decorate


def talk(line: str) -> None:
    """Say something to a person."""
    click.echo(line, err=True)


def plan_of(file: Path) -> "Plan":
    """Load, check and resolve a pipeline file."""
    from tailrace.pipeline.load import load_spec
    from tailrace.pipeline.plan import make_plan

    return make_plan(load_spec(file))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, default=str))


@command("run")
@FILE
@DATA_DIR
@click.option(
    "--only", metavar="PART", help="Run one part in the foreground: broker, source, transform, sink.NAME."
)
@click.option(
    "--until-caught-up", is_flag=True, help="Stop when every table holds what the source held at the start."
)
def run(file: Path, data_dir: Path | None, only: str | None, until_caught_up: bool) -> int:
    """Run the pipeline FILE until interrupted."""
    from tailrace.pipeline.part import run_part
    from tailrace.pipeline.preflight import preflight
    from tailrace.pipeline.source import open_source
    from tailrace.pipeline.status import CaughtUp
    from tailrace.pipeline.supervisor import Supervisor

    plan = plan_of(file)
    folder = (data_dir or plan.default_data_dir()).resolve()
    if only:
        run_part(plan, only, folder)
        return 0
    supervisor = Supervisor(plan, folder, talk)
    with supervisor.alone():
        preflight(plan, folder)
        if not until_caught_up:
            supervisor.run()
            talk("stopped")
            return 0
        if supervisor.run(CaughtUp(plan, folder, open_source(plan, folder).current_position())):
            talk("caught up")
            return 0
    talk("stopped before every table had caught up")
    return 130


@command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@AS_JSON
def validate(files: tuple[Path, ...], as_json: bool) -> int:
    """Check pipeline FILES without connecting anywhere; every mistake at once."""
    from tailrace.pipeline.diagnostics import SpecError

    problems: list[dict[str, Any]] = []
    code = 0
    for file in files:
        try:
            plan_of(file)
        except SpecError as error:
            code = error.exit_code
            problems += error.as_json()
            if not as_json:
                click.echo(str(error), err=True)
        else:
            talk(f"{file}: ok")
    if as_json:
        print_json(problems)
    return code


@command("plan")
@FILE
@AS_JSON
def plan(file: Path, as_json: bool) -> int:
    """Show what running FILE would do, with the source's own findings and warnings."""
    from tailrace.pipeline.explain import explain_plan

    resolved = plan_of(file)
    findings = explain_plan(resolved)
    if as_json:
        print_json({**resolved.as_json(), **findings.as_json()})
    else:
        click.echo(findings.render(resolved))
    return 1 if findings.errors else 0


@command("status")
@FILE
@DATA_DIR
@AS_JSON
def status(file: Path, data_dir: Path | None, as_json: bool) -> int:
    """Show the parts and the lag of every table of a running pipeline."""
    from tailrace.pipeline.status import gather, render

    resolved = plan_of(file)
    found = gather(resolved, (data_dir or resolved.default_data_dir()).resolve())
    if as_json:
        print_json(found)
    else:
        render(found)
        if not any(part["alive"] for part in found["parts"]):
            talk(f"the pipeline {resolved.name} does not run on {found['data_dir']}")
    return 0 if found["running"] else 1


@command("verify")
@FILE
@DATA_DIR
@AS_JSON
@click.option(
    "--timeout", default=120.0, show_default=True, help="Seconds to wait for the tables to reach the fence."
)
def verify(file: Path, data_dir: Path | None, as_json: bool, timeout: float) -> int:
    """Compare every table of a running pipeline with the source, row by row and column by column."""
    from tailrace.pipeline.verify.rounds import verify_pipeline

    resolved = plan_of(file)
    report = verify_pipeline(resolved, (data_dir or resolved.default_data_dir()).resolve(), timeout_s=timeout)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(report.render())
    return 0 if report.equal else 3


@command("broker")
@click.option("--data-dir", required=True, type=click.Path(path_type=Path), help="Where the log lives.")
@click.option("--listen", default="127.0.0.1:9092", show_default=True, metavar="H:P")
@click.option(
    "--registry", default="127.0.0.1:8081", show_default=True, metavar="H:P", help="Schema registry address."
)
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without TLS and authentication.")
def broker(data_dir: Path, listen: str, registry: str, insecure: bool) -> int:
    """Run the broker and its schema registry alone."""
    import logging

    from tailrace.registry.service import run as serve

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    serve(data_dir.resolve(), listen=listen, registry_listen=registry, insecure=insecure)
    return 0


@command("demo")
@click.option(
    "--rows",
    default=200_000,
    show_default=True,
    help="Rows of the transactions table before the load starts.",
)
@click.option("--seconds", default=20.0, show_default=True, help="How long the live load runs.")
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep database, log and tables in DIR."
)
@AS_JSON
def demo(rows: int, seconds: float, keep: Path | None, as_json: bool) -> int:
    """Run the quickstart pipeline on a real Postgres under load and kills, and verify every table."""
    from tailrace.pipeline.demo.demo import run_demo

    report = run_demo(rows=rows, seconds=seconds, keep=keep, talk=talk)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(report.render())
    return 0 if report.verified else 3


@main.group("topics")
def topics() -> None:
    """Look at the topics of a broker."""


BOOTSTRAP = click.option(
    "--bootstrap", metavar="H:P", help="Broker; by default the one of the pipeline that runs under .tailrace."
)
RUN_DIR = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="State of the run whose broker is meant."
)


@command("list", topics)
@BOOTSTRAP
@RUN_DIR
@AS_JSON
def topics_list(bootstrap: str | None, data_dir: Path | None, as_json: bool) -> int:
    """List topics with partitions and records."""
    from tailrace.pipeline.topics import find_endpoints, list_topics

    rows = list_topics(find_endpoints(bootstrap, data_dir=data_dir).bootstrap)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            click.echo(f"{row['topic']}\t{row['partitions']} partitions\t{row['records']} records")
    return 0


@command("describe", topics)
@click.argument("topic")
@BOOTSTRAP
@RUN_DIR
@AS_JSON
def topics_describe(topic: str, bootstrap: str | None, data_dir: Path | None, as_json: bool) -> int:
    """Show partitions, offsets and schemas of TOPIC."""
    from tailrace.pipeline.topics import describe_topic, find_endpoints

    found = describe_topic(find_endpoints(bootstrap, data_dir=data_dir), topic)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{topic}: {len(found['partitions'])} partitions")
        for part in found["partitions"]:
            click.echo(f"  {part['partition']}: offsets {part['earliest']} to {part['latest']}")
        for subject, schema in found["schemas"].items():
            click.echo(f"  {subject} (id {schema['id']}): {schema['schema']}")
    return 0


@command("consume")
@click.argument("topic")
@BOOTSTRAP
@RUN_DIR
@click.option("--registry", "registry_url", metavar="URL", help="Schema registry.")
@click.option("--from", "start", default="beginning", show_default=True, metavar="beginning|-1h|OFFSET")
@click.option("-n", "count", type=int, help="Stop after this many records; without it follow the topic.")
def consume(
    topic: str,
    bootstrap: str | None,
    data_dir: Path | None,
    registry_url: str | None,
    start: str,
    count: int | None,
) -> int:
    """Print the committed records of TOPIC as JSON lines, decoded by the registry."""
    from tailrace.pipeline.topics import find_endpoints, read_topic

    for record in read_topic(find_endpoints(bootstrap, registry_url, data_dir), topic, start, count):
        click.echo(json.dumps(record, default=str))
    return 0


if __name__ == "__main__":
    main()
