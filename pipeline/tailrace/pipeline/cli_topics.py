"""`tailrace topics` and `tailrace consume`."""

import json

import click

from tailrace.pipeline.cli_cluster import Cluster, assignments, print_table, with_cluster
from tailrace.pipeline.command_line import AS_JSON, command, main, print_json, talk


@main.group("topics")
def topics() -> None:
    """Look at the topics of a cluster, make and delete them."""


@command("list", topics)
@with_cluster
@AS_JSON
def topics_list(cluster: Cluster, as_json: bool) -> None:
    """List topics with partitions, records and bytes."""
    from tailrace.pipeline.admin.topics import list_topics

    with cluster.client() as client:
        rows = list_topics(client)
    print_json(rows) if as_json else print_table(rows)


@command("describe", topics)
@click.argument("topic")
@with_cluster
@AS_JSON
def topics_describe(cluster: Cluster, topic: str, as_json: bool) -> None:
    """Show partitions, offsets, bytes, configs, readers and schemas of TOPIC."""
    from tailrace.pipeline.topics import describe_topic

    found = describe_topic(cluster.endpoints(), topic)
    if as_json:
        print_json(found)
        return
    click.echo(f"{topic}: {len(found['partitions'])} partitions")
    print_table(found["partitions"])
    for name, value in found["configs"].items():
        click.echo(f"{name}={value}")
    print_table(found["groups"])
    for subject, schema in found["schemas"].items():
        click.echo(f"{subject} (id {schema['id']}): {schema['schema']}")


@command("create", topics)
@click.argument("topic")
@click.option("--partitions", default=1, show_default=True)
@click.option("--replication-factor", default=-1, help="By default the cluster's own.")
@click.option("-c", "--config", "configs", multiple=True, metavar="NAME=VALUE", help="A topic config.")
@with_cluster
def topics_create(
    cluster: Cluster, topic: str, partitions: int, replication_factor: int, configs: tuple[str, ...]
) -> None:
    """Make TOPIC."""
    from tailrace.pipeline.admin.topics import create_topic

    with cluster.client() as client:
        create_topic(client, topic, partitions, replication_factor, assignments(configs))
    talk(f"made {topic}")


@command("alter", topics)
@click.argument("topic")
@click.option("--partitions", required=True, type=int, help="How many it shall have; never fewer than now.")
@with_cluster
def topics_alter(cluster: Cluster, topic: str, partitions: int) -> None:
    """Add partitions to TOPIC (its configs: tailrace configs alter)."""
    from tailrace.pipeline.admin.topics import add_partitions

    with cluster.client() as client:
        add_partitions(client, topic, partitions)
    talk(f"{topic} has {partitions} partitions")


@command("delete", topics)
@click.argument("names", nargs=-1, required=True, metavar="TOPIC...")
@with_cluster
def topics_delete(cluster: Cluster, names: tuple[str, ...]) -> None:
    """Delete TOPICs with all their records."""
    from tailrace.pipeline.admin.topics import delete_topics

    with cluster.client() as client:
        delete_topics(client, names)
    talk(f"deleted {', '.join(names)}")


@command("consume")
@click.argument("topic")
@with_cluster
@click.option("--registry", "registry_url", metavar="URL", help="Schema registry.")
@click.option(
    "--from", "start", default="beginning", show_default=True, metavar="beginning|end|OFFSET|-1h|TIME"
)
@click.option("-n", "count", type=int, help="Stop after this many records; without it follow the topic.")
def consume(cluster: Cluster, topic: str, registry_url: str | None, start: str, count: int | None) -> None:
    """Print the committed records of TOPIC as JSON lines, decoded by the registry."""
    from tailrace.pipeline.topics import read_topic

    for record in read_topic(cluster.endpoints(registry_url), topic, start, count):
        click.echo(json.dumps(record, default=str))
