"""DescribeConfigs, AlterConfigs and IncrementalAlterConfigs over the wire."""

from tests.fixtures.broker import BrokerFactory
from tests.fixtures.configs import (
    APPEND,
    BROKER,
    DELETE,
    SET,
    SUBTRACT,
    TOPIC,
    Change,
    change,
    described,
    replace,
)
from tests.fixtures.wire import WireClient, batch, create, produce_request, produced

from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m

LIST, INT, LONG, BOOLEAN, DOUBLE, STRING = 7, 3, 5, 1, 6, 2


def values(wire: WireClient, *names: str) -> list[str | None]:
    found = described(wire, TOPIC, "t", *names)
    return [found[name].value for name in names]


def test_every_topic_config_comes_with_source_synonyms_type_and_documentation(wire: WireClient) -> None:
    create(wire, "t", retention_ms="5")
    for version in (1, 4):
        check_description(described(wire, TOPIC, "t", version=version), typed=version >= 3)


def check_description(found: dict[str, m.DescribeConfigsResourceResult], *, typed: bool) -> None:
    assert len(found) == 33
    assert (found["retention.ms"].value, found["retention.ms"].config_source) == ("5", 1)
    assert [(s.name, s.value, s.source) for s in found["retention.ms"].synonyms] == [
        ("retention.ms", "5", 1),
        ("log.retention.ms", "604800000", 5),
    ]
    policy = found["cleanup.policy"]
    assert (policy.value, policy.config_source, policy.read_only, policy.is_sensitive) == (
        "delete",
        5,
        False,
        False,
    )
    assert [(s.name, s.source) for s in policy.synonyms] == [("log.cleanup.policy", 5)]
    if typed:
        types = {name: entry.config_type for name, entry in found.items()}
        assert types["cleanup.policy"] == LIST and types["max.message.bytes"] == INT
        assert types["retention.ms"] == LONG and types["preallocate"] == BOOLEAN
        assert types["min.cleanable.dirty.ratio"] == DOUBLE and types["compression.type"] == STRING
        assert all(entry.documentation for entry in found.values())


def test_configs_are_described_by_name_and_unknown_resources_refused(wire: WireClient) -> None:
    create(wire, "t")
    assert set(described(wire, TOPIC, "t", "retention.ms", "unknown")) == {"retention.ms"}
    resources = [
        m.DescribeConfigsResource(TOPIC, "missing", None),
        m.DescribeConfigsResource(BROKER, "9", None),
    ]
    results = wire.ask(ApiKey.DESCRIBE_CONFIGS, m.DescribeConfigsRequest(resources)).results
    assert [r.error_code for r in results] == [
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.INVALID_REQUEST,
    ]


def test_single_configs_are_set_deleted_appended_to_and_subtracted_from(wire: WireClient) -> None:
    create(wire, "t", retention_ms="5")
    names = ("cleanup.policy", "retention.ms", "retention.bytes")
    changes: tuple[Change, ...] = (
        ("cleanup.policy", APPEND, "compact"),
        ("retention.ms", DELETE, None),
        ("retention.bytes", SET, "7"),
    )
    assert change(wire, TOPIC, "t", *changes, validate_only=True) == (0, "")
    assert values(wire, *names) == ["delete", "5", "-1"]
    assert change(wire, TOPIC, "t", *changes) == (0, "")
    assert values(wire, *names) == ["delete,compact", "604800000", "7"]
    assert change(wire, TOPIC, "t", ("cleanup.policy", SUBTRACT, "delete")) == (0, "")
    assert change(wire, TOPIC, "t", ("cleanup.policy", APPEND, "compact")) == (0, "")
    assert values(wire, *names) == ["compact", "604800000", "7"]


WRONG: list[tuple[list[Change], ErrorCode, str]] = [
    ([("retention.ms", SET, "soon")], ErrorCode.INVALID_CONFIG, "retention.ms=soon"),
    ([("retention.mss", SET, "1")], ErrorCode.INVALID_CONFIG, "retention.mss"),
    ([("retention.ms", APPEND, "1")], ErrorCode.INVALID_CONFIG, "retention.ms"),
    ([("cleanup.policy", APPEND, "squash")], ErrorCode.INVALID_CONFIG, "cleanup.policy"),
    ([("min.insync.replicas", SET, "2")], ErrorCode.INVALID_CONFIG, "min.insync.replicas=2"),
    ([("retention.ms", SET, None)], ErrorCode.INVALID_REQUEST, "retention.ms"),
    ([("retention.ms", 9, "1")], ErrorCode.INVALID_REQUEST, "operation 9"),
    (
        [("retention.ms", SET, "1"), ("retention.ms", SET, "2")],
        ErrorCode.INVALID_REQUEST,
        "more than once",
    ),
]


def test_a_wrong_change_names_its_config_and_changes_nothing(wire: WireClient) -> None:
    create(wire, "t", retention_ms="5")
    for changes, code, named in WRONG:
        error, message = change(wire, TOPIC, "t", ("retention.bytes", SET, "7"), *changes)
        assert error == code and named in message
        assert values(wire, "retention.ms", "retention.bytes") == ["5", "-1"]


def test_all_configs_are_replaced_at_once(wire: WireClient) -> None:
    create(wire, "t", retention_ms="5")
    assert replace(wire, TOPIC, "t", retention_bytes="7") == (0, "")
    assert values(wire, "retention.ms", "retention.bytes") == ["604800000", "7"]
    assert replace(wire, TOPIC, "t", retention_bytes=None)[0] == ErrorCode.INVALID_REQUEST
    assert replace(wire, TOPIC, "t", retention_bytes="x")[0] == ErrorCode.INVALID_CONFIG
    assert replace(wire, TOPIC, "missing")[0] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert replace(wire, TOPIC, "__consumer_offsets")[0] == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert replace(wire, 99, "t")[0] == ErrorCode.INVALID_REQUEST
    assert values(wire, "retention.bytes") == ["7"]


def test_defaults_for_topics_are_set_on_the_broker(wire: WireClient) -> None:
    create(wire, "t")
    assert change(wire, BROKER, "", ("log.roll.ms", SET, "7"), ("message.max.bytes", SET, "200")) == (
        0,
        "",
    )
    assert change(wire, BROKER, "1", ("message.max.bytes", SET, "100")) == (0, "")
    broker = described(wire, BROKER, "1", "message.max.bytes", "log.roll.ms", "node.id")
    assert [(e.value, e.config_source, e.read_only) for e in broker.values()] == [
        ("1", 5, True),
        ("100", 2, False),
        ("7", 3, False),
    ]
    assert set(described(wire, BROKER, "")) == {"message.max.bytes", "log.roll.ms", "min.insync.replicas"}
    topic = described(wire, TOPIC, "t", "segment.ms", "max.message.bytes")
    assert [(e.value, e.config_source) for e in topic.values()] == [("100", 2), ("7", 3)]
    sent = produce_request("t", batch(b"x", size=150))
    assert produced(wire.ask(ApiKey.PRODUCE, sent))[0] == ErrorCode.MESSAGE_TOO_LARGE
    assert change(wire, BROKER, "1", ("message.max.bytes", DELETE, None))[0] == 0
    assert change(wire, BROKER, "", ("message.max.bytes", SET, "1000"))[0] == 0
    assert produced(wire.ask(ApiKey.PRODUCE, sent))[0] == 0
    assert change(wire, BROKER, "", ("log.cleanup.policy", APPEND, "compact"))[0] == 0
    assert values(wire, "cleanup.policy") == ["delete,compact"]


def test_the_least_number_of_replicas_is_set_on_all_brokers_as_in_a_kafka_formatted_anew(
    wire: WireClient,
) -> None:
    create(wire, "t")
    name = "min.insync.replicas"
    for kind, resource in ((TOPIC, "t"), (BROKER, "1"), (BROKER, "")):
        (entry,) = described(wire, kind, resource, name).values()
        assert (entry.value, entry.config_source) == ("1", 3)


def test_options_of_kerberos_are_kept_and_described_as_where_no_login_is_by_kerberos(
    wire: WireClient,
) -> None:
    create(wire, "t")
    name = "sasl.kerberos.min.time.before.relogin"
    assert change(wire, BROKER, "1", (name, SET, "58000")) == (0, "")
    assert change(wire, BROKER, "1", (name, SET, "soon"))[0] == ErrorCode.INVALID_CONFIG
    (entry,) = described(wire, BROKER, "1", name).values()
    assert (entry.value, entry.config_source, entry.read_only) == ("58000", 2, False)
    assert change(wire, TOPIC, "t", ("retention.ms", SET, "5")) == (0, "")
    assert change(wire, BROKER, "1", (name, DELETE, None)) == (0, "")
    (entry,) = described(wire, BROKER, "1", name).values()
    assert (entry.value, entry.config_source) == ("60000", 5)


def test_what_the_broker_cannot_change_while_it_runs_is_refused_by_name(wire: WireClient) -> None:
    for name in ("num.partitions", "log.retention.hours", "unknown", "min.insync.replicas"):
        error, message = change(wire, BROKER, "1", (name, SET, "2"))
        assert error == ErrorCode.INVALID_CONFIG and name in message
        assert change(wire, BROKER, "9", (name, SET, "2"))[0] == ErrorCode.INVALID_REQUEST


def test_the_brokers_own_options_are_described_with_their_default(wire: WireClient) -> None:
    found = described(wire, BROKER, "1")
    assert {"auto.create.topics.enable", "num.partitions", "log.segment.bytes"} <= set(found)
    partitions = found["num.partitions"]
    assert (partitions.value, partitions.read_only) == ("1", True)
    assert [(s.name, s.value, s.source) for s in partitions.synonyms] == [("num.partitions", "1", 5)]
    assert found["default.replication.factor"].value == "1"
    assert len(found) == len({entry.name for entry in found.values()})


def test_the_listeners_are_told_as_they_are_and_not_as_defaults(broker_factory: BrokerFactory) -> None:
    default = broker_factory("default")
    named = broker_factory(
        "named",
        listeners=("IN://127.0.0.1:0", "OUT://127.0.0.1:0"),
        listener_security_protocol_map=("IN:PLAINTEXT", "OUT:PLAINTEXT"),
        advertised_listeners=("OUT://localhost:7",),
    )
    expected = (
        (default, f"PLAINTEXT://{default.bootstrap}", f"PLAINTEXT://{default.bootstrap}"),
        (
            named,
            f"IN://{named.address('IN')},OUT://{named.address('OUT')}",
            f"IN://{named.address('IN')},OUT://localhost:7",
        ),
    )
    for broker, listeners, advertised in expected:
        with WireClient(broker.bootstrap) as wire:
            found = described(wire, BROKER, "1", "listeners", "advertised.listeners")
        assert [(e.value, e.config_source, e.config_type) for e in found.values()] == [
            (listeners, 4, LIST),
            (advertised, 4, LIST),
        ]
