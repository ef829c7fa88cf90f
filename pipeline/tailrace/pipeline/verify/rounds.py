"""Verification in rounds while writes go on.

A round reads the source at an exact LSN L, waits until a table's checkpoint reaches some W >= L, and
compares.  A key may differ only because it changed in (L, W]: the raw topic says which keys did.  Any
other difference is a fault at once; those keys are compared again in the next round, at a later L.
A transformed table carries no LSN: a difference must persist over rounds, until the deadline, to count.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tailrace.changes import Lsn, TableId, TailraceError, format_lsn
from tailrace.pipeline.part import read_endpoints
from tailrace.pipeline.plan import Endpoints, Plan
from tailrace.pipeline.source import open_source
from tailrace.pipeline.status import Patience, is_running
from tailrace.pipeline.verify.canonical import as_text, typed
from tailrace.pipeline.verify.changed import changed_keys
from tailrace.pipeline.verify.compare import compare
from tailrace.pipeline.verify.recompute import NotRecomputable, recompute
from tailrace.pipeline.verify.replay import replayed
from tailrace.pipeline.verify.report import Report, TableVerdict
from tailrace.sinks.service import SinkInput, SinkPartConfig, make_sink
from tailrace.sinks.sink import Sink, TableReading

_ROUNDS = 6
_POLL_S = 0.2
_FENCE_MARGIN_S = 120.0


@dataclass(frozen=True, slots=True)
class _Fence:
    """The source at one LSN: every table as canonical text, and when it was read."""

    position: Lsn
    taken_at: float
    tables: Mapping[TableId, pa.Table]


class Verifier:
    """Verifies every table of a plan against its source."""

    def __init__(self, plan: Plan, data_dir: Path, *, timeout_s: float) -> None:
        self._plan = plan
        self._patience = Patience(data_dir, timeout_s)
        endpoints = read_endpoints(plan, data_dir)
        if endpoints is None or (plan.embedded and not is_running(data_dir)):
            raise TailraceError(
                f"the pipeline {plan.name} does not run on {data_dir}",
                fix=f"start it: tailrace run {plan.file}",
            )
        self._endpoints: Endpoints = endpoints
        self._data_dir = data_dir
        self._source = open_source(plan, data_dir)
        self._schemas = {table.schema.id: table.schema for table in self._source.discover()}

    def run(self) -> Report:
        """Verify table after table; each gets rounds of its own."""
        verdicts = []
        for name in self._plan.spec.sinks:
            config = self._plan.sink_config(name, self._data_dir, self._endpoints)
            sink = make_sink(config)
            try:
                for item in config.inputs:
                    verdict = TableVerdict(
                        name, item.target, "transform" if item.table is None else item.mode
                    )
                    self._verify(verdict, sink, item, config)
                    verdicts.append(verdict)
            finally:
                sink.close()
        return Report(verdicts)

    def _verify(self, verdict: TableVerdict, sink: Sink, item: SinkInput, config: SinkPartConfig) -> None:
        if item.table is None:
            self._verify_transform(verdict, sink, item)
            return
        key = item.key or self._schemas[item.table].key
        if not key:
            verdict.skipped = "the table has no key to compare by"
            return
        pending: set[tuple[str, ...]] | None = None
        for _ in range(_ROUNDS):
            fence = self._fence([item.table])
            reading = self._reading_at(sink, item, fence.position, verdict)
            if reading is None:
                return
            found = as_text(replayed(reading.rows, key) if item.mode == "append" else reading.rows)
            difference = compare(fence.tables[item.table], found, key)
            difference.doubled |= _doubled_changes(reading.rows, key) if item.mode == "append" else set()
            moved = (
                changed_keys(
                    self._endpoints,
                    item.topic,
                    item.table,
                    key,
                    after=fence.position,
                    through=reading.checkpoint.lsn,
                    since_ms=int((fence.taken_at - _FENCE_MARGIN_S) * 1000),
                )
                if difference.keys
                else set()
            )
            if pending is None:
                verdict.through, verdict.rows = fence.position, found.num_rows
            verdict.difference = difference.without(moved)
            pending = (difference.keys & moved) if pending is None else pending & difference.keys & moved
            if not verdict.difference.equal or not pending:
                break
        verdict.unsettled = len(pending or ())

    def _verify_transform(self, verdict: TableVerdict, sink: Sink, item: SinkInput) -> None:
        transform = self._plan.spec.transforms[item.target]
        key = tuple(transform.key)
        if not key:
            verdict.skipped = "a result without a key cannot be compared row by row"
            return
        aliases = {
            alias: self._table_of(self._plan.resolve(wanted)) for alias, wanted in transform.inputs.items()
        }
        if None in aliases.values():
            verdict.skipped = "it reads the result of another transform"
            return
        pause = _POLL_S
        while True:
            tables = {alias: table for alias, table in aliases.items() if table is not None}
            fence = self._fence(list(tables.values()))
            inputs = {alias: typed(fence.tables[t], self._schemas[t].arrow) for alias, t in tables.items()}
            try:
                expected = recompute(transform, inputs, self._plan.file.parent)
            except NotRecomputable as error:
                verdict.skipped = str(error)
                return
            reading = sink.read_table(item.target)
            if reading is not None:
                found = reading.rows
                verdict.rows = found.num_rows
                verdict.difference = compare(as_text(_as_types_of(expected, found)), as_text(found), key)
                if verdict.difference.equal:
                    verdict.through = fence.position
                    return
            if self._patience.over(f"sink.{verdict.sink}"):
                if reading is None:
                    verdict.skipped = "the table does not exist yet"
                return
            time.sleep(pause)
            pause = min(pause * 2, 3.0)

    def _fence(self, tables: list[TableId]) -> _Fence:
        with self._source.fenced_read() as read:
            return _Fence(read.position, time.time(), {table: read.read(table) for table in tables})

    def _reading_at(
        self, sink: Sink, item: SinkInput, position: Lsn, verdict: TableVerdict
    ) -> TableReading | None:
        """The table at the first version seen that is complete through `position`."""
        while True:
            checkpoint = sink.table_checkpoint(item.target)
            if checkpoint is not None and checkpoint.lsn >= position:
                return sink.read_table(item.target)
            if over := self._patience.over(f"sink.{verdict.sink}"):
                at = "does not exist" if checkpoint is None else f"stands at LSN {format_lsn(checkpoint.lsn)}"
                verdict.skipped = f"the table {at}, before the fence at {format_lsn(position)}, and {over}"
                return None
            time.sleep(_POLL_S)

    def _table_of(self, topic: str) -> TableId | None:
        return next((table for table, raw in self._plan.topics.items() if raw == topic), None)


def _doubled_changes(rows: pa.Table, key: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Keys with a change that stands in the log twice: (lsn, seq, op) names a change."""
    marks = rows.select([*key, "_lsn", "_seq", "_op"])
    counts = marks.group_by(marks.column_names).aggregate([([], "count_all")])
    doubled = counts.filter(pc.greater(counts.column("count_all"), pa.scalar(1))).select(list(key))
    return {tuple(row.values()) for row in as_text(doubled).to_pylist()}


def _as_types_of(expected: pa.Table, found: pa.Table) -> pa.Table:
    """Columns of `expected` in the types of `found`, where both have them."""
    columns = {}
    for name in expected.column_names:
        column = expected.column(name)
        if name in found.column_names:
            kind = found.schema.field(name).type
            if column.type != kind and not pa.types.is_floating(column.type):  # a narrowed float is a fault
                column = column.cast(kind)
        columns[name] = column
    return pa.table(columns)


def verify_pipeline(plan: Plan, data_dir: Path, *, timeout_s: float) -> Report:
    """Verify every table of a running pipeline."""
    return Verifier(plan, data_dir, timeout_s=timeout_s).run()
