"""The `tailrace` command: the verbs of a pipeline, and all other verbs by import.

Heavy modules are imported by the verb that needs them: `--help` stays instant.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tailrace.pipeline import cli_acls, cli_broker, cli_groups, cli_topics
from tailrace.pipeline.command_line import AS_JSON, command, main, print_json, talk

if TYPE_CHECKING:
    from tailrace.pipeline.plan import Plan

__all__ = ["cli_acls", "cli_broker", "cli_groups", "cli_topics", "main"]

FILE = click.argument("file", type=click.Path(path_type=Path))
DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="State of the run; by default .tailrace/<pipeline> beside FILE.",
)


def plan_of(file: Path) -> "Plan":
    """Load, check and resolve a pipeline file."""
    from tailrace.pipeline.load import load_spec
    from tailrace.pipeline.plan import make_plan

    return make_plan(load_spec(file))


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


if __name__ == "__main__":
    main()
