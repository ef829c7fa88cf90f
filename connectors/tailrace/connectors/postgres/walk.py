"""The walk over tuples: row messages of one relation -> where each cell of each column lies.

One row message gives one change, a change of the key gives two: a delete of the old key, then a create.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tailrace.changes import OP_CREATE, OP_DELETE, OP_UPDATE
from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.cells import NULL, UNCHANGED
from tailrace.connectors.postgres.pgoutput import DELETE, UPDATE, Messages
from tailrace.connectors.postgres.wire import Bytes, Flags, Lengths, Offsets, read_u8, read_u16, read_u32

SAW_BINARY, SAW_TEXT, SAW_NULL, SAW_UNCHANGED = 1, 2, 4, 8
"""Bits of `Walked.seen`."""

_NULL, _UNCHANGED, _BINARY, _NEW, _FULL_OLD = ord("n"), ord("u"), ord("b"), ord("N"), ord("O")


@dataclass(frozen=True, slots=True)
class Walked:
    """The changes of one relation in a run of messages; n changes, c columns of the Relation message.

    start, length    [c, n] where each cell lies in the run's data; NULL or UNCHANGED lengths.
    seen             uint8[c], the SAW_* bits over all changes.
    op               uint8[n]
    message          int64[n], index of the message in the run.
    second           bool[n], the create of a key change; its delete stands right before it.
    unchanged        bool[n], the change has a cell with length UNCHANGED.
    """

    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    seen: npt.NDArray[np.uint8]
    op: npt.NDArray[np.uint8]
    message: npt.NDArray[np.int64]
    second: npt.NDArray[np.bool_]
    unchanged: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return self.op.size


class BrokenTuple(Exception):
    """A tuple that does not fit its relation."""


def walk(messages: Messages, chosen: Offsets, with_old: int, is_key: Flags) -> Walked:
    """Walk the chosen messages, all of one relation whose columns are (or are not) key columns.

    A delete gives its key columns, or all columns where the table has no key.  An unchanged cell is filled
    from the old tuple where that holds it: REPLICA IDENTITY FULL, or a TOASTed key column.
    """
    columns, room = is_key.size, chosen.size + with_old
    start = np.empty((columns, room), np.int64)
    length = np.empty((columns, room), np.int32)
    seen = np.zeros(columns, np.uint8)
    op, second = np.empty(room, np.uint8), np.empty(room, np.bool_)
    unchanged, message = np.empty(room, np.bool_), np.empty(room, np.int64)
    count = _walk(
        messages.data,
        messages.starts,
        messages.ends,
        messages.kinds,
        messages.xid_bytes,
        chosen,
        is_key,
        start,
        length,
        seen,
        op,
        message,
        second,
        unchanged,
    )
    if count < 0:
        raise BrokenTuple
    return Walked(
        start[:, :count],
        length[:, :count],
        seen,
        op[:count],
        message[:count],
        second[:count],
        unchanged[:count],
    )


@kernel
def _tuple(
    data: Bytes, at: int, end: int, start: Offsets, length: Lengths, format_bit: npt.NDArray[np.uint8]
) -> int:
    """Note the cells of the tuple at `at`; returns where it ends, -1 if it does not fit."""
    if at + 2 > end or read_u16(data, at) != start.size:
        return -1
    at += 2
    for c in range(start.size):
        if at >= end:
            return -1
        kind = read_u8(data, at)
        at += 1
        start[c] = at
        if kind == _NULL:
            length[c] = NULL
            format_bit[c] = SAW_NULL
        elif kind == _UNCHANGED:
            length[c] = UNCHANGED
            format_bit[c] = SAW_UNCHANGED
        else:
            if at + 4 > end:
                return -1
            size = read_u32(data, at)
            start[c] = at + 4
            length[c] = size
            format_bit[c] = SAW_BINARY if kind == _BINARY else SAW_TEXT
            at += 4 + size
    return at if at <= end else -1


@kernel
def _key_changed(
    data: Bytes, is_key: Flags, start: Offsets, length: Lengths, old_start: Offsets, old_length: Lengths
) -> bool:
    for c in range(is_key.size):
        if not is_key[c] or length[c] == UNCHANGED:
            continue
        if length[c] != old_length[c]:
            return True
        for j in range(length[c]):
            if data[start[c] + j] != data[old_start[c] + j]:
                return True
    return False


@kernel
def _walk(
    data: Bytes,
    starts: Offsets,
    ends: Offsets,
    kinds: npt.NDArray[np.uint8],
    skip: int,
    chosen: Offsets,
    is_key: Flags,
    start: npt.NDArray[np.int64],
    length: npt.NDArray[np.int32],
    seen: npt.NDArray[np.uint8],
    op: npt.NDArray[np.uint8],
    message: npt.NDArray[np.int64],
    second: npt.NDArray[np.bool_],
    unchanged: npt.NDArray[np.bool_],
) -> int:
    columns = is_key.size
    keyless = not is_key.any()
    new_start, old_start = np.empty(columns, np.int64), np.empty(columns, np.int64)
    new_length, old_length = np.empty(columns, np.int32), np.empty(columns, np.int32)
    new_bit, old_bit = np.empty(columns, np.uint8), np.empty(columns, np.uint8)
    k = 0
    for index in chosen:
        at, end = starts[index] + 5 + skip, ends[index]
        kind = kinds[index]
        has_old = data[at] != _NEW
        full = data[at] == _FULL_OLD
        if has_old:
            at = _tuple(data, at + 1, end, old_start, old_length, old_bit)
            if at < 0:
                return -1
        changed = False
        if kind != DELETE:
            if at >= end or data[at] != _NEW:
                return -1
            at = _tuple(data, at + 1, end, new_start, new_length, new_bit)
            changed = has_old and _key_changed(data, is_key, new_start, new_length, old_start, old_length)
        if at != end:
            return -1
        if kind == DELETE or changed:
            for c in range(columns):
                given = is_key[c] or (keyless and full)
                start[c, k] = old_start[c]
                length[c, k] = old_length[c] if given else NULL
                seen[c] |= old_bit[c] if given else SAW_NULL
            op[k], message[k], second[k], unchanged[k] = OP_DELETE, index, False, False
            k += 1
        if kind == DELETE:
            continue
        open_cells = False
        for c in range(columns):
            if new_length[c] == UNCHANGED and has_old and (full or is_key[c]):
                new_start[c], new_length[c], new_bit[c] = old_start[c], old_length[c], old_bit[c]
            start[c, k] = new_start[c]
            length[c, k] = new_length[c]
            seen[c] |= new_bit[c]
            open_cells |= new_length[c] == UNCHANGED
        op[k] = OP_UPDATE if kind == UPDATE and not changed else OP_CREATE
        message[k], second[k], unchanged[k] = index, changed, open_cells
        k += 1
    return k
