"""ACLs decide as Kafka's StandardAuthorizer does: against a small model that reads the rules one by one."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tailrace.security.acls import (
    CLUSTER_NAME,
    Acl,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
    why_not,
)
from tailrace.security.authorizer import Authorizer
from tailrace.security.principals import ANONYMOUS, Principal, user
from tailrace.security.store import SecurityStore, StoreError

ALICE, BOB = user("alice"), user("bob")
HOST = "10.0.0.7"
DENY, ALLOW = Permission.DENY, Permission.ALLOW
LITERAL, PREFIXED = PatternType.LITERAL, PatternType.PREFIXED


class Rules:
    """An authorizer over a fresh store, with rules added tersely."""

    def __init__(self, store: SecurityStore, **options: object) -> None:
        self.authorizer = Authorizer(store, **options)  # type: ignore[arg-type]

    def add(
        self,
        permission: Permission,
        operation: Operation,
        name: str,
        *,
        pattern: PatternType = LITERAL,
        who: str = "User:alice",
        host: str = "*",
        kind: ResourceType = ResourceType.TOPIC,
    ) -> None:
        self.authorizer.add([Acl(kind, pattern, name, who, host, operation, permission)])

    def may(self, operation: Operation, name: str, who: Principal = ALICE, host: str = HOST) -> bool:
        return self.authorizer.allows(who, host, operation, ResourceType.TOPIC, name)

    def may_any(self, operation: Operation, who: Principal = ALICE) -> bool:
        return self.authorizer.allows_any(who, HOST, operation, ResourceType.TOPIC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SecurityStore]:
    made = SecurityStore(tmp_path / "metadata.db")
    yield made
    made.close()


@pytest.fixture
def rules(store: SecurityStore) -> Rules:
    return Rules(store)


def test_without_any_rule_everything_is_denied(rules: Rules) -> None:
    for operation in Operation:
        assert not rules.may(operation, "t")
        assert not rules.may(operation, "t", ANONYMOUS)


def test_without_any_rule_everything_is_allowed_only_if_that_is_asked_for(store: SecurityStore) -> None:
    rules = Rules(store, allow_without_rules=True)
    assert rules.may(Operation.READ, "t")
    rules.add(ALLOW, Operation.READ, "t", who="User:bob")
    assert not rules.may(Operation.READ, "t")  # a rule names the resource, though not alice
    assert rules.may(Operation.READ, "u")


def test_a_denial_beats_every_allowance_in_whatever_order_they_came(rules: Rules) -> None:
    rules.add(DENY, Operation.READ, "orders")
    rules.add(ALLOW, Operation.ALL, "*")
    rules.add(ALLOW, Operation.READ, "orders")
    rules.add(ALLOW, Operation.READ, "ord", pattern=PREFIXED)
    assert not rules.may(Operation.READ, "orders")
    assert rules.may(Operation.WRITE, "orders")
    assert rules.may(Operation.READ, "order")


def test_a_literal_rule_names_one_resource_and_a_prefixed_one_all_that_begin_so(rules: Rules) -> None:
    rules.add(ALLOW, Operation.READ, "orders")
    rules.add(ALLOW, Operation.WRITE, "shop.", pattern=PREFIXED)
    assert rules.may(Operation.READ, "orders")
    assert not rules.may(Operation.READ, "orders2")
    assert rules.may(Operation.WRITE, "shop.") and rules.may(Operation.WRITE, "shop.orders")
    assert not rules.may(Operation.WRITE, "shop")


def test_a_star_is_everything_in_a_literal_rule_and_a_star_in_a_prefixed_one(rules: Rules) -> None:
    rules.add(ALLOW, Operation.READ, "*")
    rules.add(ALLOW, Operation.WRITE, "*", pattern=PREFIXED)
    assert rules.may(Operation.READ, "anything")
    assert not rules.may(Operation.WRITE, "anything")


@pytest.mark.parametrize("implying", [Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER])
def test_what_touches_a_resource_implies_describe_when_allowed_and_not_when_denied(
    rules: Rules, implying: Operation
) -> None:
    rules.add(ALLOW, implying, "t")
    assert rules.may(Operation.DESCRIBE, "t")
    rules.add(ALLOW, Operation.DESCRIBE, "u")
    rules.add(DENY, implying, "u")
    assert rules.may(Operation.DESCRIBE, "u")


def test_alter_configs_implies_describe_configs_and_nothing_else_implies_anything(rules: Rules) -> None:
    rules.add(ALLOW, Operation.ALTER_CONFIGS, "t")
    assert rules.may(Operation.DESCRIBE_CONFIGS, "t")
    assert not rules.may(Operation.DESCRIBE, "t")
    rules.add(ALLOW, Operation.CREATE, "u")
    assert not rules.may(Operation.DESCRIBE, "u")
    rules.add(ALLOW, Operation.DESCRIBE, "v")
    assert not any(rules.may(o, "v") for o in Operation if o is not Operation.DESCRIBE)


def test_a_rule_counts_for_its_host_only(rules: Rules) -> None:
    rules.add(ALLOW, Operation.READ, "t", host="10.0.0.7")
    assert rules.may(Operation.READ, "t", host="10.0.0.7")
    assert not rules.may(Operation.READ, "t", host="10.0.0.70")


def test_a_rule_for_everybody_is_a_rule_for_each(rules: Rules) -> None:
    rules.add(ALLOW, Operation.READ, "t", who="User:*")
    rules.add(DENY, Operation.READ, "t", who="User:bob")
    assert rules.may(Operation.READ, "t") and rules.may(Operation.READ, "t", ANONYMOUS)
    assert not rules.may(Operation.READ, "t", BOB)


def test_super_users_are_named_whole_and_no_rule_binds_them(store: SecurityStore) -> None:
    rules = Rules(store, super_users=["User:alice"])
    rules.add(DENY, Operation.ALL, "*", who="User:*")
    assert rules.may(Operation.WRITE, "t") and rules.may_any(Operation.WRITE)
    for almost in ("Alice", "alice ", "alic", "User:alice", "alice2"):
        assert not rules.may(Operation.WRITE, "t", user(almost))


def test_a_type_of_resource_is_not_another_one(rules: Rules) -> None:
    rules.add(ALLOW, Operation.READ, "t", kind=ResourceType.GROUP)
    assert not rules.may(Operation.READ, "t")


def test_a_removed_rule_counts_no_more_and_a_new_one_at_once(rules: Rules) -> None:
    rules.add(ALLOW, Operation.READ, "t")
    assert rules.may(Operation.READ, "t")
    rules.authorizer.remove(rules.authorizer.find(AclFilter()))
    assert not rules.may(Operation.READ, "t")
    rules.add(ALLOW, Operation.READ, "t")
    assert rules.may(Operation.READ, "t")


def test_rules_are_those_of_the_store_after_a_restart(store: SecurityStore) -> None:
    Rules(store).add(DENY, Operation.READ, "t")
    assert Rules(store).authorizer.find(AclFilter()) == [
        Acl(ResourceType.TOPIC, LITERAL, "t", "User:alice", "*", Operation.READ, DENY)
    ]


def test_a_rule_that_cannot_be_written_does_not_count(store: SecurityStore) -> None:
    rules = Rules(store)
    store._db.execute("DROP TABLE acls")
    with pytest.raises(StoreError, match="cannot write"):
        rules.add(ALLOW, Operation.READ, "t")
    assert not rules.may(Operation.READ, "t")


# -- any resource (KIP-679) ----------------------------------------------------------------------------


def test_write_on_any_topic_needs_an_allowance_that_no_denial_swallows(rules: Rules) -> None:
    assert not rules.may_any(Operation.WRITE)
    rules.add(ALLOW, Operation.WRITE, "orders")
    assert rules.may_any(Operation.WRITE) and not rules.may_any(Operation.READ)
    rules.add(DENY, Operation.WRITE, "ord", pattern=PREFIXED)
    assert not rules.may_any(Operation.WRITE)
    rules.add(ALLOW, Operation.WRITE, "or", pattern=PREFIXED)  # names more than the denial
    assert rules.may_any(Operation.WRITE)
    rules.add(DENY, Operation.ALL, "*")
    assert not rules.may_any(Operation.WRITE)


# -- the model -----------------------------------------------------------------------------------------

_IMPLIED = {
    Operation.DESCRIBE: {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER},
    Operation.DESCRIBE_CONFIGS: {Operation.ALTER_CONFIGS},
}
_NAMES = st.text("ab*", max_size=3)
_ACLS = st.builds(
    Acl,
    st.sampled_from([ResourceType.TOPIC, ResourceType.GROUP]),
    st.sampled_from([LITERAL, PREFIXED]),
    _NAMES.filter(bool),
    st.sampled_from(["User:alice", "User:bob", "User:*"]),
    st.sampled_from([HOST, "*", "::1"]),
    st.sampled_from([o for o in Operation if o > Operation.ANY]),
    st.sampled_from([DENY, ALLOW]),
)


def expected(acls: list[Acl], who: Principal, operation: Operation, name: str, *, default: bool) -> bool:
    """Kafka's rule, one sentence at a time."""
    about = []
    for acl in acls:
        if acl.resource_type is not ResourceType.TOPIC:
            continue
        if acl.pattern_type is LITERAL and acl.resource_name not in ("*", name):
            continue
        if acl.pattern_type is PREFIXED and name[: len(acl.resource_name)] != acl.resource_name:
            continue
        about.append(acl)
    if not about:
        return default
    mine = [a for a in about if a.principal in ("User:*", f"User:{who.name}") and a.host in ("*", HOST)]
    if any(a.permission is DENY and a.operation in (operation, Operation.ALL) for a in mine):
        return False
    enough = {operation, Operation.ALL} | _IMPLIED.get(operation, set())
    return any(a.permission is ALLOW and a.operation in enough for a in mine)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@given(
    acls=st.lists(_ACLS, max_size=8),
    default=st.booleans(),
    questions=st.lists(_NAMES, min_size=1, max_size=4),
)
@example(acls=[], default=True, questions=[""])
def test_every_decision_is_that_of_a_model_that_reads_the_rules_one_by_one(
    model_folder: Path, acls: list[Acl], default: bool, questions: list[str]
) -> None:
    store = SecurityStore(model_folder / "metadata.db")
    try:
        store.remove_acls(store.acls())
        authorizer = Authorizer(store, allow_without_rules=default)
        authorizer.add(acls)
        for name in questions * 2:  # the second time from memory
            for operation in Operation:
                if operation > Operation.ALL:
                    told = authorizer.allows(ALICE, HOST, operation, ResourceType.TOPIC, name)
                    assert told == expected(acls, ALICE, operation, name, default=default)
    finally:
        store.close()


@given(acls=st.lists(_ACLS, max_size=8), name=_NAMES.filter(bool))
def test_who_may_write_a_topic_by_a_rule_may_write_any(
    model_folder: Path, acls: list[Acl], name: str
) -> None:
    """`allows_any` must not be stricter than `allows`; an allowance for one topic is one for some topic."""
    store = SecurityStore(model_folder / "metadata.db")
    try:
        store.remove_acls(store.acls())
        authorizer = Authorizer(store)
        authorizer.add(acls)
        if authorizer.allows(ALICE, HOST, Operation.WRITE, ResourceType.TOPIC, name):
            assert authorizer.allows_any(ALICE, HOST, Operation.WRITE, ResourceType.TOPIC)
    finally:
        store.close()


# -- filters and what is no rule -----------------------------------------------------------------------


def test_a_filter_of_match_finds_every_pattern_that_covers_the_name() -> None:
    def names(pattern: PatternType, name: str) -> set[str]:
        rules = [
            Acl(ResourceType.TOPIC, kind, name, "User:a", "*", Operation.READ, ALLOW)
            for kind, name in (
                (LITERAL, "ab"),
                (LITERAL, "*"),
                (PREFIXED, "a"),
                (PREFIXED, "b"),
                (PREFIXED, "ab"),
            )
        ]
        wanted = AclFilter(pattern_type=pattern, resource_name=name)
        return {f"{rule.pattern_type.name[0]}{rule.resource_name}" for rule in rules if wanted.matches(rule)}

    assert names(PatternType.MATCH, "ab") == {"Lab", "L*", "Pa", "Pab"}
    assert names(PatternType.ANY, "ab") == {"Lab", "Pab"}
    assert names(LITERAL, "ab") == {"Lab"}
    assert names(PREFIXED, "a") == {"Pa"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"resource_type": ResourceType.ANY}, "resource type"),
        ({"pattern_type": PatternType.MATCH}, "LITERAL or PREFIXED"),
        ({"operation": Operation.ANY}, "operation"),
        ({"permission": Permission.ANY}, "allows or denies"),
        ({"resource_name": ""}, "empty"),
        ({"resource_type": ResourceType.CLUSTER, "resource_name": "mine"}, CLUSTER_NAME),
        ({"principal": "alice"}, "User:name"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_reason(change: dict[str, object], why: str) -> None:
    parts = {
        "resource_type": ResourceType.TOPIC,
        "pattern_type": LITERAL,
        "resource_name": "t",
        "principal": "User:alice",
        "host": "*",
        "operation": Operation.READ,
        "permission": ALLOW,
    }
    assert why_not(Acl(**parts)) is None  # type: ignore[arg-type]
    assert why in (why_not(Acl(**{**parts, **change})) or "")  # type: ignore[arg-type]


# -- an attacker who asks for names --------------------------------------------------------------------


def test_a_name_as_long_as_a_request_is_decided_at_once_and_not_remembered(rules: Rules) -> None:
    rules.add(ALLOW, Operation.READ, "shop.", pattern=PREFIXED)
    began = time.monotonic()
    assert rules.may(Operation.READ, "shop." + "x" * 10_000_000)
    assert not rules.may(Operation.READ, "y" * 10_000_000)
    assert time.monotonic() - began < 5.0  # one prefix of each length took minutes
    assert rules.authorizer._decided == {}


def test_a_flood_of_denials_does_not_fill_the_log(rules: Rules, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for number in range(1000):
            assert not rules.may(Operation.READ, f"topic-{number}")
    seconds = 60  # the loop above took less
    assert 1 <= len(caplog.records) <= 21 * seconds
    assert len(caplog.records) < 1000
    assert "'User:alice' from 10.0.0.7 is denied READ on TOPIC 'topic-0'" in caplog.text


def test_a_name_in_the_log_breaks_no_line(rules: Rules, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        rules.may(Operation.READ, "t\nbroker stopped", user("a\nbroker stopped"))
    assert len(caplog.text.splitlines()) == 1
