"""Limits on connections and logins, and the rates behind quotas, on a clock that the test turns."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.security.limits import ConnectionLimits, FailedLogins
from tailrace.security.quotas import (
    CLIENT_ID,
    CONNECTION_CREATION_RATE,
    CONSUMER_BYTE_RATE,
    IP,
    PRODUCER_BYTE_RATE,
    USER,
    QuotaError,
    Quotas,
    Rate,
)
from tailrace.security.store import Entity, SecurityStore


@pytest.fixture
def quotas(tmp_path: Path) -> Iterator[Quotas]:
    store = SecurityStore(tmp_path / "metadata.db")
    yield Quotas(store)
    store.close()


def test_connections_are_counted_in_all_and_by_address() -> None:
    limits = ConnectionLimits(4, 2, {"10.0.0.9": 3}, None)
    assert [limits.take("10.0.0.1", 0) for _ in range(3)] == [None, None, "max.connections.per.ip is 2"]
    assert [limits.take("10.0.0.9", 0) for _ in range(3)] == [None, None, "max.connections is 4"]
    limits.release("10.0.0.1")
    assert limits.take("10.0.0.9", 0) is None
    assert limits.take("10.0.0.2", 0) == "max.connections is 4"


def test_who_is_refused_for_coming_too_fast_does_not_keep_others_out() -> None:
    limits = ConnectionLimits(10**6, 10**6, {}, 5)
    now, let_in = 0.0, 0
    for _ in range(60 * 100):  # 100 attempts a second for a minute
        now += 0.01
        let_in += limits.take("10.0.0.1", now) is None
    assert 5 * 60 * 0.8 <= let_in <= 5 * 60 * 1.3


def test_a_quota_on_new_connections_of_an_address_lets_in_as_many_as_it_says(quotas: Quotas) -> None:
    quotas.alter({((IP, None),): {CONNECTION_CREATION_RATE: 2.0}})
    now, let_in = 0.0, {"a": 0, "b": 0}
    for _ in range(60 * 50):
        now += 0.02
        let_in["a"] += quotas.connection_delay_s("a", now) == 0
        if let_in["b"] < now:
            let_in["b"] += quotas.connection_delay_s("b", now) == 0
    assert 2 * 60 * 0.8 <= let_in["a"] <= 2 * 60 * 1.3
    assert let_in["b"] >= 55  # another address is not touched


def test_a_name_is_locked_for_its_address_after_ten_failures_and_for_a_minute() -> None:
    logins = FailedLogins()
    for second in range(10):
        assert not logins.is_locked("ip", "alice", second)
        logins.record("ip", "alice", second)
    assert logins.is_locked("ip", "alice", 10)
    assert not logins.is_locked("ip", "bob", 10)
    assert not logins.is_locked("elsewhere", "alice", 10)  # nobody locks her out from there
    assert not logins.is_locked("ip", "alice", 75)


def test_a_success_forgives_and_other_names_do_not_unlock() -> None:
    logins = FailedLogins()
    for _ in range(10):
        logins.record("ip", "alice", 0)
    for number in range(5000):
        logins.record("ip", f"somebody-{number}", 0)
    assert logins.is_locked("ip", "alice", 1)
    for number in range(20_000):
        logins.record("ip", f"anybody-{number}", 0)
    assert len(logins._failures) <= 10_000
    logins.record("ip", "bob", 0)
    logins.forgive("ip", "bob")
    assert not logins.is_locked("ip", "bob", 0)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10_000)), min_size=1, max_size=60), st.floats(1, 5000)
)
def test_a_client_that_waits_as_told_stays_within_its_quota(
    steps: list[tuple[float, int]], limit: float
) -> None:
    """Over any ten seconds, what is begun while nothing is owed exceeds the quota by one amount at most."""
    rate, now, sent = Rate(), 0.0, list[tuple[float, int]]()
    for pause, amount in steps:
        now += pause
        now += rate.delay_s(limit, now)
        if rate.delay_s(limit, now) == 0:
            sent.append((now, amount))
            rate.record(amount, now)
    for index, (at, _) in enumerate(sent):
        before = [amount for when, amount in sent[:index] if at - 10 < when]
        assert sum(before) <= limit * 11 + 1


QUOTAS: dict[Entity, dict[str, float]] = {
    ((CLIENT_ID, "app"), (USER, "alice")): {PRODUCER_BYTE_RATE: 1},
    ((CLIENT_ID, None), (USER, "alice")): {PRODUCER_BYTE_RATE: 2},
    ((USER, "alice"),): {PRODUCER_BYTE_RATE: 3},
    ((CLIENT_ID, "app"), (USER, None)): {PRODUCER_BYTE_RATE: 4},
    ((CLIENT_ID, None), (USER, None)): {PRODUCER_BYTE_RATE: 5},
    ((USER, None),): {PRODUCER_BYTE_RATE: 6},
    ((CLIENT_ID, "app"),): {PRODUCER_BYTE_RATE: 7},
    ((CLIENT_ID, None),): {PRODUCER_BYTE_RATE: 8},
}


@pytest.mark.parametrize("first", range(8))
def test_the_most_specific_quota_counts_in_kafkas_order(quotas: Quotas, first: int) -> None:
    quotas.alter(dict(list(QUOTAS.items())[first:]))
    assert quotas.limit(PRODUCER_BYTE_RATE, "alice", "app") == first + 1
    assert quotas.limit(CONSUMER_BYTE_RATE, "alice", "app") is None


def test_a_quota_of_a_user_is_shared_by_its_clients_and_a_default_is_one_for_each(quotas: Quotas) -> None:
    quotas.alter(
        {((USER, "alice"),): {PRODUCER_BYTE_RATE: 10.0}, ((CLIENT_ID, None),): {PRODUCER_BYTE_RATE: 10.0}}
    )
    assert quotas.record(PRODUCER_BYTE_RATE, "alice", "one", 100, 0) == 0
    assert quotas.record(PRODUCER_BYTE_RATE, "alice", "two", 50, 0) == pytest.approx(5)
    assert quotas.record(PRODUCER_BYTE_RATE, "bob", "one", 100, 0) == 0
    assert quotas.record(PRODUCER_BYTE_RATE, "bob", "two", 100, 0) == 0


def test_quotas_are_those_of_the_store_after_a_restart(tmp_path: Path) -> None:
    store = SecurityStore(tmp_path / "metadata.db")
    Quotas(store).alter(QUOTAS)
    store.close()
    store = SecurityStore(tmp_path / "metadata.db")
    assert Quotas(store).describe([], strict=False) == QUOTAS
    store.close()


@pytest.mark.parametrize(
    ("entity", "values"),
    [
        ((), {PRODUCER_BYTE_RATE: 1.0}),
        ((("host", "x"),), {PRODUCER_BYTE_RATE: 1.0}),
        (((USER, "a"), (USER, "b")), {PRODUCER_BYTE_RATE: 1.0}),
        (((IP, "a"), (USER, "b")), {PRODUCER_BYTE_RATE: 1.0}),
        (((USER, ""),), {PRODUCER_BYTE_RATE: 1.0}),
        (((USER, "a"),), {CONNECTION_CREATION_RATE: 1.0}),
        (((USER, "a"),), {PRODUCER_BYTE_RATE: 0.0}),
        (((USER, "a"),), {PRODUCER_BYTE_RATE: -1.0}),
        (((USER, "a"),), {PRODUCER_BYTE_RATE: float("nan")}),
        (((USER, "a"),), {PRODUCER_BYTE_RATE: float("inf")}),
    ],
)
def test_a_quota_that_nobody_could_obey_is_refused(
    quotas: Quotas, entity: Entity, values: dict[str, float]
) -> None:
    with pytest.raises(QuotaError):
        quotas.check(entity, values)
