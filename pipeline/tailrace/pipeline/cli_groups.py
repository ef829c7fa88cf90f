"""`tailrace groups` and `tailrace transactions`."""

import click

from tailrace.pipeline.cli_cluster import Cluster, print_table, with_cluster
from tailrace.pipeline.command_line import AS_JSON, command, main, print_json, talk


@main.group("groups")
def groups() -> None:
    """Consumer groups: who reads what, and how far."""


@command("list", groups)
@with_cluster
@AS_JSON
def groups_list(cluster: Cluster, as_json: bool) -> None:
    """List groups with their state."""
    from tailrace.pipeline.admin.groups import list_groups

    with cluster.client() as client:
        rows = list_groups(client)
    print_json(rows) if as_json else print_table(rows)


@command("describe", groups)
@click.argument("group")
@with_cluster
@AS_JSON
def groups_describe(cluster: Cluster, group: str, as_json: bool) -> None:
    """Show members, offsets and lag of GROUP."""
    from tailrace.pipeline.admin.groups import describe_group

    with cluster.client() as client:
        found = describe_group(client, group)
    if as_json:
        print_json(found)
        return
    click.echo(f"{group}: {found['state']}, {len(found['members'])} members")
    print_table(
        [
            {name: " ".join(cell) if isinstance(cell, list) else cell for name, cell in member.items()}
            for member in found["members"]
        ]
    )
    print_table(found["offsets"])


@command("reset-offsets", groups)
@click.argument("group")
@click.option("--to", required=True, metavar="beginning|end|OFFSET|-1h|TIME", help="Where to read from next.")
@click.option("--topic", "names", multiple=True, help="Only this topic; also one without an offset yet.")
@click.option("--dry-run", is_flag=True, help="Show what would be committed.")
@with_cluster
@AS_JSON
def groups_reset(
    cluster: Cluster, group: str, to: str, names: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Set the offsets of GROUP, which must have no members."""
    from tailrace.pipeline.admin.groups import reset_offsets
    from tailrace.pipeline.admin.places import parse_start

    start = parse_start(to)
    with cluster.client() as client:
        rows = reset_offsets(client, group, start, names, dry_run=dry_run)
    print_json(rows) if as_json else print_table(rows)
    if dry_run:
        talk("nothing was committed: --dry-run")


@command("delete", groups)
@click.argument("names", nargs=-1, required=True, metavar="GROUP...")
@with_cluster
def groups_delete(cluster: Cluster, names: tuple[str, ...]) -> None:
    """Delete GROUPs without members, with their offsets."""
    from tailrace.pipeline.admin.groups import delete_groups

    with cluster.client() as client:
        delete_groups(client, names)
    talk(f"deleted {', '.join(names)}")


@main.group("transactions")
def transactions() -> None:
    """Producer transactions: which are open, and ending one that hangs."""


@command("list", transactions)
@click.option("--state", "states", multiple=True, help="Only this state, like Ongoing.")
@with_cluster
@AS_JSON
def transactions_list(cluster: Cluster, states: tuple[str, ...], as_json: bool) -> None:
    """List transactional ids with their state."""
    from tailrace.pipeline.admin.transactions import list_transactions

    with cluster.client() as client:
        rows = list_transactions(client, states)
    print_json(rows) if as_json else print_table(rows)


@command("describe", transactions)
@click.argument("transactional_id")
@with_cluster
@AS_JSON
def transactions_describe(cluster: Cluster, transactional_id: str, as_json: bool) -> None:
    """Show state, age and partitions of TRANSACTIONAL_ID."""
    from tailrace.pipeline.admin.transactions import describe_transaction

    with cluster.client() as client:
        found = describe_transaction(client, transactional_id)
    if as_json:
        print_json(found)
    else:
        print_table([{**found, "partitions": " ".join(found["partitions"])}])


@command("abort", transactions)
@click.argument("transactional_id")
@with_cluster
def transactions_abort(cluster: Cluster, transactional_id: str) -> None:
    """Abort the open transaction of TRANSACTIONAL_ID and shut its producer out."""
    from tailrace.pipeline.admin.transactions import abort_transaction

    with cluster.client() as client:
        before = abort_transaction(client, transactional_id)
    talk(f"aborted {transactional_id}, which had been open for {before['open_for_s']} s")
