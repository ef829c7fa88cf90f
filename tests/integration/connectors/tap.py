"""A tap on a real server for the decoder's tests: raw pgoutput messages and raw COPY bytes, read through libpq."""

import struct
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np
import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from tailrace.changes import ChangeBatch, ChangeSet, Lsn, parse_lsn
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
_HEADER = 25


class Tap:
    """A publication for all tables and a slot, made at once; `frames()` is what the slot has up to now."""

    def __init__(self, dsn: str, *, streaming: bool = False, binary: bool = True) -> None:
        self.dsn = dsn
        self.options: dict[str, TableOptions] = {}
        self._streaming, self._binary = streaming, binary
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
        rows = self._catalog(self._value("SELECT %s::regclass::oid::int8", table))
        return plan_table(rows, self._types(row.type_oid for row in rows), self._options(table))

    def resolve(self, relation: Relation) -> TablePlan:
        """What the source does at a Relation message."""
        self.resolved.append(relation)
        types = self._types(column.type_oid for column in relation.columns)
        return plan_relation(relation, self._catalog(relation.oid), types, self._options(relation.table.name))

    def copy(self, plan: TablePlan, *, step: int = 1 << 20) -> list[dict[str, object]]:
        """All rows of the table, through COPY and our decoder, in pieces of `step` bytes."""
        query = f"COPY (SELECT {plan.copy_columns} FROM {plan.id}) TO STDOUT (FORMAT binary)"
        with self.sql.cursor() as cursor, cursor.copy(query.encode()) as copy:
            received = b"".join(bytes(part) for part in copy)
        decoder = CopyDecoder(plan)
        rows: list[dict[str, object]] = []
        for at in range(0, len(received), step):
            for batch in decoder.feed(received[at : at + step]):
                batch.validate(full=True)
                rows += batch.to_pylist()
        decoder.finish()
        return rows

    def frames(self) -> bytes:
        """What the server sends from the slot's start to the end of its WAL, as bytes of the connection."""
        end = parse_lsn(self._value("SELECT pg_logical_emit_message(true, 'tap', 'end')::text"))
        self._value("SELECT pg_current_wal_flush_lsn()::text")
        conninfo = make_conninfo(self.dsn, replication="database", options=_SETTINGS)
        wal = pq.PGconn.connect(conninfo.encode())
        assert wal.status == pq.ConnStatus.OK, wal.get_error_message()
        try:
            return b"".join(self._receive(wal, end))
        finally:
            wal.finish()

    def decoder(self, spool_dir: object, **options: object) -> StreamDecoder:
        return StreamDecoder(self.resolve, spool_dir, binary=self._binary, **options)  # type: ignore[arg-type]

    def _receive(self, wal: pq.PGconn, end: Lsn) -> Iterator[bytes]:
        streaming = ", streaming 'on'" if self._streaming else ""
        binary = ", binary 'true'" if self._binary else ""
        slot = self._value("SELECT 'tap_' || current_database()")
        started = wal.exec_(
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0 "
            f"(proto_version '2', publication_names 'tap', messages 'true'{streaming}{binary})".encode()
        )
        assert started.status == pq.ExecStatus.COPY_BOTH, started.error_message
        open_transaction = False
        while True:
            _, payload = wal.get_copy_data(0)
            message = bytes(payload)
            if message[:1] == b"w" and message[_HEADER : _HEADER + 1] == b"M" and b"tap\0" in message:
                open_transaction = True
            yield struct.pack(">cI", b"d", len(message) + 4) + message
            is_end = message[:1] == b"w" and message[_HEADER : _HEADER + 1] == b"C" and open_transaction
            if is_end and struct.unpack_from(">q", message, _HEADER + 10)[0] >= end:
                return

    def _options(self, table: str) -> TableOptions:
        return self.options.get(table.rpartition(".")[2], TableOptions())

    def _catalog(self, oid: int) -> list[CatalogColumn]:
        return [CatalogColumn(*row) for row in self.sql.execute(CATALOG_SQL, ([oid],))]

    def _types(self, oids: Iterable[int]) -> dict[int, PgType]:
        return {row[0]: PgType(*row) for row in self.sql.execute(TYPES_SQL, (list(oids),))}

    def _value(self, query: str, *parameters: object) -> str:
        row = self.sql.execute(query.encode(), parameters).fetchone()
        assert row is not None
        return row[0]  # type: ignore[no-any-return]


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
