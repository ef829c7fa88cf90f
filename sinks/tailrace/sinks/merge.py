"""Many changes in, the last one per key out; columns only.

The steps, for n changes of one table from several partitions:

1. `gather`: one Arrow table in the table's stored types, metadata columns beside it, in source order
   (lsn, seq); rows of a topic without change metadata keep their arrival order.
2. Sort by key, then by place.  The last row of each key's run is the key's change; a delete or an upsert.
3. An unchanged TOAST cell of row i comes from the row before i with the same key, or, after a key
   change, from the row before i with the prior key.  One pass in source order makes every
   such pointer end at a row that has the cell, or at a key that must be looked up in the table::

       owner[i] = i                     the cell is given
                  owner[before[i]]      unchanged, and an earlier row of the batch is there
                  -1 - i                unchanged, and row i is the first: look up its (prior) key
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tailrace.changes import OP_DELETE, ChangeBatch, TailraceError
from tailrace.changes.compiled import kernel
from tailrace.sinks.evolve import conform
from tailrace.sinks.keys import KeyCodec, KeyCodes, concat

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Gathered:
    """n changes in source order; fields as in ChangeBatch, `rows` in the table's stored schema.

    missing   per TOAST column that any row leaves unchanged: bool[n], True where it does.
    prior     key columns of the rows that changed their key and need the old one, else None
    prior_row int64[len(prior)], index of those rows.
    """

    rows: pa.Table
    op: npt.NDArray[np.uint8]
    lsn: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int64]
    xid: npt.NDArray[np.int64]
    timestamp: npt.NDArray[np.int64]
    missing: dict[str, npt.NDArray[np.bool_]]
    prior: pa.Table | None
    prior_row: Indices


@dataclass(frozen=True, slots=True)
class Lookup:
    """Cells to be read from the table: column `column` of upsert `row[i]` is that of key `wanted[key[i]]`."""

    column: str
    row: Indices
    key: Indices


@dataclass(frozen=True, slots=True)
class Merged:
    """The net effect of a run of changes.

    upserts, upsert_keys  new rows, one per key, in no order; cells named by `lookups` are null.
    deletes, delete_keys  key columns of the rows that are gone, one per key.
    wanted                keys whose old rows the lookups read, as they were before this run.
    """

    upserts: pa.Table
    upsert_keys: KeyCodes
    deletes: pa.Table
    delete_keys: KeyCodes
    wanted: KeyCodes
    lookups: tuple[Lookup, ...]


def gather(batches: Sequence[ChangeBatch], schema: pa.Schema) -> Gathered:
    """Put batches of one table together, in `schema` (stored types), in source order."""
    lsn = np.concatenate([batch.lsn for batch in batches])
    seq = np.concatenate([batch.seq for batch in batches])
    rows = pa.concat_tables([conform(batch.rows, schema) for batch in batches])
    op = np.concatenate([batch.op for batch in batches])
    xid = np.concatenate([batch.xid for batch in batches])
    timestamp = np.concatenate([batch.timestamp for batch in batches])
    missing = _missing(batches, schema)
    prior, prior_row = _priors(batches, schema)
    if not _in_order(lsn, seq):
        order = np.lexsort((seq, lsn))
        rows = rows.take(pa.array(order, pa.int64()))
        op, lsn, seq, xid, timestamp = op[order], lsn[order], seq[order], xid[order], timestamp[order]
        missing = {name: mask[order] for name, mask in missing.items()}
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        prior_row = place[prior_row]
    return Gathered(rows.combine_chunks(), op, lsn, seq, xid, timestamp, missing, prior, prior_row)


def merge(changes: Gathered, codec: KeyCodec) -> Merged:
    """The last change per key, unchanged cells taken from earlier changes where they are."""
    keys = codec.encode(changes.rows)
    order = keys.order()
    is_last = np.ones(len(order), np.bool_)
    is_last[:-1] = ~keys.take(order).same_as_previous()[1:]
    last = order[is_last].astype(np.int64)
    deleted = changes.op[last] == OP_DELETE
    up, gone = last[~deleted], last[deleted]
    upserts = changes.rows.take(pa.array(up, pa.int64()))
    wanted = keys.take(np.empty(0, np.intp))
    lookups: tuple[Lookup, ...] = ()
    if changes.missing:
        upserts, wanted, lookups = _fill(changes, codec, keys, up, upserts)
    deletes = changes.rows.select(list(codec.columns)).take(pa.array(gone, pa.int64()))
    return Merged(upserts, keys.take(up), deletes, keys.take(gone), wanted, lookups)


def _fill(
    changes: Gathered, codec: KeyCodec, keys: KeyCodes, up: Indices, upserts: pa.Table
) -> tuple[pa.Table, KeyCodes, tuple[Lookup, ...]]:
    """Fill unchanged cells from earlier changes of the batch; say which are left to the table."""
    before, prior_keys = _before(changes, codec, keys)
    prior_of = np.full(len(keys), -1, np.int64)
    prior_of[changes.prior_row] = np.arange(len(changes.prior_row))
    left: list[tuple[str, Indices, Indices]] = []
    for name, missing in changes.missing.items():
        owner = _owners(missing, before)[up]
        _refuse_deleted(name, changes, owner)
        unknown = owner < 0
        source = np.where(unknown, up, owner)
        if not np.array_equal(source, up):
            column = changes.rows.column(name).take(pa.array(source, pa.int64()))
            upserts = upserts.set_column(
                upserts.schema.get_field_index(name), upserts.schema.field(name), column
            )
        if unknown.any():
            left.append((name, np.flatnonzero(unknown), -1 - owner[unknown]))
    if not left:
        return upserts, keys.take(np.empty(0, np.intp)), ()
    roots = np.unique(np.concatenate([root for _name, _row, root in left]))
    moved = prior_of[roots]
    wanted = keys.take(roots)
    if prior_keys is not None:
        wanted.code[moved >= 0] = prior_keys.code[moved[moved >= 0]]
        if wanted.check is not None and prior_keys.check is not None:
            wanted.check[moved >= 0] = prior_keys.check[moved[moved >= 0]]
    lookups = tuple(Lookup(name, row, np.searchsorted(roots, root)) for name, row, root in left)
    return upserts, wanted, lookups


def _refuse_deleted(name: str, changes: Gathered, owner: Indices) -> None:
    if (changes.op[owner[owner >= 0]] == OP_DELETE).any():
        raise TailraceError(
            f"an update leaves column '{name}' unchanged, but its row was deleted before",
            fix="check that the topic is complete and in order; then rebuild the table",
        )


def _before(changes: Gathered, codec: KeyCodec, keys: KeyCodes) -> tuple[Indices, KeyCodes | None]:
    """Per row: the row that its unchanged cells come from, -1 when that row is not in the batch."""
    n = len(keys)
    place = 2 * np.arange(n, dtype=np.int64)
    row = np.arange(n, dtype=np.int64)
    prior_keys = None
    if changes.prior is not None:
        # A prior key stands for "what that key was just before its delete", which is one place earlier.
        prior_keys = codec.encode(changes.prior)
        after_delete = (changes.prior_row > 0) & (changes.op[changes.prior_row - 1] == OP_DELETE)
        keys = concat([keys, prior_keys])
        place = np.concatenate([place, 2 * (changes.prior_row - after_delete) - 1])
        row = np.concatenate([row, changes.prior_row])
    order = keys.order(tie=place)
    same = keys.take(order).same_as_previous()
    previous = np.full(len(order), -1, np.int64)
    previous[order[1:]] = np.where(same[1:], order[:-1], -1)
    previous[previous >= n] = -1
    before = previous[:n].copy()
    # The real key of a row that moved says nothing about the cells that it brought along.
    before[row[n:]] = previous[n:]
    return before, prior_keys


@kernel
def _owners(missing: npt.NDArray[np.bool_], before: Indices) -> Indices:
    """Where each row's cell really is; see the module docstring."""
    owner = np.empty(missing.size, np.int64)
    for i in range(missing.size):
        if not missing[i]:
            owner[i] = i
        elif before[i] >= 0:
            owner[i] = owner[before[i]]
        else:
            owner[i] = -1 - i
    return owner


def _in_order(lsn: npt.NDArray[np.int64], seq: npt.NDArray[np.int64]) -> bool:
    step = np.diff(lsn)
    return bool(((step > 0) | ((step == 0) & (np.diff(seq) >= 0))).all())


def _missing(batches: Sequence[ChangeBatch], schema: pa.Schema) -> dict[str, npt.NDArray[np.bool_]]:
    names = {name for batch in batches for columns in batch.unchanged_sets for name in columns}
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for name in sorted(names.intersection(schema.names)):
        parts = []
        for batch in batches:
            has = np.array([name in columns for columns in batch.unchanged_sets] + [False])
            parts.append(has[batch.unchanged])
        masks[name] = np.concatenate(parts)
    return {name: mask for name, mask in masks.items() if mask.any()}


def _priors(batches: Sequence[ChangeBatch], schema: pa.Schema) -> tuple[pa.Table | None, Indices]:
    tables, rows, start = [], [], 0
    for batch in batches:
        if batch.prior_key is not None and batch.prior_key.num_columns:
            given = pc.is_valid(batch.prior_key.column(0)).to_numpy(zero_copy_only=False)
            needed = np.flatnonzero(given & (batch.unchanged >= 0))
            fields = pa.schema([schema.field(name) for name in batch.prior_key.schema.names])
            tables.append(conform(batch.prior_key.take(pa.array(needed, pa.int64())), fields))
            rows.append(needed + start)
        start += len(batch)
    if not tables:
        return None, np.empty(0, np.int64)
    return pa.concat_tables(tables).combine_chunks(), np.concatenate(rows)
