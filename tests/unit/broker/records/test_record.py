"""Records of control paths against kafka-python's batches, both ways and in every codec."""

import warnings
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    # kafka-python reads its schemas through a function that Python deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from tailrace.broker.protocol import ErrorCode
from tailrace.broker.records.batch import HEADER_BYTES, check_produced, read_header
from tailrace.broker.records.compression import Codec
from tailrace.broker.records.errors import InvalidBatchError
from tailrace.broker.records.record import Record, decode_records, encode_batch

BYTES = st.none() | st.binary(max_size=40) | st.just(b"x" * 300)
HEADERS = st.lists(st.tuples(st.text(max_size=5), BYTES), max_size=3).map(tuple)
RECORDS = st.lists(
    st.builds(Record, key=BYTES, value=BYTES, timestamp_ms=st.integers(0, 2**42), headers=HEADERS),
    min_size=1,
    max_size=8,
)
# kafka-python needs python-snappy; snappy has its own test against aiokafka
CODECS = st.sampled_from([Codec.NONE, Codec.GZIP, Codec.LZ4, Codec.ZSTD])


def placed(records: list[Record], base_offset: int) -> list[Record]:
    return [replace(record, offset=base_offset + index) for index, record in enumerate(records)]


@given(records=RECORDS, codec=st.sampled_from(list(Codec)), base_offset=st.integers(0, 2**40))
@settings(max_examples=100, deadline=None)
def test_a_batch_comes_back_as_it_was_built(records: list[Record], codec: Codec, base_offset: int) -> None:
    batch = encode_batch(records, codec=codec, base_offset=base_offset)
    assert check_produced(batch).record_count == len(records)
    assert decode_records(batch) == placed(records, base_offset)


@given(records=RECORDS, codec=CODECS, transactional=st.booleans())
@settings(max_examples=100, deadline=None)
def test_kafka_python_reads_our_batches(records: list[Record], codec: Codec, transactional: bool) -> None:
    batch = encode_batch(
        records,
        codec=codec,
        producer_id=77,
        producer_epoch=3,
        base_sequence=12,
        transactional=transactional,
        base_offset=5,
    )
    theirs = DefaultRecordBatch(bytes(batch))
    assert theirs.validate_crc()
    assert (theirs.producer_id, theirs.producer_epoch, theirs.base_sequence) == (77, 3, 12)
    assert (theirs.is_transactional, theirs.is_control_batch) == (transactional, False)
    assert theirs.max_timestamp == max(record.timestamp_ms for record in records)
    read = [Record(r.key, r.value, r.timestamp, tuple(r.headers), r.offset) for r in theirs]
    assert read == placed(records, 5)


@given(records=RECORDS, codec=CODECS, transactional=st.booleans())
@settings(max_examples=100, deadline=None)
def test_we_read_kafka_pythons_batches(records: list[Record], codec: Codec, transactional: bool) -> None:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=transactional,
        producer_id=9,
        producer_epoch=1,
        base_sequence=0,
        batch_size=1 << 20,
    )
    for offset, record in enumerate(records):
        builder.append(offset, record.timestamp_ms, record.key, record.value, list(record.headers))
    batch = bytes(builder.build())
    header = check_produced(batch)
    assert header.is_transactional == transactional
    assert header.last_sequence == len(records) - 1
    assert decode_records(batch) == placed(records, 0)


@given(records=RECORDS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_batch_is_refused_or_read_but_never_crashes(
    records: list[Record], data: st.DataObject
) -> None:
    batch = encode_batch(records)
    place = data.draw(st.integers(16, len(batch) - 1))
    batch[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidBatchError):
        check_produced(batch)
    try:
        decode_records(batch)
    except InvalidBatchError as error:
        assert error.error in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)


def test_append_time_is_the_time_of_every_record() -> None:
    batch = encode_batch([Record(b"k", b"v", 10), Record(b"k", b"v", 20)])
    header = read_header(batch)
    batch[22] |= 0x08
    assert [record.timestamp_ms for record in decode_records(batch)] == [20, 20]
    assert header.max_timestamp == 20


def test_a_batch_of_no_records_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="at least one"):
        encode_batch([])


def test_a_forged_record_count_allocates_nothing() -> None:
    batch = encode_batch([Record(b"k", b"v", 1)])
    batch[57:61] = (2**31 - 1).to_bytes(4, "big")
    with pytest.raises(InvalidBatchError, match="claims more records"):
        decode_records(batch)
    assert len(batch) > HEADER_BYTES
