"""`tailrace topics` and `tailrace consume`."""

import json
from pathlib import Path

import click

from tailrace.pipeline.command_line import AS_JSON, command, main, print_json


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
