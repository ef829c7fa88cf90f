"""The replication socket under bad conditions: every byte arrives once, the server is answered, losses are seen."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from tests.integration.connectors.proxy import Proxy
from tests.integration.connectors.shop import wait_until

from tailrace.changes import TableId, parse_lsn
from tailrace.connectors.postgres import wal_stream
from tailrace.connectors.postgres.backend import LibpqBackend, RawBackend
from tailrace.connectors.postgres.config import PostgresConfig
from tailrace.connectors.postgres.connection import connect, connect_replication
from tailrace.connectors.postgres.publication import ensure_publication
from tailrace.connectors.postgres.slot import create_slot
from tailrace.connectors.postgres.snapshot import copy_out
from tailrace.connectors.postgres.wal_stream import WalStream
from tailrace.connectors.source import SourceUnavailable
from tailrace.pipeline.embedded_postgres import EmbeddedPostgres

pytestmark = pytest.mark.postgres


class Database:
    """A table, its publication and a slot."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.config = PostgresConfig.model_validate({"dsn": dsn, "tables": {"public.t": {}}})
        self.connection = connect(self.config)
        self.connection.execute("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
        ensure_publication(self.connection, "p", [TableId("public", "t")])
        row = self.connection.execute("SELECT 'slot_of_' || current_database()").fetchone()
        assert row is not None
        self.slot = str(row[0])
        with connect_replication(self.config) as replication:
            self.start = create_slot(self.connection, replication, self.slot).consistent_point

    def insert(self, first: int, last: int, size: int = 100) -> None:
        self.connection.execute(
            "INSERT INTO public.t SELECT n, repeat('v', %s) FROM generate_series(%s::int, %s) n",
            (size, first, last),
        )

    def stream(self, dsn: str = "", **options: Any) -> WalStream:
        config = PostgresConfig.model_validate({"dsn": dsn or self.dsn, "tables": {"public.t": {}}})
        return WalStream(
            connect_replication(config),
            slot=self.slot,
            publication="p",
            start=self.start,
            binary=True,
            **{"queue_bytes": 64 << 20, **options},
        )

    def walsender(self, column: str) -> Any:
        row = self.connection.execute(
            f"SELECT {column} FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid "
            "WHERE s.slot_name = %s".encode(),
            (self.slot,),
        ).fetchone()
        return None if row is None else row[0]


@pytest.fixture
def database(postgres: str) -> Iterator[Database]:
    made = Database(postgres)
    yield made
    made.connection.close()


def take_rows(stream: WalStream, rows: int) -> list[bytes]:
    """The pgoutput messages up to the commit after `rows` inserts."""
    messages: list[bytes] = []
    inserts = 0
    deadline = time.monotonic() + 30
    while inserts < rows or messages[-1][:1] != b"C":
        assert time.monotonic() < deadline
        block = stream.take(1.0)
        if block is not None:
            data = block.data.tobytes()
            found = [data[s:e] for s, e in zip(block.frames.starts, block.frames.ends, strict=True)]
            inserts += sum(message[:1] == b"I" for message in found)
            messages += found
    return messages


@pytest.mark.parametrize("backend", [RawBackend, LibpqBackend])
@pytest.mark.parametrize("piece", [1, 61, 1 << 16])
def test_every_message_arrives_once_however_the_network_cuts_the_bytes(
    piece: int,
    backend: type[RawBackend | LibpqBackend],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = 500 if piece > 1 else 10
    database.insert(1, rows)
    stream = database.stream()
    expected = take_rows(stream, rows)
    stream.close()
    monkeypatch.setattr(wal_stream, "open_backend", backend)
    with Proxy(database.dsn, piece=piece) as proxy:
        stream = database.stream(proxy.dsn_through)
        assert take_rows(stream, rows) == expected
        stream.close()


def test_messages_larger_than_a_segment_arrive_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_stream, "_SEGMENT_BYTES", 1 << 17)
    database.insert(1, 3, size=1_000_000)
    database.insert(4, 40, size=30_000)
    stream = database.stream()
    rows = [message for message in take_rows(stream, 40) if message[:1] == b"I"]
    stream.close()
    assert sorted(len(row) // 1000 for row in rows) == [30] * 37 + [1000] * 3


@pytest.mark.parametrize("backend", [RawBackend, LibpqBackend])
def test_copy_gives_the_same_bytes_as_psycopg(
    backend: type[RawBackend | LibpqBackend], database: Database
) -> None:
    database.insert(1, 3000)
    database.insert(3001, 3003, size=3_000_000)
    command = "COPY (SELECT * FROM public.t ORDER BY id) TO STDOUT (FORMAT binary)"
    with database.connection.cursor() as cursor, cursor.copy(command) as copy:
        expected = b"".join(bytes(part) for part in copy)
    with closing(connect(database.config)) as session:
        with closing(backend(session)) as source:
            for _ in range(2):
                assert b"".join(piece.tobytes() for piece in copy_out(source, command)) == expected
        assert session.execute("SELECT 1").fetchone() == (1,), "the session is libpq's again"


@pytest.mark.parametrize("backend", [RawBackend, LibpqBackend])
def test_an_error_in_the_middle_of_a_copy_is_raised(
    backend: type[RawBackend | LibpqBackend], database: Database
) -> None:
    database.insert(1, 1000)
    command = "COPY (SELECT 1 / (id - 900) FROM public.t) TO STDOUT (FORMAT binary)"
    with (
        closing(connect(database.config)) as session,
        closing(backend(session)) as source,
        pytest.raises(psycopg.errors.DivisionByZero),
    ):
        list(copy_out(source, command))


def test_nothing_but_the_confirmed_position_reaches_the_slot(database: Database) -> None:
    def confirmed() -> int:
        query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s"
        row = database.connection.execute(query, (database.slot,)).fetchone()
        assert row is not None
        return parse_lsn(row[0])

    stream = database.stream()
    database.insert(1, 1000)
    take_rows(stream, 1000)
    wait_until(lambda: parse_lsn(database.walsender("write_lsn::text")) > database.start, "received is told")
    assert confirmed() == database.start
    stream.confirm(stream.received)
    wait_until(lambda: confirmed() == stream.received, "the slot follows")
    stream.close()
    wait_until(lambda: database.walsender("state") is None, "the walsender ends with the stream")


def test_the_server_is_answered_while_the_consumer_is_stuck(
    database: Database, postgres_server: EmbeddedPostgres
) -> None:
    database.connection.execute("ALTER SYSTEM SET wal_sender_timeout = '1500ms'")
    database.connection.execute("SELECT pg_reload_conf()")
    try:
        stream = database.stream(queue_bytes=1 << 20)
        for n in range(20):
            database.insert(n * 10_000 + 1, n * 10_000 + 10_000, size=400)
        wait_until(lambda: stream.waiting_bytes >= 1 << 20, "the queue fills")
        first = database.walsender("reply_time")
        wait_until(
            lambda: (database.walsender("reply_time") - first).total_seconds() > 3, "two timeouts pass"
        )
        assert stream.waiting_bytes < 8 << 20, "memory is bounded while the server waits"
        assert sum(message[:1] == b"I" for message in take_rows(stream, 200_000)) == 200_000
        stream.close()
    finally:
        database.connection.execute("ALTER SYSTEM RESET wal_sender_timeout")
        database.connection.execute("SELECT pg_reload_conf()")


def test_a_cut_connection_is_seen_after_what_came_before_it(database: Database) -> None:
    with Proxy(database.dsn) as proxy:
        stream = database.stream(proxy.dsn_through)
        database.insert(1, 1000)
        wait_until(lambda: stream.waiting_bytes > 100_000, "rows arrive")
        proxy.cut()
        with pytest.raises(SourceUnavailable, match="connection"):
            take_rows(stream, 2000)
        stream.close()


def test_a_half_open_connection_is_seen(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_stream, "_SHORTEST_SILENCE_S", 1.0)
    monkeypatch.setattr(wal_stream, "_LONGEST_STATUS_INTERVAL_S", 0.5)
    with Proxy(database.dsn) as proxy:
        stream = database.stream(proxy.dsn_through)
        database.insert(1, 10)
        take_rows(stream, 10)
        proxy.be_silent()
        with pytest.raises(SourceUnavailable, match="said nothing"):
            take_rows(stream, 10)
        proxy.speak()
        stream.close()


def test_an_idle_server_is_not_taken_for_dead(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_stream, "_SHORTEST_SILENCE_S", 1.0)
    monkeypatch.setattr(wal_stream, "_LONGEST_STATUS_INTERVAL_S", 0.5)
    stream = database.stream()
    deadline = time.monotonic() + 3
    keepalives = 0
    while time.monotonic() < deadline:
        block = stream.take(0.5)
        keepalives += block is not None and block.frames.keepalive_end > 0
    stream.close()
    assert keepalives >= 1
