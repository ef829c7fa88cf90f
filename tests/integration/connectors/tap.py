"""A tap on a real server for the decoder's tests: raw pgoutput messages and raw COPY bytes, read through libpq."""

import itertools
import select
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn
from psycopg.rows import TupleRow

from tailrace.changes import ChangeBatch, ChangeSet
from tailrace.connectors.postgres.arrow_types import TYPES_SQL, PgType
from tailrace.connectors.postgres.config import TableOptions
from tailrace.connectors.postgres.copy_binary import CopyDecoder
from tailrace.connectors.postgres.frames import scan_frames
from tailrace.connectors.postgres.relation import Relation
from tailrace.connectors.postgres.stream_decoder import StreamDecoder
from tailrace.connectors.postgres.type_plan import (
    CATALOG_SQL,
    CatalogColumn,
    TablePlan,
    plan_relation,
    plan_table,
)

Connection = psycopg.Connection[TupleRow]
_SETTINGS = "-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c bytea_output=hex"
_STREAM_AT_ONCE = " -c debug_logical_replication_streaming=immediate"
"""Every change of an open transaction is streamed, as if the server's memory were full."""
_HEADER = 25
_MARKS = itertools.count()
"""Never the same twice: a slot sends again what was not confirmed."""


class Tap:
    """A publication for all tables and a slot, made at once; `frames()` is what the slot has up to now."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.options: dict[str, TableOptions] = {}
        self.sql = psycopg.connect(dsn, autocommit=True, options=_SETTINGS)
        self.sql.execute("CREATE PUBLICATION tap FOR ALL TABLES")
        self.sql.execute(
            "SELECT pg_create_logical_replication_slot('tap_' || current_database(), 'pgoutput')"
        )
        self.resolved: list[Relation] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sql.close()

    def plan(self, table: str) -> TablePlan:
        rows = self._catalog(int(self._text("SELECT %s::regclass::oid::int8", table)))
        return plan_table(rows, self._types(row.type_oid for row in rows), self._options(table))

    def resolve(self, relation: Relation) -> TablePlan:
        """What the source does at a Relation message."""
        self.resolved.append(relation)
        types = self._types(column.type_oid for column in relation.columns)
        return plan_relation(relation, self._catalog(relation.oid), types, self._options(relation.table.name))

    def copied_bytes(self, plan: TablePlan) -> bytes:
        """What COPY sends for the plan's columns."""
        query = f"COPY (SELECT {plan.copy_columns} FROM {plan.id}) TO STDOUT (FORMAT binary)"
        with self.sql.cursor() as cursor, cursor.copy(query.encode()) as copy:
            return b"".join(bytes(part) for part in copy)

    def copy(self, plan: TablePlan, *, step: int = 1 << 20) -> list[dict[str, object]]:
        """All rows of the table, through COPY and our decoder, in pieces of `step` bytes."""
        received = self.copied_bytes(plan)
        decoder = CopyDecoder(plan)
        rows: list[dict[str, object]] = []
        for at in range(0, len(received), step):
            for batch in decoder.feed(received[at : at + step]):
                batch.validate(full=True)
                rows += batch.to_pylist()
        decoder.finish()
        return rows

    def frames(self, *, binary: bool = True, streaming: bool = False) -> bytes:
        """What the server sends from the slot's start to the end of its WAL, as bytes of the connection."""
        with self.receiving(binary=binary, streaming=streaming) as receiver:
            return receiver.finish()

    @contextmanager
    def receiving(self, *, binary: bool = True, streaming: bool = False) -> Iterator["Receiver"]:
        """Receive while the caller writes: only so does the server stream what is rolled back later."""
        options = ", binary 'true'" if binary else ""
        options += ", streaming 'on'" if streaming else ""
        settings = _SETTINGS + (_STREAM_AT_ONCE if streaming else "")
        wal = psycopg.connect(
            make_conninfo(self.dsn, replication="database", options=settings), autocommit=True
        )
        receiver = Receiver(self.sql, wal.pgconn, options)
        try:
            receiver.thread.start()
            yield receiver
        finally:
            receiver.is_wanted = False
            receiver.thread.join()
            wal.close()
            self._release()

    def _release(self) -> None:
        """Wait until the slot is free again: a walsender outlives its client by a moment."""
        self.sql.execute(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots "
            "WHERE database = current_database() AND active"
        )

    def advance(self) -> None:
        """Let the slot forget what was sent."""
        self.sql.execute(
            "SELECT pg_replication_slot_advance('tap_' || current_database(), pg_current_wal_lsn())"
        )

    def decode(
        self, spool_dir: Path, *, binary: bool = True, streaming: bool = False, cuts: Iterable[int] = ()
    ) -> list[ChangeSet]:
        """All change sets from the slot's start until now."""
        return feed(
            self.decoder(spool_dir, binary=binary), self.frames(binary=binary, streaming=streaming), cuts
        )

    def decoder(
        self, spool_dir: Path, *, binary: bool = True, only: str | None = None, **options: int
    ) -> StreamDecoder:
        """A decoder of every table, or of `only` one."""

        def resolve(relation: Relation) -> TablePlan | None:
            return self.resolve(relation) if only in (None, relation.table.name) else None

        return StreamDecoder(resolve, spool_dir, binary=binary, **options)

    def _options(self, table: str) -> TableOptions:
        return self.options.get(table.rpartition(".")[2], TableOptions())

    def _catalog(self, oid: int) -> list[CatalogColumn]:
        return [CatalogColumn(*row) for row in self.sql.execute(CATALOG_SQL, ([oid],))]

    def _types(self, oids: Iterable[int]) -> dict[int, PgType]:
        return {row[0]: PgType(*row) for row in self.sql.execute(TYPES_SQL, (list(oids),))}

    def _text(self, query: str, *parameters: str) -> str:
        row = self.sql.execute(query.encode(), parameters).fetchone()
        assert row is not None
        return str(row[0])


class Receiver:
    """A walsender's client on a thread of its own."""

    def __init__(self, sql: Connection, wal: PGconn, options: str) -> None:
        self._sql, self._wal = sql, wal
        self._received: list[bytes] = []
        self._progress = threading.Condition()
        self._awaited, self._is_marked = b"", False
        row = sql.execute("SELECT 'tap_' || current_database()").fetchone()
        assert row is not None
        started = wal.exec_(
            f"START_REPLICATION SLOT {row[0]} LOGICAL 0/0 "
            f"(proto_version '2', publication_names 'tap', messages 'true'{options})".encode()
        )
        assert started.status == pq.ExecStatus.COPY_BOTH, started.error_message
        self.is_wanted = True
        self.thread = threading.Thread(target=self._receive)

    def catch_up(self) -> None:
        """Return when all that was written until now was received, committed or not."""
        mark = f"mark {next(_MARKS)};"
        with self._progress:
            self._awaited, self._is_marked = mark.encode(), False
        self._sql.execute("SELECT pg_logical_emit_message(true, 'tap', %s)", (mark,))
        with self._progress:
            assert self._progress.wait_for(lambda: not self._awaited, timeout=60)

    def finish(self) -> bytes:
        """All frames until now."""
        self.catch_up()
        return b"".join(struct.pack(">cI", b"d", len(message) + 4) + message for message in self._received)

    def _receive(self) -> None:
        while self.is_wanted:
            size, payload = self._wal.get_copy_data(1)
            assert size >= 0, self._wal.get_error_message()
            if size == 0:
                select.select([self._wal.socket], [], [], 0.05)
                self._wal.consume_input()
                continue
            message = bytes(payload)
            with self._progress:
                self._received.append(message)
                self._is_marked |= bool(self._awaited) and self._awaited in message
                if self._is_marked and message[:1] == b"w" and message[_HEADER : _HEADER + 1] in b"Cc":
                    self._awaited = b""
                    self._progress.notify()


def feed(decoder: StreamDecoder, received: bytes, cuts: Iterable[int] = ()) -> list[ChangeSet]:
    """Feed what the server sent, cut at any bytes, as a receiver with a fixed buffer would."""
    sets: list[ChangeSet] = []
    rest = b""
    at = 0
    for cut in [*sorted(cuts), len(received)]:
        block = np.frombuffer(rest + received[at:cut], np.uint8)
        found = scan_frames(block)
        assert found.other == 0
        sets += decoder.feed(block, found.starts, found.ends)
        rest, at = block[found.consumed :].tobytes(), cut
    assert rest == b""
    return sets


def batches(sets: Iterable[ChangeSet]) -> list[ChangeBatch]:
    found = [change for one in sets for change in one.changes if isinstance(change, ChangeBatch)]
    for batch in found:
        batch.rows.validate(full=True)
    return found


def rows(sets: Iterable[ChangeSet]) -> list[tuple[str, dict[str, object]]]:
    """(operation, row) of every change, in the order of the sets."""
    return [
        (chr(op), row)
        for batch in batches(sets)
        for op, row in zip(batch.op, batch.rows.to_pylist(), strict=True)
    ]
