"""`COPY ... TO STDOUT (FORMAT binary)` bytes in, Arrow batches of the table's plan out.

    "PGCOPY\\n\\377\\r\\n\\0" | Int32 flags | Int32 header extension length | extension | tuples | Int16 -1
    a tuple: Int16 fields | per field: Int32 length (-1: null) | the value's binary form

PostgreSQL manual, COPY, "Binary Format".  Values come out bit for bit as the stream's: one set of kernels.
"""

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailrace.changes import SourceDataError, TailraceError
from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.cells import BINARY, NULL, BadCell, Cells
from tailrace.connectors.postgres.decode import Array, ColumnTooLarge, decode_column
from tailrace.connectors.postgres.type_plan import ColumnPlan, TablePlan
from tailrace.connectors.postgres.wire import Bytes, read_i16, read_i32

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8
_TRAILER = -1
_DONE, _BROKEN = 1, 2


class CopyDecoder:
    """Decodes one COPY of `plan.copy_columns`; feed it the stream's bytes (payloads of CopyData, joined)."""

    def __init__(self, plan: TablePlan) -> None:
        self._plan = plan
        self._rest = np.empty(0, np.uint8)
        self._header_seen = False
        self._done = False

    @property
    def plan(self) -> TablePlan:
        """The plan, with columns made nullable that turned out to hold nulls."""
        return self._plan

    def feed(self, block: Bytes | bytes | bytearray | memoryview) -> Iterator[pa.RecordBatch]:
        """Rows of `plan.schema.arrow` that are complete now; a tuple may be cut anywhere between two calls.

        Raises SourceDataError naming table and column, TailraceError when the bytes are no binary COPY.
        """
        fresh = np.frombuffer(block, np.uint8)
        data = np.concatenate([self._rest, fresh]) if self._rest.size else fresh
        at = 0
        if not self._header_seen:
            at = _header_end(data)
            if at == 0:
                self._rest = data.copy()
                return
            self._header_seen = True
        data = data.view()
        data.flags.writeable = False
        columns = len(self._plan.columns)
        room = (data.size - at) // (2 + 4 * columns) + 1
        start, length = np.empty((columns, room), np.int64), np.empty((columns, room), np.int32)
        nulls = np.zeros(columns, np.bool_)
        rows, consumed, state = _walk_tuples(data, at, start, length, nulls)
        if self._done and data.size:
            raise _broken(self._plan)
        self._done = self._done or state == _DONE
        if state == _BROKEN or (self._done and data.size > consumed):
            raise _broken(self._plan)
        self._rest = data[consumed:].copy()
        if rows:
            self._relax(length[:, :rows], nulls)
            yield from self._decode(data, start[:, :rows], length[:, :rows], nulls)

    def finish(self) -> None:
        """Say that no more bytes come; raises TailraceError when the copy broke off before its trailer."""
        if not self._done or self._rest.size:
            raise _broken(self._plan)

    def _relax(self, length: npt.NDArray[np.int32], nulls: npt.NDArray[np.bool_]) -> None:
        short = [c.name for c, null in zip(self._plan.columns, nulls, strict=True) if null and not c.nullable]
        if short:
            self._plan = self._plan.relaxed(short)

    def _decode(
        self,
        data: Bytes,
        start: npt.NDArray[np.int64],
        length: npt.NDArray[np.int32],
        nulls: npt.NDArray[np.bool_],
    ) -> Iterator[pa.RecordBatch]:
        try:
            arrays = [
                self._column(column, Cells(data, start[c], length[c], BINARY, bool(nulls[c])))
                for c, column in enumerate(self._plan.columns)
            ]
        except ColumnTooLarge:
            if length.shape[1] == 1:
                raise SourceDataError(
                    f"a row of {self._plan.id} holds more than 2 GiB in one column, in the initial snapshot",
                    fix=f"list the column under exclude of {self._plan.id}",
                ) from None
            middle = length.shape[1] // 2
            yield from self._decode(data, start[:, :middle], length[:, :middle], nulls)
            yield from self._decode(data, start[:, middle:], length[:, middle:], nulls)
            return
        yield pa.RecordBatch.from_arrays(arrays, schema=self._plan.schema.arrow)

    def _column(self, column: ColumnPlan, cells: Cells) -> Array:
        try:
            return decode_column(cells, column.value)
        except BadCell as bad:
            raise SourceDataError(
                f"column {column.name} of {self._plan.id} holds {bad.reason.words}, in the initial snapshot",
                fix=f"list {column.name} under as_text of {self._plan.id} to carry it as text",
            ) from None


def _header_end(data: Bytes) -> int:
    """Where the tuples begin; 0 while the header is not whole."""
    head = data[:_HEADER].tobytes()
    if head[: len(_SIGNATURE)] != _SIGNATURE[: len(head)]:
        raise TailraceError(
            "the answer to COPY is not in binary format", fix="report it with the server's version"
        )
    if len(head) < _HEADER:
        return 0
    (extension,) = struct.unpack_from(">i", head, len(_SIGNATURE) + 4)
    end = _HEADER + int(extension)
    return end if end <= data.size else 0


def _broken(plan: TablePlan) -> TailraceError:
    return TailraceError(
        f"the COPY of {plan.id} broke off or does not fit the table's columns",
        fix="start the snapshot again; the table may have been altered while it was read",
    )


@kernel
def _walk_tuples(
    data: Bytes,
    at: int,
    start: npt.NDArray[np.int64],
    length: npt.NDArray[np.int32],
    nulls: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Note the cells of whole tuples; returns their number, where they end, and 0, _DONE or _BROKEN."""
    columns = nulls.size
    rows = 0
    while at + 2 <= data.size:
        count = read_i16(data, at)
        if count == _TRAILER:
            return rows, at + 2, _DONE
        if count != columns:
            return rows, at, _BROKEN
        cursor = at + 2
        c = 0
        while c < columns and cursor + 4 <= data.size:
            size = read_i32(data, cursor)
            cursor += 4
            if size < NULL:
                return rows, at, _BROKEN
            if cursor + max(size, 0) > data.size:
                break
            start[c, rows] = cursor
            length[c, rows] = size
            cursor += max(size, 0)
            c += 1
        if c < columns:
            break
        for k in range(columns):
            nulls[k] |= length[k, rows] < 0
        at = cursor
        rows += 1
    return rows, at, 0
