"""Record batches built from and parsed into columns, against kafka-python, both ways."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    # kafka-python reads its schemas through a function that Python deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.record.default_records import DefaultRecordBatchBuilder
    from kafka.record.memory_records import MemoryRecords

from tailrace.broker.records.batch import (
    HEADER_BYTES,
    finish_batch,
    has_valid_crc,
    read_header,
    set_base_offset,
)
from tailrace.broker.records.columnar import BytesColumn, HeaderColumns
from tailrace.broker.records.columnar_build import build_batch
from tailrace.broker.records.columnar_parse import change_headers, parse_batches
from tailrace.changes import TailraceError

INT64 = st.one_of(
    st.sampled_from([0, -1, 63, 64, (1 << 63) - 1, -(1 << 63)]), st.integers(-(1 << 63), (1 << 63) - 1)
)
TIMESTAMP = st.integers(0, 1 << 45)
STRING = st.one_of(st.none(), st.binary(max_size=200))
Headers = list[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Record:
    """What kafka-python sees."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def read_by_kafka_python(batches: Sequence[bytes | bytearray | memoryview]) -> list[Record]:
    found = []
    memory = MemoryRecords(b"".join(bytes(batch) for batch in batches))
    while memory.has_next():
        batch = memory.next_batch()
        assert batch.validate_crc()
        found += [Record(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in batch]
    return found


def finished(batches: list[tuple[bytearray, int]], *, base_offset: int = 0) -> list[bytearray]:
    """The batches as a producer would send and a broker would store them."""
    for batch, count in batches:
        finish_batch(batch, 7, 1, base_offset % (1 << 31), transactional=True)
        set_base_offset(batch, base_offset, 3)
        assert has_valid_crc(batch) and read_header(batch).record_count == count
        base_offset += count
    return [batch for batch, _ in batches]


def integer(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big", signed=size == 8)


@st.composite
def changes(draw: st.DrawFn) -> tuple[list[Record], BytesColumn, BytesColumn, HeaderColumns, np.ndarray]:
    count = draw(st.integers(1, 12))

    def column(of: st.SearchStrategy[int]) -> list[int]:
        return draw(st.lists(of, min_size=count, max_size=count))

    keys = draw(st.lists(STRING, min_size=count, max_size=count))
    values = draw(st.lists(STRING, min_size=count, max_size=count))
    priors = draw(st.lists(STRING, min_size=count, max_size=count))
    sets = (b'["note"]', b'["a","b"]' * 20)
    op, unchanged = column(st.sampled_from(list(b"cudr"))), column(st.integers(-1, 1))
    lsn, seq, ts, xid = column(INT64), column(INT64), column(INT64), column(st.integers(0, (1 << 32) - 1))
    times = column(TIMESTAMP)
    records = []
    for i in range(count):
        headers: Headers = [
            ("op", bytes([op[i]])),
            ("lsn", integer(lsn[i], 8)),
            ("seq", integer(seq[i], 8)),
            ("xid", integer(xid[i], 4)),
            ("ts", integer(ts[i], 8)),
        ]
        if unchanged[i] >= 0:
            headers.append(("unchanged", sets[unchanged[i]]))
        if priors[i] is not None:
            headers.append(("prior", priors[i]))
        records.append(Record(0, times[i], keys[i], values[i], headers))
    columns = HeaderColumns(
        np.array(op, np.uint8),
        np.array(lsn, np.int64),
        np.array(seq, np.int64),
        np.array(xid, np.int64),
        np.array(ts, np.int64),
        np.array(unchanged, np.int16),
        sets,
        BytesColumn.from_strings(priors),
    )
    times_ms = np.array(times, np.int64)
    return records, BytesColumn.from_strings(keys), BytesColumn.from_strings(values), columns, times_ms


@settings(max_examples=150, deadline=None)
@given(changes(), st.sampled_from([1, 200, 700, 1 << 20]), st.data())
def test_kafka_python_reads_the_batches_that_we_build(
    sample: tuple[list[Record], BytesColumn, BytesColumn, HeaderColumns, np.ndarray],
    limit: int,
    data: st.DataObject,
) -> None:
    records, keys, values, headers, times = sample
    rows = data.draw(st.lists(st.integers(0, len(records) - 1), max_size=15))
    built = build_batch(keys, values, headers, times, rows=np.array(rows, np.int64), limit=limit)
    assert all(len(batch) <= limit or count == 1 for batch, count in built)
    found = read_by_kafka_python(finished(built))
    assert [r.offset for r in found] == list(range(len(rows)))
    expected = [records[row] for row in rows]
    assert [(r.timestamp, r.key, r.value, r.headers) for r in found] == [
        (r.timestamp, r.key, r.value, r.headers) for r in expected
    ]


@settings(max_examples=100, deadline=None)
@given(changes(), st.integers(0, 1 << 40), st.sampled_from([200, 1 << 20]))
def test_we_read_back_the_change_headers_that_we_wrote(
    sample: tuple[list[Record], BytesColumn, BytesColumn, HeaderColumns, np.ndarray], base: int, limit: int
) -> None:
    records, keys, values, headers, times = sample
    stored = finished(build_batch(keys, values, headers, times, limit=limit), base_offset=base)
    parsed = parse_batches([memoryview(batch) for batch in stored])
    assert parsed.offset.tolist() == list(range(base, base + len(records)))
    assert parsed.next_offset == base + len(records)
    assert parsed.timestamp_ms.tolist() == times.tolist()
    assert [parsed.key(i) for i in range(len(parsed))] == [record.key for record in records]
    assert [parsed.value(i) for i in range(len(parsed))] == [record.value for record in records]
    found = change_headers(parsed)
    for name in ("op", "lsn", "seq", "xid", "ts"):
        assert getattr(found, name).tolist() == getattr(headers, name).tolist()
    data = parsed.buffer.tobytes()
    for i, record in enumerate(records):
        expected = dict(record.headers)
        spans = {
            "unchanged": (found.unchanged_start[i], found.unchanged_length[i]),
            "prior": (found.prior_start[i], found.prior_length[i]),
        }
        for name, (start, length) in spans.items():
            assert (None if length < 0 else data[start : start + length]) == expected.get(name)


FOREIGN = st.lists(
    st.tuples(
        st.sampled_from(["op", "ts", "lsn", "seq", "xid", "unchanged", "prior", "other", "größe"]),
        st.one_of(st.none(), st.binary(max_size=9)),
    ),
    max_size=4,
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(TIMESTAMP, STRING, STRING, FOREIGN), min_size=1, max_size=8),
    st.sampled_from([0, 1, 3, 4]),  # kafka-python has no snappy without an extra library
    st.integers(1, 3),
)
def test_we_read_the_batches_that_kafka_python_builds(
    records: list[tuple[int, bytes | None, bytes | None, Headers]], codec: int, copies: int
) -> None:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for i, (timestamp, key, value, headers) in enumerate(records):
        builder.append(i, timestamp, key, value, headers)
    view = memoryview(bytes(builder.build()) * copies)
    expected = read_by_kafka_python([view])
    parsed = parse_batches([view])
    found = change_headers(parsed)
    assert parsed.offset.tolist() == [r.offset for r in expected]
    assert parsed.timestamp_ms.tolist() == [r.timestamp for r in expected]
    assert [parsed.key(i) for i in range(len(parsed))] == [r.key for r in expected]
    assert [parsed.value(i) for i in range(len(parsed))] == [r.value for r in expected]
    assert parsed.header_count.tolist() == [len(r.headers) for r in expected]
    for i, record in enumerate(expected):
        ours = [value for name, value in record.headers if name == "lsn" and value and len(value) == 8]
        assert found.lsn[i] == (int.from_bytes(ours[-1], "big", signed=True) if ours else -1)


def test_control_batches_are_left_out_and_their_offset_counted() -> None:
    batch = finished(build_batch(None, BytesColumn.from_strings([b"v"]), None, np.array([5])))[0]
    control = bytearray(batch)
    control[22] |= 0x20
    set_base_offset(control, 1, 0)
    parsed = parse_batches([memoryview(batch), memoryview(control)])
    assert (parsed.offset.tolist(), parsed.next_offset) == ([0], 2)


def test_log_append_time_is_the_time_of_every_record() -> None:
    values = BytesColumn.from_strings([b"a", b"b"])
    batch = build_batch(None, values, None, np.array([5, 9]))[0][0]
    batch[22] |= 0x08
    assert parse_batches([memoryview(batch)]).timestamp_ms.tolist() == [9, 9]


def test_nothing_gives_empty_columns() -> None:
    parsed = parse_batches([])
    assert (len(parsed), parsed.next_offset) == (0, -1)
    assert len(change_headers(parsed).op) == 0
    assert build_batch(None, BytesColumn.from_strings([]), None, np.zeros(0, np.int64)) == []


@settings(max_examples=200, deadline=None)
@given(changes(), st.data())
def test_damaged_batches_are_errors_and_never_read_outside(
    sample: tuple[list[Record], BytesColumn, BytesColumn, HeaderColumns, np.ndarray], data: st.DataObject
) -> None:
    _, keys, values, headers, times = sample
    batch = build_batch(keys, values, headers, times)[0][0]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, len(batch) - 1), st.integers(HEADER_BYTES, len(batch) - 1)))
        batch[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 10]))
    try:
        parsed = parse_batches([memoryview(batch)[: len(batch) - cut]], where="topic t, partition 0")
    except TailraceError as error:
        assert error.what.startswith("topic t, partition 0")
        return
    change_headers(parsed)
    size = len(parsed.buffer)
    for start, length in (
        (parsed.key_start, parsed.key_length),
        (parsed.value_start, parsed.value_length),
    ):
        assert ((start >= 0) & (start + np.maximum(length, 0) <= size)).all()


def test_a_batch_of_an_old_format_is_refused_by_name() -> None:
    batch = build_batch(None, BytesColumn.from_strings([b"a"]), None, np.array([5]))[0][0]
    batch[16] = 1
    with pytest.raises(TailraceError, match="topic t, offset 0: record batch of format 1"):
        parse_batches([memoryview(batch)], where="topic t")
