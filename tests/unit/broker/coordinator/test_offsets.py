"""Committed offsets: live state is what the log says."""

from hypothesis import given
from hypothesis import strategies as st

from tailrace.broker.coordinator.offsets import OffsetStore
from tailrace.broker.coordinator.schemas import OffsetKey, OffsetValue

KEY = OffsetKey("g", "t", 0)


def value(offset: int, committed_at_ms: int = 0) -> OffsetValue:
    return OffsetValue(offset, -1, "", committed_at_ms)


def test_an_offset_of_a_transaction_counts_only_after_its_commit() -> None:
    store = OffsetStore()
    store.apply(KEY, 0, value(5))
    store.apply_transactional(0, 7, KEY, 1, value(9))
    assert store.get("g", "t", 0) == value(5)
    assert store.is_unstable("g", "t", 0)
    assert not store.is_unstable("g", "t", 1)
    store.end_transaction(0, 7, commit=True)
    assert store.get("g", "t", 0) == value(9)
    assert not store.is_unstable("g", "t", 0)


def test_an_aborted_offset_is_gone() -> None:
    store = OffsetStore()
    store.apply_transactional(0, 7, KEY, 1, value(9))
    store.end_transaction(0, 7, commit=False)
    assert store.get("g", "t", 0) is None
    assert not store.is_unstable("g", "t", 0)


def test_a_later_plain_commit_wins_over_an_earlier_transactional_one() -> None:
    store = OffsetStore()
    store.apply_transactional(0, 7, KEY, 1, value(9))
    store.apply(KEY, 2, value(20))
    store.end_transaction(0, 7, commit=True)
    assert store.get("g", "t", 0) == value(20)


def test_a_marker_ends_the_transaction_in_its_partition_only() -> None:
    store = OffsetStore()
    other = OffsetKey("h", "t", 0)
    store.apply_transactional(0, 7, KEY, 1, value(1))
    store.apply_transactional(1, 7, other, 1, value(2))
    store.end_transaction(0, 7, commit=True)
    assert store.get("g", "t", 0) == value(1)
    assert store.is_unstable("h", "t", 0)


def test_an_offset_is_settled_when_no_open_transaction_may_move_it() -> None:
    store = OffsetStore()
    store.apply(KEY, 0, value(1))
    assert [key for key, _ in store.settled("g")] == [KEY]
    store.apply_transactional(0, 7, KEY, 1, value(2))
    assert store.settled("g") == []
    assert store.keys_of_group("g") == [KEY]


def test_an_offset_that_was_forgotten_does_not_come_back_with_an_older_transaction() -> None:
    store = OffsetStore()
    store.apply_transactional(0, 7, KEY, 1, value(2))
    store.apply_transactional(0, 8, KEY, 3, value(4))
    store.apply(KEY, 2, None)
    store.end_transaction(0, 7, commit=True)
    assert store.get("g", "t", 0) is None
    store.end_transaction(0, 8, commit=True)
    assert store.get("g", "t", 0) == value(4)


def test_deleted_topics_are_found_in_every_group() -> None:
    store = OffsetStore()
    for group_id, topic in (("a", "t"), ("b", "t"), ("b", "u")):
        store.apply(OffsetKey(group_id, topic, 0), 0, value(1))
    assert store.keys_of_topics(["t"]) == [OffsetKey("a", "t", 0), OffsetKey("b", "t", 0)]


@given(st.permutations(range(6)))
def test_the_order_in_which_commits_become_durable_does_not_matter(order: list[int]) -> None:
    store = OffsetStore()
    for record_offset in order:
        store.apply(KEY, record_offset, value(100 - record_offset))
    assert store.get("g", "t", 0) == value(95)
