"""Headers, checks on append, control batches, walking."""

import warnings
from collections.abc import Callable

import pytest

with warnings.catch_warnings():
    # kafka-python reads its schemas through a function that Python deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.record.default_records import ControlRecord, DefaultRecordBatch

from tailrace.broker.protocol import ErrorCode
from tailrace.broker.records.batch import (
    CONTROL,
    MAX_SEQUENCE,
    TRANSACTIONAL,
    Marker,
    check_produced,
    control_batch,
    finish_batch,
    has_valid_crc,
    iterate_batches,
    read_header,
    read_marker,
    set_base_offset,
)
from tailrace.broker.records.errors import InvalidBatchError
from tailrace.broker.records.record import Record, encode_batch

TWO = [Record(b"k", b"v", 5), Record(None, None, 6)]


@pytest.mark.parametrize("commit", [True, False])
def test_kafka_python_reads_our_markers(commit: bool) -> None:
    batch = control_batch(33, 4, Marker(commit, 9), timestamp_ms=1234, base_offset=70)
    theirs = DefaultRecordBatch(bytes(batch))
    assert theirs.validate_crc()
    assert (theirs.is_control_batch, theirs.is_transactional) == (True, True)
    assert (theirs.producer_id, theirs.producer_epoch, theirs.base_sequence) == (33, 4, -1)
    (record,) = list(theirs)
    assert isinstance(record, ControlRecord)
    assert (record.commit, record.abort) == (commit, not commit)
    assert (record.offset, record.timestamp) == (70, 1234)
    assert read_marker(batch) == Marker(commit, 9)


def test_a_control_record_that_is_no_marker_says_nothing() -> None:
    batch = control_batch(33, 4, Marker(True, 9), timestamp_ms=1)
    batch[68] = 2  # type 2: a KRaft leader change
    assert read_marker(batch) is None
    assert read_marker(batch[:70]) is None


@pytest.mark.parametrize("delta", [-1, -64, -65, -86_400_000, 1 << 40])
def test_a_marker_under_a_delete_horizon_says_what_it_said(delta: int) -> None:
    """Compaction stamps markers: the timestamp delta then takes more than one byte."""
    batch = control_batch(33, 4, Marker(True, 9), timestamp_ms=1)
    zigzag, varint = (delta << 1) ^ (delta >> 63), bytearray()
    while zigzag > 0x7F:
        varint.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    varint.append(zigzag)
    record = bytes([(16 + len(varint) - 1) * 2, 0, *varint]) + bytes(batch[64:])
    assert read_marker(bytes(batch[:61]) + record) == Marker(True, 9)


def test_a_place_in_the_log_leaves_the_checksum_right() -> None:
    batch = encode_batch(TWO)
    set_base_offset(batch, 2**40, 7)
    header = read_header(batch)
    assert (header.base_offset, header.last_offset, header.leader_epoch) == (2**40, 2**40 + 1, 7)
    assert has_valid_crc(batch)


def test_finishing_a_batch_again_overwrites_what_was_there() -> None:
    batch = encode_batch(TWO)
    finish_batch(batch, 5, 1, 10, transactional=True)
    assert read_header(batch).attributes & TRANSACTIONAL
    finish_batch(batch, 6, 2, 0, transactional=False)
    header = check_produced(batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (6, 2, 0)
    assert not header.is_transactional


def test_the_sequence_after_the_largest_is_0() -> None:
    batch = encode_batch(TWO, producer_id=1, producer_epoch=0, base_sequence=MAX_SEQUENCE)
    assert read_header(batch).last_sequence == 0


def _patched(change: Callable[[bytearray], None]) -> bytearray:
    batch = encode_batch(TWO)
    change(batch)
    return batch


def _finished(change: Callable[[bytearray], None]) -> bytearray:
    batch = _patched(change)
    header = read_header(batch)
    finish_batch(batch, header.producer_id, header.producer_epoch, header.base_sequence, transactional=False)
    return batch


def _set(place: int, value: bytes) -> Callable[[bytearray], None]:
    def change(batch: bytearray) -> None:
        batch[place : place + len(value)] = value

    return change


REFUSED = {
    "shorter than a header": (encode_batch(TWO)[:60], ErrorCode.CORRUPT_MESSAGE),
    "cut short": (encode_batch(TWO)[:-1], ErrorCode.CORRUPT_MESSAGE),
    "wrong checksum": (_patched(_set(70, b"\xff")), ErrorCode.CORRUPT_MESSAGE),
    "length below a header": (_patched(_set(8, bytes(4))), ErrorCode.CORRUPT_MESSAGE),
    "older format": (_patched(_set(16, b"\x01")), ErrorCode.INVALID_RECORD),
    "two batches": (encode_batch(TWO) * 2, ErrorCode.INVALID_RECORD),
    "no records": (_finished(_set(57, bytes(4))), ErrorCode.INVALID_RECORD),
    "a count that does not match": (_finished(_set(57, b"\0\0\0\3")), ErrorCode.INVALID_RECORD),
    "a control batch": (_finished(_set(21, bytes([0, CONTROL]))), ErrorCode.INVALID_RECORD),
    "no sequence": (_finished(_set(43, bytes(8))), ErrorCode.INVALID_RECORD),
}


@pytest.mark.parametrize(("batch", "error"), REFUSED.values(), ids=REFUSED)
def test_what_a_client_must_not_append_is_refused(batch: bytearray, error: ErrorCode) -> None:
    with pytest.raises(InvalidBatchError) as caught:
        check_produced(batch)
    assert caught.value.error == error


def test_walking_gives_whole_batches_only() -> None:
    first, second = encode_batch(TWO, base_offset=3), encode_batch(TWO, base_offset=5)
    buffer = first + second + encode_batch(TWO)[:-1]
    walked = list(iterate_batches(buffer))
    assert [header.base_offset for header, _ in walked] == [3, 5]
    assert [bytes(view) for _, view in walked] == [first, second]
    assert walked[0][1].obj is buffer


def test_walking_over_something_else_is_an_error() -> None:
    with pytest.raises(InvalidBatchError):
        list(iterate_batches(bytes(80)))
