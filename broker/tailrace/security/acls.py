"""ACL bindings and filters, with Kafka's numbers for them.

Source: org.apache.kafka.common.acl (AclOperation, AclPermissionType), .resource (ResourceType, PatternType),
ResourcePatternFilter, AccessControlEntryFilter.
"""

from dataclasses import dataclass
from enum import IntEnum

WILDCARD = "*"
CLUSTER_NAME = "kafka-cluster"
ANYBODY = "User:*"


class ResourceType(IntEnum):
    """What a rule is about."""

    UNKNOWN = 0
    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7


class PatternType(IntEnum):
    """How a rule names its resources; ANY and MATCH only in filters."""

    UNKNOWN = 0
    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4


class Operation(IntEnum):
    """What somebody wants to do."""

    UNKNOWN = 0
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14
    TWO_PHASE_COMMIT = 15


class Permission(IntEnum):
    """Which way a rule decides."""

    UNKNOWN = 0
    ANY = 1
    DENY = 2
    ALLOW = 3


OPERATIONS: dict[ResourceType, tuple[Operation, ...]] = {
    ResourceType.TOPIC: (
        Operation.READ,
        Operation.WRITE,
        Operation.CREATE,
        Operation.DELETE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.GROUP: (Operation.READ, Operation.DELETE, Operation.DESCRIBE),
    ResourceType.CLUSTER: (
        Operation.CREATE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.CLUSTER_ACTION,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
        Operation.IDEMPOTENT_WRITE,
    ),
}
"""Operations that answers list as `authorized_operations`."""


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """One binding: this principal from this host may (or may not) do this to these resources."""

    resource_type: ResourceType
    pattern_type: PatternType
    resource_name: str
    principal: str
    host: str
    operation: Operation
    permission: Permission

    def covers(self, name: str) -> bool:
        """Whether the rule's pattern names the resource `name` of its type."""
        if self.pattern_type is PatternType.PREFIXED:
            return name.startswith(self.resource_name)
        return self.resource_name in (name, WILDCARD)


@dataclass(frozen=True, slots=True)
class AclFilter:
    """Matches bindings; None and ANY match everything."""

    resource_type: ResourceType = ResourceType.ANY
    pattern_type: PatternType = PatternType.ANY
    resource_name: str | None = None
    principal: str | None = None
    host: str | None = None
    operation: Operation = Operation.ANY
    permission: Permission = Permission.ANY

    def matches(self, acl: Acl) -> bool:
        """MATCH finds every pattern that covers the name; the other pattern types compare names."""
        return (
            self.resource_type in (ResourceType.ANY, acl.resource_type)
            and self.pattern_type in (PatternType.ANY, PatternType.MATCH, acl.pattern_type)
            and (self.resource_name is None or self._names(acl, self.resource_name))
            and self.principal in (None, acl.principal)
            and self.host in (None, acl.host)
            and self.operation in (Operation.ANY, acl.operation)
            and self.permission in (Permission.ANY, acl.permission)
        )

    def _names(self, acl: Acl, name: str) -> bool:
        return acl.covers(name) if self.pattern_type is PatternType.MATCH else acl.resource_name == name


def why_not(acl: Acl) -> str | None:
    """What is wrong with a binding that somebody wants to add; None: nothing."""
    if acl.resource_type in (ResourceType.UNKNOWN, ResourceType.ANY):
        return "a rule needs a resource type"
    if acl.pattern_type not in (PatternType.LITERAL, PatternType.PREFIXED):
        return "the pattern type of a rule is LITERAL or PREFIXED"
    if acl.operation in (Operation.UNKNOWN, Operation.ANY):
        return "a rule needs an operation"
    if acl.permission not in (Permission.DENY, Permission.ALLOW):
        return "a rule allows or denies"
    if not acl.resource_name:
        return "the name of the resource is empty"
    if acl.resource_type is ResourceType.CLUSTER and acl.resource_name != CLUSTER_NAME:
        return f"the only cluster is named {CLUSTER_NAME}"
    if ":" not in acl.principal:
        return "a principal has the form User:name"
    return None
