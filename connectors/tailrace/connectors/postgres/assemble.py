"""Walked rows of one table -> change batches."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailrace.changes import OP_DELETE, ChangeBatch, SourceDataError, format_lsn
from tailrace.connectors.postgres.cells import BINARY, TEXT, UNCHANGED, BadCell, Cells
from tailrace.connectors.postgres.decode import Array, ColumnTooLarge, decode_column, merge_formats
from tailrace.connectors.postgres.pgoutput import Transactions
from tailrace.connectors.postgres.type_plan import ColumnPlan, TablePlan
from tailrace.connectors.postgres.walk import SAW_BINARY, SAW_NULL, SAW_TEXT, SAW_UNCHANGED, Walked
from tailrace.connectors.postgres.wire import Bytes

_FORMAT_BYTE = 5  # before a value: 'b' or 't', then its length


def relaxed_plan(plan: TablePlan, walked: Walked) -> TablePlan:
    """The plan that these rows need: a column that is NOT NULL now may hold nulls in older changes."""
    kept = walked.op != OP_DELETE
    short = [
        column.name
        for column in plan.columns
        if not column.nullable
        and walked.seen[column.position] & (SAW_NULL | SAW_UNCHANGED)
        and bool((walked.length[column.position][kept] < 0).any())
    ]
    return plan.relaxed(short) if short else plan


def assemble(
    plan: TablePlan,
    data: Bytes,
    walked: Walked,
    owner: npt.NDArray[np.int64],
    seq: npt.NDArray[np.int64],
    transactions: Transactions,
) -> Iterator[ChangeBatch]:
    """Decode the rows of one table, as a rule into one batch.

    owner   per message of the run, the index of its transaction in `transactions`.
    seq     per message of the run, the index of its first change in the transaction.
    Raises SourceDataError naming table, column and LSN.
    """
    transaction = owner[walked.message]
    yield from _assemble(
        plan,
        data,
        walked,
        slice(0, len(walked)),
        (
            transactions.lsn[transaction],
            seq[walked.message] + walked.second,
            transactions.xid[transaction],
            transactions.timestamp[transaction],
        ),
    )


def _assemble(
    plan: TablePlan,
    data: Bytes,
    walked: Walked,
    part: slice,
    meta: tuple[npt.NDArray[np.int64], ...],
) -> Iterator[ChangeBatch]:
    lsn, seq, xid, timestamp = meta
    try:
        arrays = []
        for column in plan.columns:
            seen = int(walked.seen[column.position])
            start, length = walked.start[column.position][part], walked.length[column.position][part]
            cells = Cells(data, start, length, nulls=bool(seen & (SAW_NULL | SAW_UNCHANGED)))
            arrays.append(_column(plan, column, cells, seen, lsn[part]))
        prior = _prior_key(plan, data, walked, part, lsn)
    except ColumnTooLarge:
        if part.stop - part.start == 1:
            raise SourceDataError(
                f"a row of {plan.id} holds more than 2 GiB in one column, in the transaction that ends at "
                f"{format_lsn(int(lsn[part.start]))}",
                fix=f"list the column under exclude of {plan.id}",
            ) from None
        middle = (part.start + part.stop) // 2
        yield from _assemble(plan, data, walked, slice(part.start, middle), meta)
        yield from _assemble(plan, data, walked, slice(middle, part.stop), meta)
        return
    unchanged, sets = _unchanged(plan, walked, part)
    yield ChangeBatch(
        table=plan.schema,
        rows=pa.RecordBatch.from_arrays(arrays, schema=plan.schema.arrow),
        op=walked.op[part],
        lsn=lsn[part],
        seq=seq[part],
        xid=xid[part],
        timestamp=timestamp[part],
        unchanged=unchanged,
        unchanged_sets=sets,
        prior_key=prior,
    )


def _column(
    plan: TablePlan, column: ColumnPlan, cells: Cells, seen: int, lsn: npt.NDArray[np.int64]
) -> Array:
    try:
        if not seen & SAW_BINARY:
            return decode_column(cells.in_format(TEXT), column.value)
        if not seen & SAW_TEXT:
            return decode_column(cells.in_format(BINARY), column.value)
        is_text = (cells.data[np.maximum(cells.start - _FORMAT_BYTE, 0)] == TEXT) & cells.valid()
        binary = decode_column(cells.where(~is_text).in_format(BINARY), column.value)
        return merge_formats(
            binary, decode_column(cells.where(is_text).in_format(TEXT), column.value), is_text
        )
    except BadCell as bad:
        raise SourceDataError(
            f"column {column.name} of {plan.id} holds {bad.reason.words}, in the transaction that ends at "
            f"{format_lsn(int(lsn[bad.row]))}",
            fix=f"list {column.name} under as_text of {plan.id} to carry it as text",
        ) from None


def _unchanged(
    plan: TablePlan, walked: Walked, part: slice
) -> tuple[npt.NDArray[np.int16], tuple[tuple[str, ...], ...]]:
    """Per change the index of its set of unchanged columns, and the sets."""
    index = np.full(part.stop - part.start, -1, np.int16)
    open_columns = [c for c in plan.columns if walked.seen[c.position] & SAW_UNCHANGED]
    rows = np.flatnonzero(walked.unchanged[part])
    if not open_columns or not rows.size:
        return index, ()
    positions = [column.position for column in open_columns]
    pattern = walked.length[positions][:, part][:, rows] == UNCHANGED
    patterns, inverse = np.unique(pattern, axis=1, return_inverse=True)
    names = np.array([column.name for column in open_columns], object)
    sets = [tuple(names[patterns[:, k]]) for k in range(patterns.shape[1])]
    return _numbered(index, rows, inverse.reshape(-1), sets)


def _numbered(
    index: npt.NDArray[np.int16],
    rows: npt.NDArray[np.int64],
    inverse: npt.NDArray[np.int64],
    sets: Sequence[tuple[str, ...]],
) -> tuple[npt.NDArray[np.int16], tuple[tuple[str, ...], ...]]:
    """Number the sets from 0, leaving out the empty one (only excluded columns were unchanged)."""
    numbers = np.full(len(sets), -1, np.int16)
    used = [k for k, names in enumerate(sets) if names]
    numbers[used] = np.arange(len(used))
    index[rows] = numbers[inverse]
    return index, tuple(sets[k] for k in used)


def _prior_key(
    plan: TablePlan, data: Bytes, walked: Walked, part: slice, lsn: npt.NDArray[np.int64]
) -> pa.RecordBatch | None:
    """The old keys of rows that changed their key and have unchanged cells; their deletes stand right before."""
    needed = (walked.second & walked.unchanged)[part]
    if not needed.any():
        return None
    before = np.maximum(np.arange(part.start, part.stop) - 1, 0)
    arrays = []
    for column in sorted((c for c in plan.columns if c.key), key=lambda c: plan.schema.key.index(c.name)):
        cells = Cells(
            data, walked.start[column.position][before], walked.length[column.position][before], nulls=True
        )
        arrays.append(
            _column(plan, column, cells.where(needed), int(walked.seen[column.position]), lsn[before])
        )
    return pa.RecordBatch.from_arrays(arrays, schema=plan.schema.key_schema())
