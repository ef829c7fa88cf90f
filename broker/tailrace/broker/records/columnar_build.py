"""Whole record batches from columns, by compiled loops.

A batch is the header drawn in `batch`, then its records one after the other:

    record:  length varint | attributes int8 0 | timestampDelta varint | offsetDelta varint
             | keyLength varint (-1 null) key | valueLength varint (-1 null) value
             | headerCount varint | (nameLength varint name, valueLength varint value)*
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tailrace.broker.records.batch import HEADER, HEADER_BYTES, LENGTH_END, MAGIC
from tailrace.broker.records.columnar import BytesColumn, HeaderColumns
from tailrace.broker.records.columnar_varint import Int, copy_bytes, frozen, put_varint, varint_size
from tailrace.changes.compiled import kernel

DEFAULT_LIMIT = 1 << 20
"""Bytes of a record batch, 1 MiB: Kafka's brokers refuse more by default (message.max.bytes)."""


def _header(name: bytes, value_length: int) -> bytes:
    return bytes([2 * len(name)]) + name + bytes([2 * value_length])


# op, lsn, seq, xid, ts stand first, in this order, on every record: a template with five holes.
_TEMPLATE_PARTS = [
    (_header(b"op", 1), 1),
    (_header(b"lsn", 8), 8),
    (_header(b"seq", 8), 8),
    (_header(b"xid", 4), 4),
    (_header(b"ts", 8), 8),
]
_TEMPLATE = np.frombuffer(b"".join(part + bytes(length) for part, length in _TEMPLATE_PARTS), np.uint8)
_FIXED_HEADERS = len(_TEMPLATE_PARTS)
_OP_AT, _LSN_AT, _SEQ_AT, _XID_AT, _TS_AT = (
    sum(len(part) + length for part, length in _TEMPLATE_PARTS[:i]) + len(_TEMPLATE_PARTS[i][0])
    for i in range(5)
)
_UNCHANGED_NAME = np.frombuffer(bytes([2 * 9]) + b"unchanged", np.uint8)
_PRIOR_NAME = np.frombuffer(bytes([2 * 5]) + b"prior", np.uint8)
_GONE_HEADER = np.frombuffer(_header(b"gone", 0), np.uint8)

_NO_STRINGS = BytesColumn(np.zeros(1, np.int64), np.zeros(0, np.uint8))
_NO_BYTES = np.zeros(0, np.uint8)
_NO_NUMBERS = np.zeros(0, np.int64)


def build_batch(
    keys: BytesColumn | None,
    values: BytesColumn,
    headers: HeaderColumns | None,
    timestamps_ms: npt.NDArray[np.int64],
    *,
    rows: npt.NDArray[np.int64] | None = None,
    limit: int = DEFAULT_LIMIT,
) -> list[tuple[bytearray, int]]:
    """Uncompressed record batches of the chosen rows, in their order, each with its number of records.

    keys           n keys; None: every key is null.
    values         n values; a null one is a tombstone.
    headers        n rows of change headers; None: no record has headers.
    timestamps_ms  int64[n], milliseconds since the epoch.
    rows           int64[m], the rows to write; None: all n.
    limit          bytes of a batch; only a batch of one record may be larger.

    Producer id, epoch, sequence, CRC and compression are left to `finish_batch`.
    """
    chosen = np.arange(len(values), dtype=np.int64) if rows is None else rows
    if len(chosen) == 0:
        return []
    chosen = frozen(chosen)
    lengths = _lengths(keys, values, headers, timestamps_ms)
    contents = _contents(keys, values, headers)
    bodies, starts, sizes = _measure(chosen, lengths, limit - HEADER_BYTES)
    bounds = [*starts.tolist(), len(chosen)]
    batches = []
    for first, last, size in zip(bounds, bounds[1:], sizes.tolist(), strict=False):
        members = chosen[first:last]
        batch = bytearray(HEADER_BYTES + size)
        times = timestamps_ms[members]
        _write(members, bodies[first:last], lengths, contents, np.frombuffer(batch, np.uint8))
        _write_header(batch, last - first, int(times[0]), int(times.max()))
        batches.append((batch, last - first))
    return batches


def _write_header(batch: bytearray, count: int, base_timestamp: int, max_timestamp: int) -> None:
    length = len(batch) - LENGTH_END
    times = (base_timestamp, max_timestamp)
    HEADER.pack_into(batch, 0, 0, length, 0, MAGIC, 0, 0, count - 1, *times, 0, 0, 0, count)


class _Lengths(NamedTuple):
    """What decides a record's size, as the kernels take it: an absent column is an array of length 0."""

    timestamps: npt.NDArray[np.int64]
    key_offsets: npt.NDArray[np.int64]
    key_valid: npt.NDArray[np.uint8]
    value_offsets: npt.NDArray[np.int64]
    value_valid: npt.NDArray[np.uint8]
    unchanged: npt.NDArray[np.int16]
    set_offsets: npt.NDArray[np.int64]
    prior_offsets: npt.NDArray[np.int64]
    prior_valid: npt.NDArray[np.uint8]
    gone: npt.NDArray[np.uint8]


class _Contents(NamedTuple):
    """The bytes of the records."""

    key_data: npt.NDArray[np.uint8]
    value_data: npt.NDArray[np.uint8]
    fixed: npt.NDArray[np.uint8]
    """The headers that every record has, one after the other: n times the size of the template."""
    set_data: npt.NDArray[np.uint8]
    prior_data: npt.NDArray[np.uint8]


def _lengths(
    keys: BytesColumn | None,
    values: BytesColumn,
    headers: HeaderColumns | None,
    timestamps: npt.NDArray[np.int64],
) -> _Lengths:
    sets = BytesColumn.from_strings([*headers.unchanged_sets]) if headers else _NO_STRINGS
    prior = (headers.prior if headers else None) or _NO_STRINGS
    gone = None if headers is None else headers.gone
    keys = keys or _NO_STRINGS
    return _Lengths(
        frozen(timestamps),
        frozen(keys.offsets),
        frozen(_NO_BYTES if keys.valid is None else keys.valid),
        frozen(values.offsets),
        frozen(_NO_BYTES if values.valid is None else values.valid),
        frozen(np.zeros(0, np.int16) if headers is None else headers.unchanged),
        frozen(sets.offsets),
        frozen(prior.offsets),
        frozen(_NO_BYTES if prior.valid is None else prior.valid),
        frozen(_NO_BYTES if gone is None else gone),
    )


def _contents(keys: BytesColumn | None, values: BytesColumn, headers: HeaderColumns | None) -> _Contents:
    key_data, value_data = frozen((keys or _NO_STRINGS).data), frozen(values.data)
    none = frozen(_NO_BYTES)
    if headers is None:
        return _Contents(key_data, value_data, none, none, none)
    sets = frozen(np.frombuffer(b"".join(headers.unchanged_sets), np.uint8))
    prior = none if headers.prior is None else frozen(headers.prior.data)
    return _Contents(key_data, value_data, frozen(_fixed_headers(headers)), sets, prior)


def _fixed_headers(headers: HeaderColumns) -> npt.NDArray[np.uint8]:
    fixed = np.empty((len(headers.op), len(_TEMPLATE)), np.uint8)
    fixed[:] = _TEMPLATE
    fixed[:, _OP_AT] = headers.op
    for at, numbers in ((_LSN_AT, headers.lsn), (_SEQ_AT, headers.seq), (_TS_AT, headers.ts)):
        fixed[:, at : at + 8] = numbers.astype(">i8").view(np.uint8).reshape(-1, 8)
    fixed[:, _XID_AT : _XID_AT + 4] = headers.xid.astype(">u4").view(np.uint8).reshape(-1, 4)
    return fixed.reshape(-1)


@kernel
def _length(offsets: npt.NDArray[np.int64], valid: npt.NDArray[np.uint8], row: Int) -> Int:
    if row + 1 >= offsets.size or (valid.size and not valid[row]):
        return -1
    length: Int = offsets[row + 1] - offsets[row]
    return length


@kernel
def _string_size(length: Int) -> Int:
    return varint_size(length) + max(length, 0)


@kernel
def _body_size(row: Int, offset_delta: Int, time_delta: Int, of: _Lengths) -> Int:
    """Bytes of a record without its leading length."""
    size: Int = 2 + varint_size(time_delta) + varint_size(offset_delta)
    size += _string_size(_length(of.key_offsets, of.key_valid, row))
    size += _string_size(_length(of.value_offsets, of.value_valid, row))
    if of.unchanged.size:
        size += len(_TEMPLATE)
        if of.unchanged[row] >= 0:
            index = np.int64(of.unchanged[row])
            size += len(_UNCHANGED_NAME) + _string_size(of.set_offsets[index + 1] - of.set_offsets[index])
        prior = _length(of.prior_offsets, of.prior_valid, row)
        if prior >= 0:
            size += len(_PRIOR_NAME) + _string_size(prior)
        if of.gone.size and of.gone[row]:
            size += len(_GONE_HEADER)
    return size


@kernel
def _measure(
    rows: npt.NDArray[np.int64], of: _Lengths, limit: Int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut the rows into batches of at most `limit` bytes of records.

    Bytes of each record without its leading length; first row of each batch; bytes of its records.
    """
    bodies = np.empty(rows.size, np.int64)
    starts = np.empty(rows.size, np.int64)
    sizes = np.empty(rows.size, np.int64)
    batches = 0
    first = 0
    filled: Int = 0
    for i in range(rows.size):
        row = rows[i]
        body = _body_size(row, i - first, of.timestamps[row] - of.timestamps[rows[first]], of)
        if i > first and filled + varint_size(body) + body > limit:
            starts[batches] = first
            sizes[batches] = filled
            batches += 1
            first = i
            filled = 0
            body = _body_size(row, 0, 0, of)
        bodies[i] = body
        filled += varint_size(body) + body
    starts[batches] = first
    sizes[batches] = filled
    return bodies, starts[: batches + 1].copy(), sizes[: batches + 1].copy()


@kernel
def _put_string(
    out: npt.NDArray[np.uint8], position: Int, data: npt.NDArray[np.uint8], start: Int, length: Int
) -> Int:
    position = put_varint(out, position, length)
    return copy_bytes(out, position, data, start, max(length, 0))


@kernel
def _put_headers(out: npt.NDArray[np.uint8], at: Int, row: Int, of: _Lengths, has: _Contents) -> Int:
    prior = _length(of.prior_offsets, of.prior_valid, row)
    gone = 1 if of.gone.size and of.gone[row] else 0
    at = put_varint(out, at, _FIXED_HEADERS + (of.unchanged[row] >= 0) + (prior >= 0) + gone)
    at = copy_bytes(out, at, has.fixed, row * _TEMPLATE.size, _TEMPLATE.size)
    if of.unchanged[row] >= 0:
        index = np.int64(of.unchanged[row])
        start = of.set_offsets[index]
        at = copy_bytes(out, at, _UNCHANGED_NAME, 0, _UNCHANGED_NAME.size)
        at = _put_string(out, at, has.set_data, start, of.set_offsets[index + 1] - start)
    if prior >= 0:
        at = copy_bytes(out, at, _PRIOR_NAME, 0, _PRIOR_NAME.size)
        at = _put_string(out, at, has.prior_data, of.prior_offsets[row], prior)
    if gone:
        at = copy_bytes(out, at, _GONE_HEADER, 0, _GONE_HEADER.size)
    return at


@kernel
def _write(
    rows: npt.NDArray[np.int64],
    bodies: npt.NDArray[np.int64],
    of: _Lengths,
    has: _Contents,
    out: npt.NDArray[np.uint8],
) -> None:
    """Write the records of one batch after its header."""
    at: Int = np.int64(HEADER_BYTES)
    for i in range(rows.size):
        row = rows[i]
        time_delta = of.timestamps[row] - of.timestamps[rows[0]]
        at = put_varint(out, at, bodies[i])
        out[at] = 0
        at = put_varint(out, at + 1, time_delta)
        at = put_varint(out, at, i)
        key_start = of.key_offsets[row] if of.key_offsets.size > 1 else 0
        at = _put_string(out, at, has.key_data, key_start, _length(of.key_offsets, of.key_valid, row))
        value_length = _length(of.value_offsets, of.value_valid, row)
        at = _put_string(out, at, has.value_data, of.value_offsets[row], value_length)
        at = _put_headers(out, at, row, of, has) if of.unchanged.size else put_varint(out, at, 0)
