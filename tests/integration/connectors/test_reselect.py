"""Unchanged TOASTed cells of a table that a transform reads: selected again by key, never null for a row that lives."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import psycopg
import pytest
from tests.fixtures.flink import Topics
from tests.fixtures.registry import Stack
from tests.integration.connectors.shop import Shop

from tailrace.changes import SourceDataError, TableId

pytestmark = pytest.mark.postgres

DOCS = TableId("public", "docs")
KEY_COLUMNS = "code text, at timestamptz, amount numeric(12,3), day date, ok boolean, n int"


@pytest.fixture
def database(postgres: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE docs ({KEY_COLUMNS}, body text, doc jsonb, raw bytea, tags text[], touched int DEFAULT 0, "
            "PRIMARY KEY (code, at, amount, day, ok, n))"
        )
        for column in ("body", "doc", "raw", "tags"):
            connection.execute(f"ALTER TABLE docs ALTER COLUMN {column} SET STORAGE EXTERNAL")
        connection.execute(
            "INSERT INTO docs SELECT E'q\"\\\\,{} ' || n, timestamptz '2026-02-03 04:05:06.789+02' + n * interval "
            "'1 us', n / 8.0, date '1999-12-31' + n, n % 2 = 0, n, repeat('é' || n, 3000), "
            "jsonb_build_object('k', repeat('j' || n, 3000)), decode(repeat('00ff', 2000 + n), 'hex'), "
            "array_fill(repeat('t', 50) || n, ARRAY[100]) FROM generate_series(1, 50) n"
        )
        yield connection


@pytest.fixture
def shop(postgres: str, database: psycopg.Connection, tmp_path: Path, stack: Stack) -> Iterator[Shop]:
    running = Shop(postgres, stack, tmp_path / "run", {"public.docs": {}})
    running.transformed = {DOCS: "SELECT * FROM docs"}
    yield running
    running.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One broker and registry for the whole file."""
    running = Stack(tmp_path_factory.mktemp("stack"))
    running.start()
    yield running
    running.kill()


def topic_rows(shop: Shop) -> dict[int, dict[str, Any]]:
    """Rows by `n` as any Kafka client with an Avro library sees them, newest per key."""
    topics = Topics(shop.stack.bootstrap, shop.stack.registry_url)
    with contextlib.closing(topics.registry):
        return {row["n"]: dict(row) for row in topics.table(shop.topic(DOCS)).values()}


def headers_of(shop: Shop) -> list[set[str]]:
    """The header names of every record of the topic."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": shop.stack.bootstrap, "group.id": "headers", "enable.partition.eof": True}
    )
    topic = shop.topic(DOCS)
    consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in range(shop.partitions)])
    found: list[set[str]] = []
    ended = 0
    while ended < shop.partitions:
        message = consumer.poll(30)
        assert message is not None
        if message.error() is not None:
            ended += 1
        else:
            headers: list[tuple[str, Any]] = [*(message.headers() or [])]
            found.append({header[0] for header in headers})
    consumer.close()
    return found


def test_a_cell_that_an_update_left_out_is_in_the_topic_as_the_table_has_it(
    shop: Shop, database: psycopg.Connection
) -> None:
    with shop.running():
        shop.catch_up()
        database.execute("UPDATE docs SET touched = 1 WHERE n <= 40")
        database.execute("UPDATE docs SET n = n + 100, touched = 2 WHERE n <= 3")
        database.execute("UPDATE docs SET doc = NULL, touched = 3 WHERE n = 4")
        shop.catch_up()
    rows = topic_rows(shop)
    for n, body, raw, tags in database.execute("SELECT n, body, raw, tags FROM docs").fetchall():
        assert (rows[n]["body"], rows[n]["raw"], rows[n]["tags"]) == (body, raw, tags)
    for n, doc in database.execute("SELECT n, doc::text FROM docs").fetchall():
        assert rows[n]["doc"] == doc
    assert len(rows) == 50
    assert sum("unchanged" in names for names in headers_of(shop)) == 40 + 3 + 1


def test_a_direct_sink_still_sees_an_unchanged_cell_as_unchanged(
    shop: Shop, database: psycopg.Connection
) -> None:
    with shop.running():
        shop.catch_up()
        database.execute("UPDATE docs SET touched = 1 WHERE n = 7")
        shop.catch_up()
    (change,) = [change for change in shop.changes("public.docs") if change.unchanged]
    assert set(change.unchanged) == {"body", "doc", "raw", "tags"}
    assert all(change.row[name] is None for name in change.unchanged)
    rows = shop.rows("public.docs")
    assert rows[change.key]["body"] == "é7" * 3000


def test_a_row_deleted_before_its_cell_could_be_read_again_is_marked_gone(
    shop: Shop, database: psycopg.Connection
) -> None:
    with shop.running():
        shop.catch_up()
    database.execute("UPDATE docs SET touched = 1 WHERE n IN (5, 6)")
    database.execute("DELETE FROM docs WHERE n = 5")
    with shop.running():
        shop.catch_up()
    assert sum("gone" in names for names in headers_of(shop)) == 1
    rows = topic_rows(shop)
    assert 5 not in rows
    assert rows[6]["body"] == "é6" * 3000


def test_a_column_retyped_since_the_update_stops_the_source(shop: Shop, database: psycopg.Connection) -> None:
    with shop.running():
        shop.catch_up()
    database.execute("UPDATE docs SET touched = 1 WHERE n = 8")
    database.execute("ALTER TABLE docs ALTER COLUMN body TYPE bytea USING convert_to(body, 'UTF8')")
    with (
        pytest.raises(
            SourceDataError, match=r"column body was dropped or retyped since.*REPLICA IDENTITY FULL"
        ),
        shop.running(),
    ):
        shop.catch_up()
