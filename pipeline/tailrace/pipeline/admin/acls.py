"""ACLs by Kafka's names: who may do what with which resource."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.broker.client import Client
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m
from tailrace.changes import ConfigError
from tailrace.pipeline.admin.cluster import ask, check

ANY = 1
RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5, "user": 7}
PATTERNS = {"literal": 3, "prefixed": 4}
PERMISSIONS = {"deny": 2, "allow": 3}
OPERATIONS = {
    name: number
    for number, name in enumerate(
        (
            "all",
            "read",
            "write",
            "create",
            "delete",
            "alter",
            "describe",
            "cluster-action",
            "describe-configs",
            "alter-configs",
            "idempotent-write",
        ),
        start=2,
    )
}
_CLUSTER_NAME = "kafka-cluster"


@dataclass(frozen=True, slots=True)
class AclQuery:
    """A rule, or a filter of rules where parts are empty."""

    resource: str = ""
    name: str = ""
    pattern: str = ""
    principal: str = ""
    host: str = ""
    operation: str = ""
    permission: str = ""


def parse_resource(text: str) -> tuple[str, str]:
    """`topic:orders`, `group:*`, `cluster` -> (type, name).  Raises ConfigError."""
    kind, _, name = text.partition(":")
    if kind not in RESOURCES or (kind != "cluster" and not name):
        raise ConfigError(
            f"'{text}' is no resource",
            fix="write topic:NAME, group:NAME, transactional-id:NAME, user:NAME or cluster; NAME may be *",
        )
    return kind, name or _CLUSTER_NAME


def list_acls(client: Client, query: AclQuery) -> list[dict[str, Any]]:
    """Rules that match the filter."""

    def listed(response: Any) -> list[dict[str, Any]]:
        check(response.error_code, "list ACLs", response.error_message)
        return [
            _row(found.resource_type, found.resource_name, found.pattern_type, acl)
            for found in response.resources
            for acl in found.acls
        ]

    rows = ask(client, ApiKey.DESCRIBE_ACLS, m.DescribeAclsRequest(*_filter(query)), listed)
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


def add_acls(client: Client, rules: Sequence[AclQuery]) -> None:
    """Add rules; one that exists stays as it is."""
    creations = [
        m.AclCreation(
            RESOURCES[rule.resource],
            rule.name,
            PATTERNS[rule.pattern or "literal"],
            rule.principal,
            rule.host or "*",
            OPERATIONS[rule.operation],
            PERMISSIONS[rule.permission or "allow"],
        )
        for rule in rules
    ]

    def added(response: Any) -> None:
        for result in response.results:
            check(result.error_code, "add ACL", result.error_message)

    ask(client, ApiKey.CREATE_ACLS, m.CreateAclsRequest(creations=creations), added)


def remove_acls(client: Client, queries: Sequence[AclQuery]) -> list[dict[str, Any]]:
    """Remove every rule that matches one of the filters; the removed rules."""

    def removed(response: Any) -> list[dict[str, Any]]:
        rows = []
        for result in response.filter_results:
            check(result.error_code, "remove ACLs", result.error_message)
            for acl in result.matching_acls:
                check(acl.error_code, "remove ACL", acl.error_message)
                rows.append(_row(acl.resource_type, acl.resource_name, acl.pattern_type, acl))
        return rows

    filters = [m.DeleteAclsFilter(*_filter(query)) for query in queries]
    return ask(client, ApiKey.DELETE_ACLS, m.DeleteAclsRequest(filters=filters), removed)


def _filter(query: AclQuery) -> tuple[int, str | None, int, str | None, str | None, int, int]:
    return (
        RESOURCES[query.resource] if query.resource else ANY,
        query.name or None,
        PATTERNS[query.pattern] if query.pattern else ANY,
        query.principal or None,
        query.host or None,
        OPERATIONS[query.operation] if query.operation else ANY,
        PERMISSIONS[query.permission] if query.permission else ANY,
    )


def _row(resource_type: int, name: str, pattern: int, acl: Any) -> dict[str, Any]:
    return {
        "resource": _name(RESOURCES, resource_type),
        "name": name,
        "pattern": _name(PATTERNS, pattern),
        "principal": acl.principal,
        "host": acl.host,
        "operation": _name(OPERATIONS, acl.operation),
        "permission": _name(PERMISSIONS, acl.permission_type),
    }


def _name(names: dict[str, int], number: int) -> str:
    return next((name for name, known in names.items() if known == number), str(number))
