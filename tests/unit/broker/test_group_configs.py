"""Configs of single groups (KIP-848) over the wire."""

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.configs import APPEND, DELETE, GROUP, SET, Change, change, described, listed, replace
from tests.fixtures.wire import WireClient, create

from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m

SESSION, HEARTBEAT = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
SET_ON_GROUP, AT_START, DEFAULT, INT = 8, 4, 5, 3


def told(wire: WireClient, group: str, name: str) -> list[tuple[str, str | None, int]]:
    """The places that give a config its value; the first one decides."""
    entry = described(wire, GROUP, group)[name]
    places = [(synonym.name, synonym.value, synonym.source) for synonym in entry.synonyms]
    assert (entry.value, entry.config_source) == places[0][1:]
    assert (entry.config_type, entry.read_only, entry.is_sensitive) == (INT, False, False)
    assert entry.documentation
    return places


def beat(wire: WireClient, group: str, member: str = "a") -> m.ConsumerGroupHeartbeatResponse:
    request = m.ConsumerGroupHeartbeatRequest(
        group, member, 0, rebalance_timeout_ms=1000, subscribed_topic_names=["t"], topic_partitions=[]
    )
    answer: m.ConsumerGroupHeartbeatResponse = wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, request)
    return answer


def test_what_is_set_on_a_group_is_described_over_the_brokers_option_and_taken_back(wire: WireClient) -> None:
    built_in = [("group.consumer.session.timeout.ms", "45000", DEFAULT)]
    assert set(described(wire, GROUP, "never seen")) == {SESSION, HEARTBEAT}
    assert told(wire, "g", SESSION) == built_in
    assert change(wire, GROUP, "g", (SESSION, SET, " 50000 "), (HEARTBEAT, SET, "6000")) == (0, "")
    assert told(wire, "g", SESSION) == [(SESSION, "50000", SET_ON_GROUP), *built_in]
    assert told(wire, "other", SESSION) == built_in
    assert listed(wire, GROUP) == ["g"]
    assert "g" in listed(wire)
    assert change(wire, GROUP, "g", (SESSION, DELETE, None)) == (0, "")
    assert told(wire, "g", SESSION) == built_in
    assert described(wire, GROUP, "g")[HEARTBEAT].value == "6000"
    assert replace(wire, GROUP, "g", consumer_session_timeout_ms="55000") == (0, "")
    assert [described(wire, GROUP, "g")[name].value for name in (SESSION, HEARTBEAT)] == ["55000", "5000"]
    assert replace(wire, GROUP, "g") == (0, "")
    assert listed(wire, GROUP) == []


WRONG: list[tuple[str, Change, ErrorCode, str]] = [
    ("", (SESSION, SET, "50000"), ErrorCode.INVALID_REQUEST, "Default group resources are not allowed."),
    ("g", ("retention.ms", SET, "1"), ErrorCode.INVALID_CONFIG, "Unknown group config name: retention.ms"),
    ("g", ("share.session.timeout.ms", SET, "50000"), ErrorCode.INVALID_CONFIG, "Unknown group config name"),
    ("g", (SESSION, SET, "soon"), ErrorCode.INVALID_CONFIG, "Invalid value soon for configuration"),
    ("g", (SESSION, SET, "50_000"), ErrorCode.INVALID_CONFIG, "Not a number of type INT"),
    ("g", (SESSION, SET, "2147483648"), ErrorCode.INVALID_CONFIG, "Not a number of type INT"),
    ("g", (SESSION, SET, "0"), ErrorCode.INVALID_CONFIG, "Value must be at least 1"),
    ("g", (SESSION, SET, "44999"), ErrorCode.INVALID_CONFIG, "equal to group.consumer.min.session.timeout.ms"),
    ("g", (SESSION, SET, "60001"), ErrorCode.INVALID_CONFIG, "equal to group.consumer.max.session.timeout.ms"),
    ("g", (HEARTBEAT, SET, "4999"), ErrorCode.INVALID_CONFIG, "to group.consumer.min.heartbeat.interval.ms"),
    ("g", (HEARTBEAT, SET, "15001"), ErrorCode.INVALID_CONFIG, "to group.consumer.max.heartbeat.interval.ms"),
    ("g", (SESSION, SET, None), ErrorCode.INVALID_REQUEST, SESSION),
    ("g", (SESSION, APPEND, "50000"), ErrorCode.INVALID_CONFIG, SESSION),
]  # fmt: skip


@pytest.mark.parametrize(("group", "wrong", "code", "said"), WRONG, ids=str)
def test_a_group_config_that_kafka_refuses_is_refused_and_changes_nothing(
    wire: WireClient, group: str, wrong: Change, code: ErrorCode, said: str
) -> None:
    other = (HEARTBEAT if wrong[0] == SESSION else SESSION, SET, "15000" if wrong[0] == SESSION else "45000")
    error, message = change(wire, GROUP, group, other, wrong)
    assert error == code and said in message
    assert listed(wire, GROUP) == []


def test_a_group_without_a_name_cannot_be_described(wire: WireClient) -> None:
    asked = m.DescribeConfigsRequest([m.DescribeConfigsResource(GROUP, "", None)])
    (result,) = wire.ask(ApiKey.DESCRIBE_CONFIGS, asked).results
    assert result.error_code == ErrorCode.INVALID_REQUEST


def test_a_session_must_outlast_a_heartbeat_interval(broker_factory: BrokerFactory) -> None:
    bounds = {"group_consumer_min_session_timeout_ms": 5_000, "group_consumer_max_session_timeout_ms": 45_000}
    with WireClient(broker_factory(**bounds).bootstrap) as wire:
        error, message = change(wire, GROUP, "g", (SESSION, SET, "5000"))
        assert (error, message) == (ErrorCode.INVALID_CONFIG, f"{SESSION} must be greater than {HEARTBEAT}")
        assert change(wire, GROUP, "g", (SESSION, SET, "5001")) == (0, "")


def test_a_change_of_a_group_that_is_only_checked_changes_nothing(wire: WireClient) -> None:
    assert change(wire, GROUP, "g", (SESSION, SET, "50000"), validate_only=True) == (0, "")
    assert change(wire, GROUP, "g", (SESSION, SET, "1"), validate_only=True)[0] == ErrorCode.INVALID_CONFIG
    assert listed(wire, GROUP) == []


def test_members_obey_their_group_from_the_next_heartbeat_on_also_after_a_kill(
    broker_factory: BrokerFactory,
) -> None:
    broker = broker_factory()
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t")
        assert beat(wire, "g").heartbeat_interval_ms == 5_000
        assert change(wire, GROUP, "g", (HEARTBEAT, SET, "7000")) == (0, "")
        assert [beat(wire, group).heartbeat_interval_ms for group in ("g", "other")] == [7_000, 5_000]
    broker.kill()
    with WireClient(broker.start().bootstrap) as wire:
        assert beat(wire, "g").heartbeat_interval_ms == 7_000
        assert listed(wire, GROUP) == ["g"]


def test_a_member_is_out_after_the_session_timeout_of_its_own_group(broker_factory: BrokerFactory) -> None:
    options = {
        "group_consumer_min_session_timeout_ms": 51,
        "group_consumer_heartbeat_interval_ms": 50,
        "group_consumer_max_size": 1,
    }
    with WireClient(broker_factory(**options).bootstrap) as wire:
        create(wire, "t")
        assert change(wire, GROUP, "g", (SESSION, SET, "51")) == (0, "")
        assert [beat(wire, group).error_code for group in ("g", "other")] == [0, 0]
        while (second := beat(wire, "g", "b")).error_code == ErrorCode.GROUP_MAX_SIZE_REACHED:
            pass  # until the first one's session is over
        assert second.error_code == 0
        assert beat(wire, "other", "b").error_code == ErrorCode.GROUP_MAX_SIZE_REACHED


def test_a_group_that_is_outside_the_brokers_newer_bounds_obeys_the_bound(
    broker_factory: BrokerFactory,
) -> None:
    broker = broker_factory("b", group_consumer_max_heartbeat_interval_ms=40_000)
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t")
        assert change(wire, GROUP, "g", (HEARTBEAT, SET, "40000")) == (0, "")
        assert beat(wire, "g").heartbeat_interval_ms == 40_000
    broker.stop()
    with WireClient(broker_factory("b").bootstrap) as wire:
        assert beat(wire, "g").heartbeat_interval_ms == 15_000
        assert described(wire, GROUP, "g")[HEARTBEAT].value == "40000"


def test_the_brokers_own_option_is_told_as_set_at_the_start(broker_factory: BrokerFactory) -> None:
    with WireClient(broker_factory(group_consumer_session_timeout_ms=50_000).bootstrap) as wire:
        assert told(wire, "g", SESSION) == [
            ("group.consumer.session.timeout.ms", "50000", AT_START),
            ("group.consumer.session.timeout.ms", "45000", DEFAULT),
        ]
