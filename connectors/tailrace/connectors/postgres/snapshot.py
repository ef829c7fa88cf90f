"""The initial snapshot: parallel binary COPY of the configured tables, all of one exported snapshot.

Large tables are cut into ranges of pages (`ctid`), partitioned ones into their leaves; each worker session
imports the slot's snapshot, so all pieces together are exactly the state at the slot's consistent point.
PostgreSQL manual: SET TRANSACTION SNAPSHOT; COPY; "TID range scan" (14+).
"""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from psycopg import sql

from tailrace.changes import OP_READ, ChangeBatch, Lsn, TableId, TableSchema, crash_point
from tailrace.connectors.postgres.backend import (
    COPY_DATA,
    ERROR,
    READY,
    Backend,
    Bytes,
    error_of,
    join_copy_data,
    messages,
    open_backend,
)
from tailrace.connectors.postgres.config import PostgresConfig
from tailrace.connectors.postgres.connection import Connection, connect, readable_errors
from tailrace.connectors.postgres.copy_binary import CopyDecoder
from tailrace.connectors.postgres.type_plan import TablePlan

_CHUNK_PAGES = 8192
_BUFFER_BYTES = 1 << 20
_QUEUED_BATCHES = 16
_TICK_S = 0.5

_RELATIONS = """
SELECT n.nspname, c.relname, pg_relation_size(c.oid) / current_setting('block_size')::int AS pages
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
  AND (c.oid = %(oid)s OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s) WHERE isleaf))
ORDER BY pages DESC, c.oid
"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pages [first, end) of one relation; end None: to its last page, however far it has grown."""

    plan: TablePlan
    relation: TableId
    first_page: int
    end_page: int | None

    def copy_command(self) -> str:
        """COPY of the rows of these pages."""
        source = sql.Identifier(self.relation.namespace, self.relation.name).as_string()
        bounds = [f"ctid >= '({self.first_page},0)'::tid"] if self.first_page else []
        if self.end_page is not None:
            bounds.append(f"ctid < '({self.end_page},0)'::tid")
        where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
        return f"COPY (SELECT {self.plan.copy_columns} FROM ONLY {source}{where}) TO STDOUT (FORMAT binary)"


def plan_chunks(connection: Connection, plans: Iterable[TablePlan]) -> list[Chunk]:
    """The pieces of all tables, in the order of the tables."""
    chunks = []
    for plan in plans:
        relations = connection.execute(_RELATIONS, {"oid": plan.relation.oid}).fetchall()
        for namespace, name, pages in relations:
            starts = range(0, max(pages, 1), _CHUNK_PAGES)
            for first in starts:
                end = None if first == starts[-1] else first + _CHUNK_PAGES
                chunks.append(Chunk(plan, TableId(namespace, name), first, end))
    return chunks


def without_rows(
    plans: Iterable[TablePlan], consistent_point: Lsn, timestamp: int
) -> tuple[ChangeBatch, ...]:
    """An empty batch of each table: the log learns the schema of a table that has no rows."""
    return tuple(
        _changes(
            plan.schema, pa.RecordBatch.from_pylist([], plan.schema.arrow), consistent_point, 0, timestamp
        )
        for plan in plans
    )


class SnapshotReader:
    """Reads all chunks with the configured number of sessions; iterate it once, `stop` it from anywhere."""

    def __init__(self, config: PostgresConfig, snapshot_name: str, chunks: Sequence[Chunk]) -> None:
        self._config = config
        self._snapshot_name = snapshot_name
        self._chunks: queue.SimpleQueue[Chunk] = queue.SimpleQueue()
        for chunk in chunks:
            self._chunks.put(chunk)
        self._workers = min(config.snapshot.workers, max(len(chunks), 1))
        self._batches: queue.Queue[tuple[TableSchema, pa.RecordBatch] | Exception | None] = queue.Queue(
            _QUEUED_BATCHES
        )
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Make the workers give up; the iterator ends."""
        self._stopping.set()

    def batches(self, consistent_point: Lsn, timestamp: int) -> Iterator[ChangeBatch]:
        """The rows as changes at the consistent point; the caller checks whether the end was a `stop`."""
        threads = [
            threading.Thread(target=self._work, name=f"snapshot-{n}", daemon=True)
            for n in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            seq = 0
            for schema, rows in self._arriving():
                yield _changes(schema, rows, consistent_point, seq, timestamp)
                seq += rows.num_rows
                crash_point("source.mid_copy")
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _arriving(self) -> Iterator[tuple[TableSchema, pa.RecordBatch]]:
        running = self._workers
        while running and not self._stopping.is_set():
            try:
                item = self._batches.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item

    def _work(self) -> None:
        try:
            with readable_errors(), connect(self._config) as connection:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                connection.execute(
                    sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self._snapshot_name))
                )
                while not self._stopping.is_set():
                    try:
                        chunk = self._chunks.get_nowait()
                    except queue.Empty:
                        break
                    self._read(connection, chunk)
            self._put(None)
        except Exception as error:  # noqa: BLE001 - raised again in the iterating thread
            self._put(error)

    def _read(self, connection: Connection, chunk: Chunk) -> None:
        decoder = CopyDecoder(chunk.plan)
        with contextlib.closing(open_backend(connection)) as backend:
            for payload in copy_out(backend, chunk.copy_command()):
                for rows in decoder.feed(payload):
                    self._put((decoder.plan.schema, rows))
                if self._stopping.is_set():
                    connection.close()
                    return
        decoder.finish()

    def _put(self, item: tuple[TableSchema, pa.RecordBatch] | Exception | None) -> None:
        while not self._stopping.is_set():
            try:
                self._batches.put(item, timeout=_TICK_S)
                return
            except queue.Full:
                continue


def copy_out(backend: Backend, command: str) -> Iterator[Bytes]:
    """The payload of a COPY TO STDOUT in large pieces, each valid until the next; then the session is idle.

    Raises psycopg's error when the server refuses or breaks off.  A piece may be empty when nothing came for
    a while, so that the caller can stop.
    """
    backend.start(command)
    buffer, joined = np.empty(_BUFFER_BYTES, np.uint8), np.empty(_BUFFER_BYTES, np.uint8)
    filled = 0
    while True:
        filled += backend.receive_into(buffer[filled:].data, _TICK_S)
        written, used = join_copy_data(buffer[:filled], joined)
        yield joined[:written]
        rest = buffer[used:filled].copy()
        if rest.size and rest[0] != COPY_DATA:
            left = _after_other_messages(rest.tobytes())
            if left is None:
                return
            rest = np.frombuffer(left, np.uint8)
        if rest.size == buffer.size:  # one row larger than the buffer
            buffer, joined = np.empty(buffer.size * 2, np.uint8), np.empty(buffer.size * 2, np.uint8)
        buffer[: rest.size] = rest
        filled = rest.size


def _after_other_messages(data: bytes) -> bytes | None:
    """What follows the messages that are no CopyData; None when the server is ready for the next command."""
    at = 0
    for kind, body, end in messages(data):
        if kind == ERROR:
            raise error_of(body)
        if kind == READY:
            return None
        if kind == COPY_DATA:
            break
        at = end
    return data[at:]


def _changes(schema: TableSchema, rows: pa.RecordBatch, lsn: Lsn, seq: int, timestamp: int) -> ChangeBatch:
    count = rows.num_rows
    return ChangeBatch(
        table=schema,
        rows=rows,
        op=np.full(count, OP_READ, np.uint8),
        lsn=np.full(count, lsn, np.int64),
        seq=np.arange(seq, seq + count, dtype=np.int64),
        xid=np.zeros(count, np.int64),
        timestamp=np.full(count, timestamp, np.int64),
        unchanged=np.full(count, -1, np.int16),
    )
