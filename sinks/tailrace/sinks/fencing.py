"""Owning a table: take-over, and what to do when a commit's outcome is not a plain yes.

The rules (their reasons and the races that were tried are in sinks/README.md):

1. Take-over is a commit without data that raises the epoch.  It moves the table, so every commit of
   the older owner that is in flight fails its compare-and-set.
2. Every commit is a strict compare-and-set on the state that this writer itself loaded and checked.
3. On a conflict or an unknown outcome: reload, then
     epoch is not mine                     -> FencedError
     checkpoint == what I was writing      -> it had landed, go on
     checkpoint == my last                 -> foreign maintenance: rebuild positions, try again
     anything else                         -> stop
4. Offsets and LSN never go back (`Checkpoint.advanced`).
"""

from collections.abc import Callable

import pyarrow as pa

from tailrace.changes import ConfigError, FencedError, TailraceError, crash_point
from tailrace.sinks.backend import CommitConflict, ForeignWriteError, TableBackend, TableCommit, TableState
from tailrace.sinks.checkpoint import Checkpoint

_ATTEMPTS = 10

Rebuild = Callable[[TableState], TableCommit]
"""Make the same commit again for another base (positions may have moved)."""


def take_over(backend: TableBackend, schema: pa.Schema) -> TableState:
    """Open the table, creating it with `schema` where there is none, and fence any older owner.

    ConfigError for a table that exists and was not made by this owner.
    """
    for _ in range(_ATTEMPTS):
        try:
            state = backend.load()
            if state is None:
                return backend.create(schema, Checkpoint().taken_over())
            if state.checkpoint.epoch == 0:
                raise ConfigError(
                    f"table {backend.location} exists and is not kept by this sink",
                    fix="give the sink another path or table name, or move the old table away",
                )
            state = backend.commit(state, TableCommit(state.checkpoint.taken_over()))
            crash_point("sink.after_fence")
            return state
        except CommitConflict:
            continue
    raise TailraceError(f"table {backend.location} is being changed all the time by somebody else")


def commit_strictly(backend: TableBackend, base: TableState, rebuild: Rebuild) -> TableState:
    """Commit `rebuild(base)`, resolving conflicts and lost answers by the rules above."""
    last = base.checkpoint
    for _ in range(_ATTEMPTS):
        change = rebuild(base)
        try:
            return backend.commit(base, change)
        except CommitConflict:
            pass
        base, landed = _reload(backend, last, change.checkpoint, base.live_rows())
        if landed:
            return base
    raise TailraceError(f"table {backend.location} is being changed all the time by somebody else")


def _reload(
    backend: TableBackend, last: Checkpoint, wanted: Checkpoint, live_rows: int
) -> tuple[TableState, bool]:
    state = backend.load()
    if state is None:
        raise TailraceError(
            f"table {backend.location} disappeared", fix="restore it, or remove it and start again"
        )
    if state.checkpoint.epoch != last.epoch:
        raise FencedError(
            f"another instance of this sink took over table {backend.location}",
            fix="make sure that only one instance runs",
        )
    if state.checkpoint == wanted:
        return state, True
    if state.checkpoint != last:
        raise TailraceError(
            f"the checkpoint of table {backend.location} is neither the last one nor the next one",
            fix="restore the table to a version that this sink wrote",
        )
    if state.live_rows() != live_rows:
        raise ForeignWriteError(
            f"somebody else changed the rows of table {backend.location}",
            fix="restore the last version that this sink wrote; only maintenance may be done by others",
        )
    return state, False
