"""Columns from whole record batches, by compiled loops (the layout is drawn in `columnar_build`)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace.broker.records.batch import HEADER_BYTES, LOG_APPEND_TIME, MAGIC, read_header
from tailrace.broker.records.columnar import ChangeHeaders, RecordColumns
from tailrace.broker.records.columnar_varint import Int, frozen, get_varint
from tailrace.broker.records.compression import decompress
from tailrace.broker.records.errors import InvalidBatchError
from tailrace.changes import TailraceError
from tailrace.changes.compiled import kernel

_OP, _TS, _LSN, _SEQ, _XID, _UNCHANGED, _PRIOR = (
    np.frombuffer(name, np.uint8) for name in (b"op", b"ts", b"lsn", b"seq", b"xid", b"unchanged", b"prior")
)


class _Batch(NamedTuple):
    base_offset: int
    base_timestamp: int
    append_timestamp: int
    """The timestamp of every record, -1 where each record has its own."""
    size: int
    """Number of records."""
    records: npt.NDArray[np.uint8]


class _Columns(NamedTuple):
    """The arrays of RecordColumns, as the kernel takes them."""

    offset: npt.NDArray[np.int64]
    timestamp_ms: npt.NDArray[np.int64]
    key_start: npt.NDArray[np.int64]
    key_length: npt.NDArray[np.int64]
    value_start: npt.NDArray[np.int64]
    value_length: npt.NDArray[np.int64]
    header_start: npt.NDArray[np.int64]
    header_count: npt.NDArray[np.int64]


class _Headers(NamedTuple):
    """The arrays of ChangeHeaders, as the kernel takes them."""

    op: npt.NDArray[np.uint8]
    lsn: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int64]
    xid: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    unchanged_start: npt.NDArray[np.int64]
    unchanged_length: npt.NDArray[np.int64]
    prior_start: npt.NDArray[np.int64]
    prior_length: npt.NDArray[np.int64]


def parse_batches(batches: Sequence[memoryview], *, where: str = "a record batch") -> RecordColumns:
    """The records of whole v2 batches, in the order given.

    batches  bytes of one partition as a fetch gives them: each view holds one or more whole batches.
    where    names topic and partition in errors.

    The records of a single uncompressed batch are not copied: its view must outlive the columns.  Control
    batches carry no rows and are left out.  The CRC is the fetcher's to check.  Raises TailraceError for
    bytes that are not record batches; no byte outside a batch is ever read.
    """
    found: list[_Batch] = []
    next_offset = -1
    for view in batches:
        position = 0
        while position < len(view):
            batch, position, next_offset = _read_batch(view, position, where)
            if batch is not None:
                found.append(batch)
    return _read_records(found, next_offset, where)


def _read_batch(view: memoryview, position: int, where: str) -> tuple[_Batch | None, int, int]:
    """The batch at `position` (None for a control batch), the position and the offset after it."""
    if len(view) - position < HEADER_BYTES:
        raise _damaged(where, "a batch header is cut short")
    header = read_header(view, position)
    end = position + header.size
    if header.magic != MAGIC:
        raise TailraceError(
            f"{where}, offset {header.base_offset}: record batch of format {header.magic}, only 2 is read",
            fix="produce with a Kafka client of version 0.11 or newer",
        )
    name = f"the batch at offset {header.base_offset}"
    counts = (header.record_count, header.last_offset_delta)
    if end > len(view) or header.size < HEADER_BYTES or min(counts) < 0:
        raise _damaged(where, f"{name} has a damaged header")
    if header.is_control:
        return None, end, header.last_offset + 1
    payload = view[position + HEADER_BYTES : end]
    if header.codec:
        try:
            payload = memoryview(decompress(header.codec, payload))
        except InvalidBatchError as error:
            raise _damaged(where, f"{name}: {error.what}") from error
    records = np.frombuffer(payload, np.uint8)
    if header.record_count > len(records):
        raise _damaged(
            where, f"the batch at offset {header.base_offset} claims more records than it has bytes"
        )
    append_timestamp = header.max_timestamp if header.attributes & LOG_APPEND_TIME else -1
    batch = _Batch(header.base_offset, header.base_timestamp, append_timestamp, header.record_count, records)
    return batch, end, header.last_offset + 1


def _read_records(found: list[_Batch], next_offset: int, where: str) -> RecordColumns:
    numbers = np.array([batch[:4] for batch in found], np.int64).reshape(-1, 4)
    bounds = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(batch.records) for batch in found], out=bounds[1:])
    if len(found) == 1:
        buffer = found[0].records
    else:
        buffer = np.concatenate([np.zeros(0, np.uint8), *(batch.records for batch in found)])
    columns = _Columns(*np.empty((8, int(numbers[:, 3].sum())), np.int64))
    bad = _walk(frozen(buffer), frozen(bounds), frozen(numbers), columns)
    if bad >= 0:
        raise _damaged(where, f"the batch at offset {found[bad].base_offset} holds a damaged record")
    return RecordColumns(frozen(buffer), *columns, next_offset)


def _damaged(where: str, what: str) -> TailraceError:
    return TailraceError(f"{where}: {what}", fix="check the broker's disk and its log, then fetch again")


@kernel
def _get_string(data: npt.NDArray[np.uint8], position: Int, end: Int) -> tuple[Int, Int, Int]:
    """Start, length (-1 null) and the position after a string; position -1 when it does not fit."""
    length, start = get_varint(data, position, end)
    if start < 0 or length < -1 or length > end - start:
        return 0, 0, -1
    return start, length, start + max(length, 0)


@kernel
def _skip_headers(data: npt.NDArray[np.uint8], at: Int, end: Int, count: Int) -> Int:
    """The position after `count` headers, -1 when they do not fit."""
    for _ in range(count):
        _, name_length, at = _get_string(data, at, end)
        if at < 0 or name_length < 0:
            return -1
        _, _, at = _get_string(data, at, end)
        if at < 0:
            return -1
    return at


@kernel
def _walk(
    data: npt.NDArray[np.uint8],
    bounds: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    columns: _Columns,
) -> int:
    """Fill the columns; the index of the first damaged batch, -1 when all are sound."""
    row = 0
    for batch in range(bounds.size - 1):
        base_offset, base_timestamp, append_timestamp = (
            numbers[batch, 0],
            numbers[batch, 1],
            numbers[batch, 2],
        )
        at: Int = bounds[batch]
        batch_end = bounds[batch + 1]
        for _ in range(numbers[batch, 3]):
            length, at = get_varint(data, at, batch_end)
            if at < 0 or length < 1 or length > batch_end - at:
                return batch
            end = at + length
            time_delta, at = get_varint(data, at + 1, end)
            if at < 0:
                return batch
            offset_delta, at = get_varint(data, at, end)
            if at < 0:
                return batch
            columns.key_start[row], columns.key_length[row], at = _get_string(data, at, end)
            if at < 0:
                return batch
            columns.value_start[row], columns.value_length[row], at = _get_string(data, at, end)
            if at < 0:
                return batch
            headers, at = get_varint(data, at, end)
            if at < 0 or headers < 0:
                return batch
            columns.offset[row] = base_offset + offset_delta
            columns.timestamp_ms[row] = base_timestamp + time_delta
            if append_timestamp >= 0:
                columns.timestamp_ms[row] = append_timestamp
            columns.header_start[row] = at
            columns.header_count[row] = headers
            at = _skip_headers(data, at, end, headers)
            if at != end:
                return batch
            row += 1
        if at != batch_end:
            return batch
    return -1


def change_headers(records: RecordColumns) -> ChangeHeaders:
    """The change headers of every record; a header of one of our names but another length is not ours."""
    count = len(records)
    found = _Headers(np.zeros(count, np.uint8), *np.full((8, count), -1, np.int64))
    _find_headers(records.buffer, frozen(records.header_start), frozen(records.header_count), found)
    return ChangeHeaders(*found)


@kernel
def _get_integer(data: npt.NDArray[np.uint8], position: Int, size: Int) -> Int:
    value = np.int64(0)
    for i in range(size):
        value = (value << 8) | np.int64(data[position + i])
    return value


@kernel
def _is(data: npt.NDArray[np.uint8], position: Int, name: npt.NDArray[np.uint8]) -> bool:
    same = True
    for i in range(name.size):
        same = same and data[position + i] == name[i]
    return same


@kernel
def _find_headers(
    data: npt.NDArray[np.uint8],
    header_start: npt.NDArray[np.int64],
    header_count: npt.NDArray[np.int64],
    found: _Headers,
) -> None:
    """Find our headers; `_walk` has checked every length, so nothing here can leave the buffer."""
    for row in range(header_start.size):
        at: Int = header_start[row]
        for _ in range(header_count[row]):
            name, name_length, at = _get_string(data, at, data.size)
            value, length, at = _get_string(data, at, data.size)
            if name_length == 2:
                if length == 1 and _is(data, name, _OP):
                    found.op[row] = data[value]
                elif length == 8 and _is(data, name, _TS):
                    found.ts[row] = _get_integer(data, value, 8)
            elif name_length == 3:
                if length == 8 and _is(data, name, _LSN):
                    found.lsn[row] = _get_integer(data, value, 8)
                elif length == 8 and _is(data, name, _SEQ):
                    found.seq[row] = _get_integer(data, value, 8)
                elif length == 4 and _is(data, name, _XID):
                    found.xid[row] = _get_integer(data, value, 4)
            elif name_length == 9 and _is(data, name, _UNCHANGED):
                found.unchanged_start[row] = value
                found.unchanged_length[row] = length
            elif name_length == 5 and _is(data, name, _PRIOR):
                found.prior_start[row] = value
                found.prior_length[row] = length
