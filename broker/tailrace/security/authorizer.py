"""The one authorizer: Kafka's StandardAuthorizer over rules in memory.

    super user                    allowed
    a rule that denies matches    denied, whatever allows
    a rule that allows matches    allowed
    rules name the resource       denied
    no rule names the resource    `allow.everyone.if.no.acl.found`, else denied

READ, WRITE, DELETE and ALTER allow DESCRIBE too; ALTER_CONFIGS allows DESCRIBE_CONFIGS.  A denial implies
nothing.  Source: org.apache.kafka.metadata.authorizer.StandardAuthorizerData.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from tailrace.security.acls import (
    ANYBODY,
    CLUSTER_NAME,
    OPERATIONS,
    WILDCARD,
    Acl,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from tailrace.security.principals import Principal
from tailrace.security.store import SecurityStore

_IMPLIES_DESCRIBE = frozenset({Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER})
_REMEMBERED = 20_000  # decisions; a client that asks for ever new names must not fill the memory
_LONGEST_REMEMBERED = 255  # characters of a name: that of a topic has at most 249
_DENIALS_LOGGED = 20  # a second; a client that asks for ever new names must not fill the disk

_log = logging.getLogger(__name__)

_Question = tuple[Principal, str, Operation, ResourceType, str]


class Authorizer:
    """Decides, and keeps the rules: a change is durable before it counts.

    Raises StoreError when rules cannot be written.
    """

    def __init__(
        self, store: SecurityStore, *, super_users: Collection[str] = (), allow_without_rules: bool = False
    ) -> None:
        self._store = store
        self._super_users = frozenset(super_users)
        self._allow_without_rules = allow_without_rules
        self._rules: dict[ResourceType, dict[tuple[PatternType, str], list[Acl]]] = {}
        self._prefix_lengths: dict[ResourceType, list[int]] = {}
        self._decided: dict[_Question, bool] = {}
        self._denials = _Denials()
        self._index(store.acls())

    def allows(
        self, principal: Principal, host: str, operation: Operation, kind: ResourceType, name: str
    ) -> bool:
        """Whether `principal`, connected from the address `host`, may do `operation` to the resource."""
        question = (principal, host, operation, kind, name)
        decided = self._decided.get(question)
        if decided is None:
            decided = self._decide(*question)
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            if len(name) <= _LONGEST_REMEMBERED:
                self._decided[question] = decided
            if not decided:
                self._denials.log(*question)
        return decided

    def allows_any(self, principal: Principal, host: str, operation: Operation, kind: ResourceType) -> bool:
        """Whether there is ANY resource of the type that the principal may do this to (KIP-679)."""
        if str(principal) in self._super_users:
            return True
        asked = {str(principal), ANYBODY}
        mine = [
            acl
            for rules in self._rules.get(kind, {}).values()
            for acl in rules
            if acl.principal in asked
            and acl.host in (host, WILDCARD)
            and acl.operation in (operation, Operation.ALL)
        ]
        denied = [acl for acl in mine if acl.permission is Permission.DENY]
        if any(acl.resource_name == WILDCARD and acl.pattern_type is PatternType.LITERAL for acl in denied):
            return False
        if self._allow_without_rules and self.allows(principal, host, operation, kind, "hardcode"):
            return True
        return any(
            acl.permission is Permission.ALLOW and not any(_dominates(deny, acl) for deny in denied)
            for acl in mine
        )

    def operations(self, principal: Principal, host: str, kind: ResourceType, name: str) -> int:
        """`authorized_operations`: bit n is set for each operation n that is allowed."""
        return sum(
            1 << operation
            for operation in OPERATIONS[kind]
            if self.allows(principal, host, operation, kind, name)
        )

    def find(self, wanted: AclFilter) -> list[Acl]:
        """The rules that a filter matches, in a stable order."""
        return sorted(acl for acl in self._all() if wanted.matches(acl))

    def add(self, acls: Iterable[Acl]) -> None:
        """Add rules; those that exist already change nothing."""
        new = set(acls) - set(self._all())
        if new:
            self._store.add_acls(sorted(new))
            self._index([*self._all(), *new])

    def remove(self, acls: Iterable[Acl]) -> None:
        """Remove rules."""
        gone = set(acls)
        if gone:
            self._store.remove_acls(sorted(gone))
            self._index([acl for acl in self._all() if acl not in gone])

    def _all(self) -> Iterator[Acl]:
        for patterns in self._rules.values():
            for rules in patterns.values():
                yield from rules

    def _index(self, acls: Iterable[Acl]) -> None:
        rules: dict[ResourceType, dict[tuple[PatternType, str], list[Acl]]] = {}
        for acl in acls:
            patterns = rules.setdefault(acl.resource_type, {})
            patterns.setdefault((acl.pattern_type, acl.resource_name), []).append(acl)
        self._rules = rules
        self._prefix_lengths = {
            kind: sorted({len(name) for pattern, name in patterns if pattern is PatternType.PREFIXED})
            for kind, patterns in rules.items()
        }
        self._decided.clear()

    def _decide(
        self, principal: Principal, host: str, operation: Operation, kind: ResourceType, name: str
    ) -> bool:
        if str(principal) in self._super_users:
            return True
        asked = (str(principal), ANYBODY)
        named = allowed = False
        for acl in self._naming(kind, name):
            named = True
            if acl.principal in asked and acl.host in (host, WILDCARD) and _is_about(acl, operation):
                if acl.permission is Permission.DENY:
                    return False
                allowed = True
        return allowed or (self._allow_without_rules and not named)

    def _naming(self, kind: ResourceType, name: str) -> Iterator[Acl]:
        patterns = self._rules.get(kind)
        if not patterns:
            return
        for literal in {name, WILDCARD}:
            yield from patterns.get((PatternType.LITERAL, literal), ())
        for length in self._prefix_lengths[kind]:  # not every prefix: a name may be as long as a request
            if length > len(name):
                return
            yield from patterns.get((PatternType.PREFIXED, name[:length]), ())


class _Denials:
    """Logs who was denied what, of very many in one second only how many there were."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._second = 0
        self._count = 0

    def log(
        self, principal: Principal, host: str, operation: Operation, kind: ResourceType, name: str
    ) -> None:
        second = int(self._now())
        if second != self._second:
            if self._count > _DENIALS_LOGGED:
                _log.info("%d more denials in one second were left out", self._count - _DENIALS_LOGGED)
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= _DENIALS_LOGGED:
            shown = name if len(name) <= _LONGEST_REMEMBERED else name[:_LONGEST_REMEMBERED] + "..."
            _log.info(
                "%r from %s is denied %s on %s %r", str(principal), host, operation.name, kind.name, shown
            )


def _is_about(acl: Acl, operation: Operation) -> bool:
    if acl.operation in (operation, Operation.ALL):
        return True
    if acl.permission is Permission.DENY:
        return False
    if operation is Operation.DESCRIBE:
        return acl.operation in _IMPLIES_DESCRIBE
    return operation is Operation.DESCRIBE_CONFIGS and acl.operation is Operation.ALTER_CONFIGS


def _dominates(deny: Acl, allow: Acl) -> bool:
    """Whether everything that `allow` names is named by `deny`."""
    if deny.pattern_type is PatternType.PREFIXED:
        whole = allow.resource_name == WILDCARD and allow.pattern_type is PatternType.LITERAL
        return not whole and allow.resource_name.startswith(deny.resource_name)
    return deny.pattern_type is allow.pattern_type and deny.resource_name == allow.resource_name


@dataclass(frozen=True, slots=True)
class Access:
    """One connected principal before the authorizer."""

    authorizer: Authorizer
    principal: Principal
    host: str

    def may(self, operation: Operation, kind: ResourceType, name: str) -> bool:
        """Whether the principal may do this."""
        return self.authorizer.allows(self.principal, self.host, operation, kind, name)

    def may_cluster(self, operation: Operation) -> bool:
        """Whether the principal may do this to the cluster."""
        return self.may(operation, ResourceType.CLUSTER, CLUSTER_NAME)

    def may_any(self, operation: Operation, kind: ResourceType) -> bool:
        """Whether the principal may do this to any resource of the type."""
        return self.authorizer.allows_any(self.principal, self.host, operation, kind)

    def operations(self, kind: ResourceType, name: str) -> int:
        """The bit mask of what the principal may do to the resource."""
        return self.authorizer.operations(self.principal, self.host, kind, name)
