"""The source part on a real Postgres and a real broker: what the topics hold is what the tables held."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fixtures.registry import Stack
from tests.integration.connectors import mirror
from tests.integration.connectors.shop import Shop, wait_until

from tailrace.broker.client import TopicPartition
from tailrace.changes import OP_CREATE, OP_DELETE, OP_READ, TableId, parse_lsn
from tailrace.changes.status import read_status

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One broker and registry for the whole file."""
    running = Stack(tmp_path_factory.mktemp("stack"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def database(postgres: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, note text, amount numeric(12,2), made timestamptz)"
        )
        connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text, tag text)")
        connection.execute("ALTER TABLE docs ALTER COLUMN body SET STORAGE EXTERNAL")
        connection.execute(
            "INSERT INTO orders SELECT n, 'order ' || n, n / 100.0, now() - n * interval '1 minute' "
            "FROM generate_series(1, 1000) n"
        )
        connection.execute(
            "INSERT INTO docs SELECT n, repeat(n::text, 3000), 'a' FROM generate_series(1, 20) n"
        )
        yield connection


@pytest.fixture
def shop(postgres: str, database: psycopg.Connection, stack: Stack, tmp_path: Path) -> Iterator[Shop]:
    running = Shop(postgres, stack, tmp_path / "run", {"public.orders": {}, "public.docs": {}})
    yield running
    running.close()


def test_snapshot_and_stream_add_up_to_the_tables(shop: Shop, database: psycopg.Connection) -> None:
    with shop.running():
        shop.catch_up()
        assert all(change.op == OP_READ for change in shop.changes("public.orders"))
        database.execute("INSERT INTO orders SELECT n, 'late', 1.5, now() FROM generate_series(1001, 1500) n")
        database.execute("UPDATE orders SET amount = amount + 1, note = NULL WHERE id % 3 = 0")
        database.execute("DELETE FROM orders WHERE id % 7 = 0")
        shop.catch_up()
    shop.assert_equal("public.orders")
    shop.assert_equal("public.docs")


def test_a_table_without_rows_has_a_schema_so_that_no_sink_waits_for_its_first_row(
    shop: Shop, database: psycopg.Connection
) -> None:
    database.execute("DELETE FROM docs")
    with shop.running():
        shop.catch_up()
    topic = shop.topic(TableId.parse("public.docs"))
    value, key = shop.registry.latest(f"{topic}-value"), shop.registry.latest(f"{topic}-key")
    assert value is not None
    assert key is not None
    assert shop.changes("public.docs") == []
    shop.assert_equal("public.orders")


def test_writes_during_the_snapshot_are_neither_lost_nor_doubled(
    shop: Shop, database: psycopg.Connection
) -> None:
    database.execute(
        "INSERT INTO orders SELECT n, repeat('x', 200), 1, now() FROM generate_series(1001, 20000) n"
    )
    with shop.running():
        for id_ in range(60001, 60200):
            database.execute("INSERT INTO orders VALUES (%s, 'during', 2, now())", (id_,))
            database.execute("UPDATE orders SET note = 'touched' WHERE id = %s", (id_ - 60000,))
            database.execute("DELETE FROM orders WHERE id = %s", (id_ - 59000,))
        shop.catch_up()
    shop.assert_equal("public.orders")


def test_an_unchanged_toast_value_is_kept_also_over_a_key_change(
    shop: Shop, database: psycopg.Connection
) -> None:
    with shop.running():
        shop.catch_up()
        database.execute("UPDATE docs SET tag = 'b' WHERE id <= 5")
        database.execute("UPDATE docs SET id = id + 100, tag = 'c' WHERE id IN (1, 2)")
        shop.catch_up()
    unchanged = [change for change in shop.changes("public.docs") if change.unchanged]
    assert len(unchanged) == 7
    assert all(change.row["body"] is None for change in unchanged)
    shop.assert_equal("public.docs")


def test_a_key_change_is_a_delete_and_a_create_side_by_side(shop: Shop, database: psycopg.Connection) -> None:
    with shop.running():
        shop.catch_up()
        database.execute("UPDATE orders SET id = -1 WHERE id = 1")
        shop.catch_up()
    delete, create = sorted(
        (change for change in shop.changes("public.orders") if change.op != OP_READ),
        key=lambda change: change.seq,
    )
    assert (delete.op, delete.key, create.op, create.key) == (OP_DELETE, (1,), OP_CREATE, (-1,))
    assert (delete.lsn, delete.seq + 1) == (create.lsn, create.seq)
    shop.assert_equal("public.orders")


def test_a_truncate_is_a_barrier_at_its_place(shop: Shop, database: psycopg.Connection) -> None:
    with shop.running():
        shop.catch_up()
        with database.transaction():
            database.execute("INSERT INTO orders VALUES (5000, 'before', 1, now())")
            database.execute("TRUNCATE orders, docs")
            database.execute("INSERT INTO orders VALUES (5001, 'after', 1, now())")
        shop.catch_up()
    marks = mirror.read_truncates(shop.client, shop.control)
    assert sorted(str(mark.table) for mark in marks) == ["public.docs", "public.orders"]
    offsets = next(mark.offsets for mark in marks if str(mark.table) == "public.orders")
    for change in shop.changes("public.orders"):
        before = change.offset < offsets[change.partition]
        assert before == (change.key != (5001,)), "the offsets of the barrier part what came before and after"
    assert list(shop.rows("public.orders")) == [(5001,)]
    shop.assert_equal("public.docs")


def test_a_rolled_back_transaction_leaves_no_trace(shop: Shop, database: psycopg.Connection) -> None:
    with shop.running():
        shop.catch_up()
        with pytest.raises(ZeroDivisionError), database.transaction():
            database.execute("UPDATE orders SET note = 'never'")
            raise ZeroDivisionError
        database.execute("INSERT INTO orders VALUES (7000, 'yes', 1, now())")
        shop.catch_up()
    assert [change.key for change in shop.changes("public.orders") if change.op != OP_READ] == [(7000,)]
    shop.assert_equal("public.orders")


def test_an_added_column_arrives_with_the_rows_that_have_it(shop: Shop, database: psycopg.Connection) -> None:
    with shop.running():
        shop.catch_up()
        with database.transaction():
            database.execute("INSERT INTO orders VALUES (8000, 'old shape', 1, now())")
            database.execute("ALTER TABLE orders ADD COLUMN colour text")
            database.execute("INSERT INTO orders VALUES (8001, 'new shape', 1, now(), 'red')")
        shop.catch_up()
    rows = {change.key: change.row for change in shop.changes("public.orders")}
    assert "colour" not in rows[8000,]
    assert rows[8001,]["colour"] == "red"


def test_a_large_transaction_is_one_producer_transaction(shop: Shop, database: psycopg.Connection) -> None:
    database.execute("ALTER SYSTEM SET logical_decoding_work_mem = '64kB'")
    database.execute("SELECT pg_reload_conf()")
    try:
        with shop.running():
            shop.catch_up()
            before = mirror.durable_position(shop.client, shop.control)
            with database.transaction():
                database.execute(
                    "INSERT INTO orders SELECT n, repeat('y', 400), 1, now() FROM generate_series(10001, 25000) n"
                )
                database.execute("SAVEPOINT s")
                database.execute("DELETE FROM orders")
                database.execute("ROLLBACK TO s")
            shop.catch_up()
    finally:
        database.execute("ALTER SYSTEM RESET logical_decoding_work_mem")
        database.execute("SELECT pg_reload_conf()")
    [lsn] = {change.lsn for change in shop.changes("public.orders") if change.op != OP_READ}
    positions = [position.lsn for position in mirror.read_positions(shop.client, shop.control)]
    assert not [position for position in positions if before < position < lsn]
    shop.assert_equal("public.orders")


def test_a_row_of_several_megabytes_passes(shop: Shop, database: psycopg.Connection) -> None:
    database.execute("INSERT INTO docs VALUES (500, repeat('s', 3000000), 'snapshot')")
    with shop.running():
        shop.catch_up()
        database.execute("INSERT INTO docs VALUES (501, repeat('t', 5000000), 'stream')")
        shop.catch_up()
    shop.assert_equal("public.docs")


def test_a_snapshot_that_is_stopped_leaves_nothing_open_and_starts_anew(
    shop: Shop, database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.connectors.postgres.snapshot._CHUNK_PAGES", 1)
    database.execute(
        "INSERT INTO orders SELECT n, repeat('x', 500), 1, now() FROM generate_series(1001, 40000) n"
    )
    place = TopicPartition(f"raw.{shop.name}.orders", 0)

    def has_begun() -> bool:
        known = place.topic in shop.client.metadata([place.topic])
        return known and shop.client.list_offsets([place])[place] > 0

    with shop.running():
        wait_until(has_begun, "the first rows are in the log")
    assert mirror.durable_position(shop.client, shop.control) == 0, "the stop came before the end"
    end = shop.client.list_offsets([place])
    assert shop.client.list_offsets([place], isolation="read_committed") == end, "no transaction is open"
    assert shop.changes("public.orders") == []
    with shop.running():
        shop.catch_up()
    shop.assert_equal("public.orders")


def test_a_restart_goes_on_with_nothing_lost_and_nothing_doubled(
    shop: Shop, database: psycopg.Connection
) -> None:
    for round_ in range(3):
        with shop.running():
            shop.catch_up()
            database.execute("INSERT INTO orders VALUES (%s, 'while running', 1, now())", (9000 + round_,))
        database.execute("UPDATE orders SET note = %s WHERE id <= 100", (f"while stopped {round_}",))
    with shop.running():
        shop.catch_up()
    shop.assert_equal("public.orders")


def test_every_position_names_offsets_that_hold_exactly_the_source_up_to_it(
    shop: Shop, database: psycopg.Connection
) -> None:
    with shop.running():
        shop.catch_up()
        for n in range(50):
            database.execute("UPDATE orders SET note = %s WHERE id = %s", (str(n), n))
        shop.catch_up()
    changes = shop.changes("public.orders")
    for position in mirror.read_positions(shop.client, shop.control):
        offsets = position.offsets[f"raw.{shop.name}.orders"]
        for change in changes:
            assert (change.offset < offsets[change.partition]) == (change.lsn <= position.lsn)


def confirmed_lsn(shop: Shop, connection: psycopg.Connection) -> int | None:
    row = connection.execute(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s",
        (f"tailrace_{shop.name}",),
    ).fetchone()
    return None if row is None or row[0] is None else parse_lsn(row[0])


def test_the_slot_never_stands_ahead_of_the_log(shop: Shop, database: psycopg.Connection) -> None:
    with shop.running():
        shop.catch_up()
        for n in range(100):
            database.execute("INSERT INTO orders VALUES (%s, 'x', 1, now())", (20000 + n,))
            confirmed = confirmed_lsn(shop, database)
            assert confirmed is not None
            assert confirmed <= mirror.durable_position(shop.client, shop.control)


def test_an_idle_slot_follows_the_wal_of_other_tables(shop: Shop, database: psycopg.Connection) -> None:
    database.execute("CREATE TABLE elsewhere (n int)")
    with shop.running():
        shop.catch_up()
        database.execute("INSERT INTO elsewhere SELECT generate_series(1, 1000)")
        row = database.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        target = parse_lsn(row[0])
        wait_until(lambda: (confirmed_lsn(shop, database) or 0) >= target, "the slot follows")
        assert mirror.durable_position(shop.client, shop.control) >= target


def test_the_status_file_tells_rows_positions_and_state(shop: Shop, database: psycopg.Connection) -> None:
    def source_status() -> dict[str, Any]:
        return read_status(shop.data_dir).get("source", {})

    with shop.running():
        shop.catch_up()
        database.execute("INSERT INTO orders VALUES (30000, 'x', 1, now())")
        shop.catch_up()
        wait_until(
            lambda: source_status()["tables"]["public.orders"]["changes"] == 1, "the status counts the change"
        )
        status = source_status()
    assert status["tables"]["public.orders"]["snapshot_rows"] == 1000
    assert status["position"] >= parse_lsn(status["confirmed_lsn"])
    assert status["freshness_s"] < 30
    assert source_status()["state"] == "stopped"


@pytest.mark.parametrize("how", ["restart", "immediate", "terminate", "broker"])
def test_a_lost_server_or_broker_is_waited_out(
    how: str, shop: Shop, database: psycopg.Connection, request: pytest.FixtureRequest
) -> None:
    def restart_broker() -> None:
        shop.stack.kill()
        shop.stack.start()

    interruptions: dict[str, Callable[[], Any]] = {
        "restart": lambda: request.getfixturevalue("postgres_server").restart(),
        "immediate": lambda: request.getfixturevalue("postgres_server").restart(immediate=True),
        "terminate": lambda: database.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL"
        ),
        "broker": restart_broker,
    }
    with shop.running():
        shop.catch_up()
        database.execute("UPDATE orders SET note = 'before' WHERE id <= 500")
        interruptions[how]()
        with psycopg.connect(shop.dsn, autocommit=True) as again:
            again.execute("UPDATE orders SET note = 'after' WHERE id > 500")
        shop.catch_up()
    shop.assert_equal("public.orders")
