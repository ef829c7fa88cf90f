"""The Postgres source: the order of its steps (publication, slot, snapshot, stream) and nothing else.

Start:    publication, committed -> note "started" in the log -> slot with exported snapshot -> parallel
          COPY -> note "done" and the slot's consistent point as position, in one producer transaction with
          the rows.
Restart:  "started" without "done": our slot is dropped and the snapshot begins anew.
          "done": the stream goes on behind the log's position.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

import pyarrow as pa
from psycopg import sql
from pydantic import BaseModel

from tailrace.changes import ChangeSet, ConfigError, Lsn, TableId, TableSchema, crash_point
from tailrace.connectors.postgres.catalog import RelationResolver, plan_tables
from tailrace.connectors.postgres.config import PostgresConfig
from tailrace.connectors.postgres.connection import (
    Connection,
    connect,
    connect_replication,
    readable_errors,
)
from tailrace.connectors.postgres.fence import current_position, fenced_read
from tailrace.connectors.postgres.preflight import Preflight
from tailrace.connectors.postgres.publication import ensure_publication
from tailrace.connectors.postgres.reselect import Reselector
from tailrace.connectors.postgres.slot import CreatedSlot, create_slot, drop_slot, identify_system
from tailrace.connectors.postgres.snapshot import SnapshotReader, plan_chunks, without_rows
from tailrace.connectors.postgres.snapshot_note import SnapshotNote
from tailrace.connectors.postgres.stream_decoder import NeedsTextFormat, StreamDecoder
from tailrace.connectors.postgres.tables import read_facts
from tailrace.connectors.postgres.type_plan import TablePlan
from tailrace.connectors.postgres.wal_stream import WalStream
from tailrace.connectors.source import (
    DiscoveredTable,
    FencedRead,
    Finding,
    Journal,
    LogState,
    Note,
    Reselected,
    SourceContext,
    SourceProgress,
    SourceUnavailable,
)

_TAKE_S = 0.5


class PostgresSource:
    """See `tailrace.connectors.source.Source` for the contract."""

    Config: ClassVar[type[BaseModel]] = PostgresConfig

    def __init__(self, config: PostgresConfig, context: SourceContext) -> None:
        self._config = config
        self._context = context
        self._slot = config.slot_name(context.pipeline)
        self._publication = config.publication_name(context.pipeline)
        self._closing = threading.Event()
        self._reader: SnapshotReader | None = None
        self._wal: WalStream | None = None
        self._reselector = Reselector(config)
        self._rows: dict[TableId, int] = {}
        self._copied: dict[TableId, TablePlan] | None = None
        self._text_only = False

    def check(self, log: LogState | None) -> list[Finding]:
        """Preflight; SourceUnavailable when the server cannot be reached."""
        try:
            connection = connect(self._config)
        except ConfigError as error:
            return [Finding("error", error.what, error.fix)]
        with connection, readable_errors():
            return Preflight(connection, self._config, self._context).findings(log)

    def discover(self) -> list[DiscoveredTable]:
        """The configured tables as the catalog is now."""
        with connect(self._config) as connection, readable_errors():
            plans = plan_tables(connection, self._config.table_options())
            facts = read_facts(connection, plans)
        return [
            DiscoveredTable(plan.schema, facts[table].estimated_rows, plan.warnings, plan.partial)
            for table, plan in plans.items()
        ]

    def needs_snapshot(self, log: LogState) -> bool:
        """True until the log holds the note "done"."""
        note = SnapshotNote.of(log)
        return note is None or not note.is_done

    def snapshot(self, journal: Journal) -> Iterator[ChangeSet | Note]:
        """Publication, slot, rows; ends early without a position when the source is closed."""
        tables = list(self._config.table_options())
        with connect(self._config) as connection, readable_errors():
            crash_point("source.before_publication")
            ensure_publication(connection, self._publication, tables)
            crash_point("source.after_publication")
            with connect_replication(self._config) as replication:
                note = SnapshotNote.started(self._slot, identify_system(replication), tables)
                journal.record(note.to_note())
                crash_point("source.after_snapshot_started_record")
                drop_slot(connection, self._slot)
                self._copied = plans = _lock(connection, self._config)
                slot = create_slot(connection, replication, self._slot)
                crash_point("source.after_slot")
                timestamp = _now(connection)
                empty = without_rows(plans.values(), slot.consistent_point, timestamp)
                yield ChangeSet(empty, None, timestamp)
                if self._config.snapshot.mode == "initial":
                    yield from self._rows_of(connection, plans, slot, timestamp)
            if self._closing.is_set():
                return
            crash_point("source.after_copy_before_commit")
            yield note.done(slot.consistent_point).to_note()
            yield ChangeSet((), slot.consistent_point, timestamp)

    def _rows_of(
        self, connection: Connection, plans: Mapping[TableId, TablePlan], slot: CreatedSlot, timestamp: int
    ) -> Iterator[ChangeSet]:
        self._rows = dict.fromkeys(plans, 0)
        chunks = plan_chunks(connection, plans.values())
        self._reader = SnapshotReader(self._config, slot.snapshot_name, chunks)
        try:
            for batch in self._reader.batches(slot.consistent_point, timestamp):
                self._rows[batch.table.id] += len(batch)
                yield ChangeSet((batch,), None, timestamp)
        finally:
            self._reader = None

    def stream(self, position: Lsn) -> Iterator[ChangeSet | Note]:
        """Changes behind `position`, until the source is closed."""
        while not self._closing.is_set():
            complete = True
            try:
                for changes in self._stream_once(position):
                    complete = changes.position is not None
                    position = position if changes.position is None else changes.position
                    yield changes
            except NeedsTextFormat as error:
                self._text_only = True
                if not complete:  # pieces of a transaction are out: only the log can take them back
                    raise SourceUnavailable(f"the stream changes to text format: {error.what}") from error

    def _stream_once(self, position: Lsn) -> Iterator[ChangeSet]:
        with contextlib.ExitStack() as stack:
            plans, self._copied = self._copied, None
            if plans is None:  # else the stream begins where the copy ended, with the same definitions
                with connect(self._config) as connection, readable_errors():
                    plans = plan_tables(connection, self._config.table_options())
            binary = not self._text_only and all(plan.binary for plan in plans.values())
            resolver = RelationResolver(self._config, plans)
            stack.callback(resolver.close)
            stack.callback(self._reselector.close)
            spool = self._context.data_dir / "spool"
            spool.mkdir(parents=True, exist_ok=True)
            decoder = StreamDecoder(resolver, spool, binary=binary, skip_through=position)
            stack.callback(decoder.close)
            wal = self._start(position, binary)
            stack.callback(wal.close)
            yield from self._decode(wal, decoder, position)

    def _start(self, position: Lsn, binary: bool) -> WalStream:
        replication = connect_replication(self._config)
        try:
            with readable_errors():
                self._wal = WalStream(
                    replication,
                    slot=self._slot,
                    publication=self._publication,
                    start=position,
                    binary=binary,
                    queue_bytes=self._config.queue_mb << 20,
                )
        except BaseException:
            replication.close()
            raise
        return self._wal

    def _decode(self, wal: WalStream, decoder: StreamDecoder, position: Lsn) -> Iterator[ChangeSet]:
        while not self._closing.is_set():
            block = wal.take(_TAKE_S)
            if block is None:
                continue
            frames = block.frames
            for changes in decoder.feed(block.data, frames.starts, frames.ends):
                if changes.position is not None:
                    position = changes.position
                yield changes
            idle = not decoder.in_transaction and not decoder.open_streamed
            if idle and frames.keepalive_end > position:
                # nothing of ours up to here, and nothing of ours is open: the slot may move over foreign WAL
                position = frames.keepalive_end
                yield ChangeSet((), position, time.time_ns() // 1000)

    def reselect(self, table: TableSchema, keys: pa.RecordBatch, columns: Sequence[str]) -> Reselected:
        """Cells that an update left out, as they are now."""
        return self._reselector.cells(table, keys, columns)

    def confirm(self, position: Lsn) -> None:
        """The slot may forget what lies before `position`."""
        if self._wal is not None:
            self._wal.confirm(position)

    def current_position(self) -> Lsn:
        """The end of the WAL now: every transaction committed before the call ends at or before it."""
        return current_position(self._config)

    def fenced_read(self) -> AbstractContextManager[FencedRead]:
        """The tables at an exact LSN, as text."""
        return fenced_read(self._config)

    def progress(self) -> SourceProgress:
        """Counters for the status file."""
        wal = self._wal
        if wal is not None:
            return SourceProgress("running", wal.received, wal.confirmed, dict(self._rows))
        return SourceProgress("snapshot" if self._rows else "starting", None, None, dict(self._rows))

    def close(self) -> None:
        """End the iterators and the sessions."""
        self._closing.set()
        if (reader := self._reader) is not None:
            reader.stop()
        if (wal := self._wal) is not None:
            wal.close()


def _lock(connection: Connection, config: PostgresConfig) -> dict[TableId, TablePlan]:
    """Pin the tables' definitions for the whole copy, as pg_dump does, and plan them as they are now.

    A rewriting ALTER TABLE in the middle would make a table look empty to the older snapshot.
    """
    names = [sql.Identifier(table.namespace, table.name) for table in config.table_options()]
    connection.execute("BEGIN")
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.SQL(", ").join(names)))
    return plan_tables(connection, config.table_options())


def _now(connection: Connection) -> int:
    row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
    assert row is not None
    return int(row[0])
