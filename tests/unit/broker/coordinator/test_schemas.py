"""What the coordinators keep survives the way through Kafka's record schemas."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.broker.coordinator.internal_topic import java_hash
from tailrace.broker.coordinator.schemas import (
    GroupMetadata,
    MemberMetadata,
    OffsetKey,
    OffsetValue,
    TxnMetadata,
    TxnStatus,
    by_topic,
    decode_consumer_offsets_key,
    decode_txn_key,
    encode_group_key,
    encode_txn_key,
)

TEXT = st.text(max_size=20)
INT16, INT32, INT64 = (st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (16, 32, 64))
PARTITIONS = st.frozensets(st.tuples(TEXT, st.integers(0, 2**31 - 1)), max_size=5)
MEMBERS = st.builds(
    MemberMetadata, TEXT, st.none() | TEXT, TEXT, TEXT, INT32, INT32, st.binary(), st.binary()
)


@given(st.builds(OffsetKey, TEXT, TEXT, INT32))
def test_offset_keys_come_back(key: OffsetKey) -> None:
    assert decode_consumer_offsets_key(key.encode()) == key


@given(st.builds(OffsetValue, INT64, INT32, TEXT, INT64))
def test_offset_values_come_back(value: OffsetValue) -> None:
    assert OffsetValue.decode(value.encode()) == value


@given(TEXT)
def test_group_and_transaction_keys_come_back(name: str) -> None:
    assert decode_consumer_offsets_key(encode_group_key(name)) == name
    assert decode_txn_key(encode_txn_key(name)) == name


@given(
    st.builds(
        GroupMetadata,
        TEXT,
        INT32,
        st.none() | TEXT,
        st.none() | TEXT,
        INT64,
        st.lists(MEMBERS, max_size=3).map(tuple),
    )
)
def test_groups_come_back(group: GroupMetadata) -> None:
    assert GroupMetadata.decode(group.encode()) == group


@given(st.builds(TxnMetadata, INT64, INT16, INT32, st.sampled_from(TxnStatus), PARTITIONS, INT64, INT64))
def test_transactions_come_back(state: TxnMetadata) -> None:
    if state.status is TxnStatus.EMPTY:
        state = dataclasses.replace(state, partitions=frozenset())
    assert TxnMetadata.decode(state.encode()) == state


def test_a_key_of_an_unknown_kind_is_skipped() -> None:
    assert decode_consumer_offsets_key(b"\x00\x09whatever") is None


def test_partitions_are_grouped_by_topic_in_order() -> None:
    assert by_topic({("b", 1), ("a", 2), ("a", 0)}) == {"a": [0, 2], "b": [1]}


@pytest.mark.parametrize(
    ("text", "value"),
    [("", 0), ("a", 97), ("hello", 99162322), ("polygenelubricants", 2**31), ("é😀", 1_996_812)],
)
def test_the_hash_that_places_groups_is_javas(text: str, value: int) -> None:
    assert java_hash(text) == value
