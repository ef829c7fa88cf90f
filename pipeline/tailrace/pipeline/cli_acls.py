"""`tailrace acls` and `tailrace configs`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tailrace.changes.errors import ConfigError
from tailrace.pipeline.cli_cluster import Cluster, assignments, print_table, with_cluster
from tailrace.pipeline.command_line import AS_JSON, command, main, print_json, talk

if TYPE_CHECKING:
    from tailrace.pipeline.admin.acls import AclQuery


@main.group("acls")
def acls() -> None:
    """Who may do what: Kafka's ACLs."""


def _rule_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option("--principal", default="", help="Like User:alice or User:*."),
            click.option(
                "--resource", default="", help="topic:NAME, group:NAME, transactional-id:NAME, cluster."
            ),
            click.option("--operation", "operations", multiple=True, help="read, write, describe, all ..."),
            click.option("--prefixed", is_flag=True, help="NAME is the beginning of names."),
            click.option("--host", default="", help="Only from this address; by default any."),
            click.option("--deny", is_flag=True, help="Forbid instead of allow."),
        )
    ):
        function = option(function)
    return function


def _rules(
    principal: str, resource: str, operations: tuple[str, ...], prefixed: bool, host: str, deny: bool
) -> "list[AclQuery]":
    from tailrace.pipeline.admin.acls import OPERATIONS, AclQuery, parse_resource
    from tailrace.pipeline.diagnostics import did_you_mean

    for operation in operations:
        if operation.lower() not in OPERATIONS:
            raise ConfigError(f"there is no operation '{operation}'", fix=did_you_mean(operation, OPERATIONS))
    kind, name = parse_resource(resource) if resource else ("", "")
    pattern, permission = "prefixed" if prefixed else "", "deny" if deny else ""
    return [
        AclQuery(kind, name, pattern, principal, host, operation.lower(), permission)
        for operation in operations or ("",)
    ]


@command("list", acls)
@_rule_options
@with_cluster
@AS_JSON
def acls_list(cluster: Cluster, as_json: bool, **rule: Any) -> None:
    """List rules, all or those that match."""
    from tailrace.pipeline.admin.acls import list_acls

    queries = _rules(**rule)
    with cluster.client() as client:
        rows = [row for query in queries for row in list_acls(client, query)]
    print_json(rows) if as_json else print_table(rows)


@command("add", acls)
@_rule_options
@with_cluster
def acls_add(cluster: Cluster, **rule: Any) -> None:
    """Add a rule per operation."""
    from tailrace.pipeline.admin.acls import add_acls

    rules = _rules(**rule)
    if not all(query.principal and query.resource and query.operation for query in rules):
        raise ConfigError(
            "a rule needs --principal, --resource and --operation",
            fix="like --principal User:alice --resource topic:orders --operation read",
        )
    with cluster.client() as client:
        add_acls(client, rules)
    talk(f"{len(rules)} rules are there")


@command("remove", acls)
@_rule_options
@click.option("--all", "every", is_flag=True, help="Remove every rule.")
@with_cluster
@AS_JSON
def acls_remove(cluster: Cluster, every: bool, as_json: bool, **rule: Any) -> None:
    """Remove the rules that match, and show them."""
    from tailrace.pipeline.admin.acls import AclQuery, remove_acls

    queries = _rules(**rule)
    if queries == [AclQuery()] and not every:
        raise ConfigError("this would remove every rule", fix="say which, or --all")
    with cluster.client() as client:
        rows = remove_acls(client, queries)
    print_json(rows) if as_json else print_table(rows)


@main.group("configs")
def configs() -> None:
    """Configs of topics and brokers."""


@command("describe", configs)
@click.argument("entity", metavar="topic:NAME|broker:ID")
@click.option("--all", "every", is_flag=True, help="Defaults too.")
@with_cluster
@AS_JSON
def configs_describe(cluster: Cluster, entity: str, every: bool, as_json: bool) -> None:
    """Show what was set on a topic or a broker."""
    from tailrace.pipeline.admin.configs import describe_configs, parse_entity

    kind, name = parse_entity(entity)
    with cluster.client() as client:
        rows = describe_configs(client, kind, name, every=every)
    print_json(rows) if as_json else print_table(
        [{k: r[k] for k in ("name", "value", "source")} for r in rows]
    )


@command("alter", configs)
@click.argument("entity", metavar="topic:NAME|broker:ID")
@click.argument("values", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--delete", "deleted", multiple=True, metavar="NAME", help="Back to the default.")
@with_cluster
def configs_alter(cluster: Cluster, entity: str, values: tuple[str, ...], deleted: tuple[str, ...]) -> None:
    """Set configs of a topic or a broker."""
    from tailrace.pipeline.admin.configs import alter_configs, parse_entity

    kind, name = parse_entity(entity)
    changes = assignments(values)
    if not changes and not deleted:
        raise ConfigError("nothing to change", fix="give NAME=VALUE or --delete NAME")
    with cluster.client() as client:
        alter_configs(client, kind, name, changes, deleted)
    talk(f"changed {entity}")
