"""Which files to rewrite together, so that readers and lookups meet few files.

A compaction holds the table's commits up, so it is bounded: `MAX_ROWS` of usual rows take about a CPU second.

Size tiers of 8: files of 1-7 live rows, 8-63, ... ; `FAN_IN` files of one tier become one of the next.
A large file with many deleted rows is rewritten on its own account.  The number of files stays below
`FAN_IN` per tier however small the commits are; a row is rewritten about once per tier.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from tailrace.sinks.backend import DataFile, TableBackend, TableCommit, TableState
from tailrace.sinks.fencing import commit_strictly

FAN_IN = 10
DELETED_SHARE = 0.3
MAX_ROWS = 1_000_000
MAX_BYTES = 128 << 20
_WORN_ROWS = 50_000


def choose(state: TableState) -> list[DataFile]:
    """The files that the next compaction should merge into one; empty when none is due."""
    worn, tiers = list[DataFile](), dict[int, list[DataFile]]()
    for file in state.files.values():
        deleted = len(state.deleted.get(file.path, ()))
        live = file.rows - deleted
        if file.rows >= _WORN_ROWS and deleted >= DELETED_SHARE * file.rows:
            worn.append(file)
        elif live < MAX_ROWS // 2 and file.size < MAX_BYTES // 2:
            tiers.setdefault((max(live, 1).bit_length() - 1) // 3, []).append(file)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= FAN_IN:
            return _within_budget(tiers[tier][:FAN_IN])
    return _within_budget(worn) or worn[:1]


def _within_budget(files: list[DataFile]) -> list[DataFile]:
    """As many of the files as one compaction may rewrite, the smallest first."""
    files = sorted(files, key=lambda file: file.size)
    rows = accumulate(file.rows for file in files)
    size = accumulate(file.size for file in files)
    return [f for f, r, s in zip(files, rows, size, strict=True) if r <= MAX_ROWS and s <= MAX_BYTES]


def live_rows(backend: TableBackend, file: DataFile, deleted: BitMap | None, schema: pa.Schema) -> pa.Table:
    """The rows of a file that a reader sees, in file order, in `schema`."""
    rows = backend.read(file, schema)
    if deleted:
        keep = np.ones(file.rows, np.bool_)
        keep[np.array(deleted.to_array(), np.int64)] = False
        rows = rows.filter(pa.array(keep))
    return rows


def merged_rows(
    backend: TableBackend, files: Sequence[DataFile], deleted: Mapping[str, BitMap], schema: pa.Schema
) -> pa.Table:
    """The live rows of several files, one after the other."""
    parts = [live_rows(backend, file, deleted.get(file.path), schema) for file in files]
    return pa.concat_tables(parts).combine_chunks()


def replace(
    backend: TableBackend, state: TableState, files: Sequence[DataFile], merged: DataFile | None
) -> TableState:
    """Commit `merged` in the place of `files`; leaves everything as it is when others moved the table."""
    checkpoint = state.checkpoint.advanced({}, state.checkpoint.lsn)
    paths = [file.path for file in files]

    def build(base: TableState) -> TableCommit:
        if base is not state:
            return TableCommit(checkpoint)
        added = [] if merged is None else [merged]
        return TableCommit(checkpoint, added, removed=paths, data_change=False)

    return commit_strictly(backend, state, build)
