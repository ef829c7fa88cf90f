"""Subscriptions to clients' metrics (KIP-714) over the wire."""

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.configs import (
    APPEND,
    CLIENT_METRICS,
    DELETE,
    SET,
    Change,
    change,
    described,
    listed,
    replace,
)
from tests.fixtures.wire import WireClient

from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m

INT, LIST = 3, 7
SET_ON_IT, DEFAULT = 7, 5
GET_TELEMETRY_SUBSCRIPTIONS = 71


def values(wire: WireClient, name: str = "m") -> dict[str, tuple[str | None, int]]:
    return {key: (e.value, e.config_source) for key, e in described(wire, CLIENT_METRICS, name).items()}


def test_a_subscription_is_set_described_listed_and_taken_back(wire: WireClient) -> None:
    defaults = {"interval.ms": ("300000", DEFAULT), "match": ("", DEFAULT), "metrics": ("", DEFAULT)}
    assert values(wire) == defaults
    patterns = "client_id=shop.*, client_software_name=librdkafka"
    changes: list[Change] = [
        ("interval.ms", SET, "30000"),
        ("match", SET, patterns),
        ("metrics", SET, "org."),
    ]
    assert change(wire, CLIENT_METRICS, "m", *changes) == (0, "")
    assert values(wire) == {name: (value, SET_ON_IT) for name, _, value in changes}
    entries = described(wire, CLIENT_METRICS, "m")
    assert [entry.config_type for entry in entries.values()] == [INT, LIST, LIST]
    assert [(s.name, s.value, s.source) for s in entries["metrics"].synonyms] == [
        ("metrics", "org.", SET_ON_IT)
    ]
    assert all(entry.documentation and not entry.read_only for entry in entries.values())
    assert listed(wire, CLIENT_METRICS) == listed(wire, version=0) == ["m"]
    assert change(wire, CLIENT_METRICS, "m", ("metrics", DELETE, None), ("match", DELETE, None)) == (0, "")
    assert values(wire) == {**defaults, "interval.ms": ("30000", SET_ON_IT)}
    assert replace(wire, CLIENT_METRICS, "m", metrics="*") == (0, "")
    assert values(wire) == {**defaults, "metrics": ("*", SET_ON_IT)}
    assert replace(wire, CLIENT_METRICS, "m") == (0, "")
    assert listed(wire, CLIENT_METRICS) == listed(wire, version=0) == []


WRONG: list[tuple[str, Change, ErrorCode, str]] = [
    ("", ("metrics", SET, "a"), ErrorCode.INVALID_REQUEST, "Subscription name can't be empty"),
    ("m", ("retention.ms", SET, "1"), ErrorCode.INVALID_REQUEST, "Unknown client metrics configuration"),
    ("m", ("interval.ms", SET, "99"), ErrorCode.INVALID_REQUEST, "must be between 100 and 3600000"),
    ("m", ("interval.ms", SET, "3600001"), ErrorCode.INVALID_REQUEST, "must be between 100 and 3600000"),
    ("m", ("interval.ms", SET, "soon"), ErrorCode.INVALID_CONFIG, "Not a number of type INT"),
    ("m", ("match", SET, "name=a"), ErrorCode.INVALID_CONFIG, "Illegal client matching pattern: name=a"),
    ("m", ("match", SET, "client_id=["), ErrorCode.INVALID_CONFIG, "Illegal client matching pattern: client_id=["),
    ("m", ("match", SET, "client_id"), ErrorCode.INVALID_CONFIG, "Illegal client matching pattern: client_id"),
    ("m", ("match", SET, "client_id="), ErrorCode.INVALID_CONFIG, "Illegal client matching pattern"),
    ("m", ("metrics", APPEND, "a"), ErrorCode.INVALID_CONFIG, "metrics"),
    ("m", ("metrics", SET, None), ErrorCode.INVALID_REQUEST, "metrics"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrong", "code", "said"), WRONG, ids=str)
def test_what_kafka_refuses_is_refused_and_changes_nothing(
    wire: WireClient, name: str, wrong: Change, code: ErrorCode, said: str
) -> None:
    other = "interval.ms" if wrong[0] != "interval.ms" else "metrics"
    error, message = change(wire, CLIENT_METRICS, name, (other, SET, "1000"), wrong)
    assert error == code and said in message
    assert listed(wire, CLIENT_METRICS) == []


def test_a_subscription_without_a_name_cannot_be_described(wire: WireClient) -> None:
    asked = m.DescribeConfigsRequest([m.DescribeConfigsResource(CLIENT_METRICS, "", None)])
    (result,) = wire.ask(ApiKey.DESCRIBE_CONFIGS, asked).results
    assert result.error_code == ErrorCode.INVALID_REQUEST


def test_a_subscription_that_is_only_checked_is_not_there(wire: WireClient) -> None:
    assert change(wire, CLIENT_METRICS, "m", ("metrics", SET, "*"), validate_only=True) == (0, "")
    assert listed(wire, CLIENT_METRICS) == []


def test_a_subscription_outlives_a_kill_and_no_client_is_asked_to_push(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    with WireClient(broker.bootstrap) as wire:
        assert change(wire, CLIENT_METRICS, "m", ("metrics", SET, "*")) == (0, "")
    broker.kill()
    with WireClient(broker.start().bootstrap) as wire:
        assert values(wire)["metrics"] == ("*", SET_ON_IT)
        asked = m.ApiVersionsRequest(client_software_name="wire", client_software_version="1")
        served = {entry.api_key for entry in wire.ask(ApiKey.API_VERSIONS, asked).api_keys}
        assert GET_TELEMETRY_SUBSCRIPTIONS not in served
