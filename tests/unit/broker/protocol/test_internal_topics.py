"""Records of internal topics: Kafka's bytes, and back."""

import struct
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.broker.protocol.random_messages import random_message

from tailrace.broker.protocol import MalformedMessageError
from tailrace.broker.protocol import consumer_group_records as g
from tailrace.broker.protocol.internal_topics import (
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
    TransactionLogKey,
    TransactionLogPartitions,
    TransactionLogValue,
    decode_group_metadata_value,
    decode_offset_commit_value,
    decode_offsets_key,
    decode_record,
    decode_transaction_log_key,
    decode_transaction_log_value,
    encode_record,
)

CONSUMER_GROUP_KEYS: dict[type, int] = {
    g.ConsumerGroupMetadataKey: 3,
    g.ConsumerGroupPartitionMetadataKey: 4,
    g.ConsumerGroupMemberMetadataKey: 5,
    g.ConsumerGroupTargetAssignmentMetadataKey: 6,
    g.ConsumerGroupTargetAssignmentMemberKey: 7,
    g.ConsumerGroupCurrentMemberAssignmentKey: 8,
    g.ConsumerGroupRegularExpressionKey: 16,
}
CONSUMER_GROUP_VALUES: list[type] = [
    g.ConsumerGroupMetadataValue,
    g.ConsumerGroupPartitionMetadataValue,
    g.ConsumerGroupMemberMetadataValue,
    g.ConsumerGroupTargetAssignmentMetadataValue,
    g.ConsumerGroupTargetAssignmentMemberValue,
    g.ConsumerGroupCurrentMemberAssignmentValue,
    g.ConsumerGroupRegularExpressionValue,
]

READERS = [
    (OffsetCommitKey, range(2), decode_offsets_key),
    (OffsetCommitValue, range(5), decode_offset_commit_value),
    (GroupMetadataKey, range(2, 3), decode_offsets_key),
    (GroupMetadataValue, range(5), decode_group_metadata_value),
    (TransactionLogKey, range(1), decode_transaction_log_key),
    (TransactionLogValue, range(2), decode_transaction_log_value),
    *((cls, range(version, version + 1), decode_offsets_key) for cls, version in CONSUMER_GROUP_KEYS.items()),
    *((cls, range(1), partial(decode_record, cls)) for cls in CONSUMER_GROUP_VALUES),
]


@pytest.mark.parametrize(
    ("cls", "versions", "decode"), READERS, ids=lambda value: getattr(value, "__name__", "")
)
@given(seed=st.integers(min_value=0))
@settings(max_examples=20, deadline=None)
def test_a_record_comes_back_in_every_version(cls: type, versions: range, decode: Any, seed: int) -> None:
    rng = Random(seed)
    for version in versions:
        record = random_message(cls, version, rng)
        encoded = encode_record(record, version)
        assert encoded[:2] == version.to_bytes(2, "big")
        assert decode(encoded) == record
        with pytest.raises(MalformedMessageError):
            decode(encoded[:-1])


def test_an_offset_commit_is_laid_out_as_kafka_lays_it_out() -> None:
    key = encode_record(OffsetCommitKey(group="g", topic="orders", partition=3))
    assert key == struct.pack(">hh1sh6si", 1, 1, b"g", 6, b"orders", 3)
    value = encode_record(OffsetCommitValue(offset=42, leader_epoch=7, metadata="m", commit_timestamp=99))
    assert value == struct.pack(">hqih1sq", 3, 42, 7, 1, b"m", 99)


def test_a_member_is_laid_out_as_kafka_lays_it_out() -> None:
    key = encode_record(g.ConsumerGroupCurrentMemberAssignmentKey(group_id="g", member_id="m1"))
    assert key == struct.pack(">hh1sh2s", 8, 1, b"g", 2, b"m1")
    partitions = g.CurrentPartitions(topic_id=bytes(range(16)), partitions=[3, 4], assignment_epochs=[1, 2])
    value = g.ConsumerGroupCurrentMemberAssignmentValue(
        member_epoch=7, previous_member_epoch=6, state=1, assigned_partitions=[partitions]
    )
    tagged = struct.pack(">bbbbii", 1, 0, 9, 3, 1, 2)
    topic = bytes(range(16)) + struct.pack(">bii", 3, 3, 4) + tagged
    assert encode_record(value) == struct.pack(">hiibb", 0, 7, 6, 1, 2) + topic + bytes([1, 0])


def test_a_transaction_is_laid_out_as_kafka_lays_it_out() -> None:
    assert encode_record(TransactionLogKey(transactional_id="tx")) == struct.pack(">hh2s", 0, 2, b"tx")
    value = TransactionLogValue(
        producer_id=5,
        producer_epoch=2,
        transaction_timeout_ms=60_000,
        transaction_status=1,
        transaction_partitions=[TransactionLogPartitions(topic="t", partition_ids=[0, 4])],
        transaction_last_update_timestamp_ms=10,
        transaction_start_timestamp_ms=9,
    )
    expected = struct.pack(">hqhibih1siiiqq", 0, 5, 2, 60_000, 1, 1, 1, b"t", 2, 0, 4, 10, 9)
    assert encode_record(value) == expected


def test_a_key_kind_from_the_future_is_passed_over() -> None:
    assert decode_offsets_key(struct.pack(">h", 99) + b"whatever") is None


def test_a_value_version_from_the_future_is_refused() -> None:
    with pytest.raises(MalformedMessageError, match="version 9"):
        decode_offset_commit_value(struct.pack(">h", 9) + bytes(20))
