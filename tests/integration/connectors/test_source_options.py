"""Tables of every shape, and every option of the Postgres source, from a real server into real topics."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fixtures.registry import Stack
from tests.integration.connectors import mirror
from tests.integration.connectors.shop import Shop

from tailrace.changes import OP_READ, SourceDataError, TailraceError

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
        yield connection


class Shops:
    """Makes shops on this test's database and closes them."""

    def __init__(self, dsn: str, stack: Stack, folder: Path) -> None:
        self._dsn, self._stack, self._folder = dsn, stack, folder
        self.made: list[Shop] = []

    def __call__(self, **tables: dict[str, Any]) -> Shop:
        named = {f"public.{name}": options for name, options in tables.items()}
        self.made.append(Shop(self._dsn, self._stack, self._folder / "run", named))
        return self.made[-1]


@pytest.fixture
def make_shop(postgres: str, stack: Stack, tmp_path: Path) -> Iterator[Shops]:
    shops = Shops(postgres, stack, tmp_path)
    yield shops
    for shop in shops.made:
        shop.close()


def test_a_table_is_copied_in_ranges_of_pages_by_several_workers(
    make_shop: Shops, database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.connectors.postgres.snapshot._CHUNK_PAGES", 3)
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO t SELECT n, repeat('v', 100) FROM generate_series(1, 5000) n")
    database.execute("DELETE FROM t WHERE id BETWEEN 1000 AND 1500")
    shop = make_shop(t={})
    shop.options["snapshot"] = {"workers": 3}
    with shop.running():
        shop.catch_up()
    shop.assert_equal("public.t")


def test_a_partitioned_table_is_one_table(make_shop: Shops, database: psycopg.Connection) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100)")
    database.execute("CREATE TABLE t2 (v text, id int NOT NULL)")
    database.execute("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (100) TO (200)")
    database.execute("INSERT INTO t SELECT n, 'v' || n FROM generate_series(0, 199) n")
    shop = make_shop(t={})
    with shop.running():
        shop.catch_up()
        database.execute("DELETE FROM t WHERE id BETWEEN 110 AND 120")
        database.execute("UPDATE t SET v = 'moved', id = id + 50 WHERE id BETWEEN 60 AND 70")
        database.execute("DELETE FROM t WHERE id > 190")
        database.execute("INSERT INTO t VALUES (195, 'again')")
        shop.catch_up()
    shop.assert_equal("public.t")


def test_replica_identity_full_gives_every_old_value(make_shop: Shops, database: psycopg.Connection) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, body text, n int)")
    database.execute("ALTER TABLE t ALTER COLUMN body SET STORAGE EXTERNAL, REPLICA IDENTITY FULL")
    database.execute("INSERT INTO t SELECT n, repeat('b', 5000), n FROM generate_series(1, 10) n")
    shop = make_shop(t={})
    with shop.running():
        shop.catch_up()
        database.execute("UPDATE t SET n = -n")
        database.execute("UPDATE t SET id = id + 100 WHERE id > 5")
        database.execute("DELETE FROM t WHERE id < 3")
        shop.catch_up()
    assert not [change for change in shop.changes("public.t") if change.unchanged]
    shop.assert_equal("public.t")


def test_a_configured_key_is_the_record_key(make_shop: Shops, database: psycopg.Connection) -> None:
    database.execute("CREATE TABLE t (id int NOT NULL, v text)")
    database.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    database.execute("INSERT INTO t SELECT n, 'v' FROM generate_series(1, 10) n")
    shop = make_shop(t={"key": ["id"]})
    with shop.running():
        shop.catch_up()
        database.execute("UPDATE t SET v = 'w' WHERE id < 5")
        database.execute("DELETE FROM t WHERE id = 7")
        shop.catch_up()
    shop.assert_equal("public.t")


def test_excluded_columns_never_reach_the_log(
    make_shop: Shops, database: psycopg.Connection, stack: Stack
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, secret text, v text)")
    database.execute("INSERT INTO t VALUES (1, 'canary-in-snapshot', 'a')")
    shop = make_shop(t={"exclude": ["secret"]})
    with shop.running():
        shop.catch_up()
        database.execute("INSERT INTO t VALUES (2, 'canary-in-stream', 'b')")
        database.execute("UPDATE t SET secret = 'canary-in-update' WHERE id = 1")
        shop.catch_up()
    assert shop.rows("public.t") == {(1,): {"id": 1, "v": "a"}, (2,): {"id": 2, "v": "b"}}
    for file in stack.data_dir.rglob("*.log"):
        assert b"canary-in" not in file.read_bytes()


def test_as_text_carries_what_the_type_cannot_hold(make_shop: Shops, database: psycopg.Connection) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n numeric(10, 2))")
    database.execute("INSERT INTO t VALUES (1, 1.50), (2, 'NaN')")
    shop = make_shop(t={"as_text": ["n"]})
    with shop.running():
        shop.catch_up()
        database.execute("INSERT INTO t VALUES (3, 'NaN'), (4, 12.25)")
        shop.catch_up()
    values = {key: row["n"] for (key,), row in shop.rows("public.t").items()}
    assert values == {1: "1.50", 2: "NaN", 3: "NaN", 4: "12.25"}


@pytest.mark.parametrize("when", ["snapshot", "stream"])
def test_a_value_that_cannot_be_carried_stops_the_source_and_names_the_column(
    when: str, make_shop: Shops, database: psycopg.Connection
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, n numeric(10, 2))")
    shop = make_shop(t={})
    if when == "snapshot":
        database.execute("INSERT INTO t VALUES (1, 'NaN')")
    with pytest.raises(SourceDataError, match=r"public\.t.*n") as caught, shop.running():
        if when == "stream":
            shop.catch_up()
            database.execute("INSERT INTO t VALUES (1, 'NaN')")
        shop.catch_up()
    assert "as_text" in caught.value.fix
    assert shop.changes("public.t") == []


def test_snapshot_never_begins_with_changes_only(make_shop: Shops, database: psycopg.Connection) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO t VALUES (1, 'before')")
    shop = make_shop(t={})
    shop.options["snapshot"] = {"mode": "never"}
    with shop.running():
        shop.catch_up()
        database.execute("INSERT INTO t VALUES (2, 'after')")
        shop.catch_up()
    assert list(shop.rows("public.t")) == [(2,)]


def test_slot_and_publication_names_are_obeyed(make_shop: Shops, database: psycopg.Connection) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    shop = make_shop(t={})
    shop.options |= {"slot": f"slot_of_{shop.name}", "publication": 'Quoted "name"'}
    with shop.running():
        shop.catch_up()
        database.execute("INSERT INTO t VALUES (1)")
        shop.catch_up()
        slots = database.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
        ).fetchall()
        assert slots == [(f"slot_of_{shop.name}",)]
        assert database.execute("SELECT pubname FROM pg_publication").fetchall() == [('Quoted "name"',)]
    shop.assert_equal("public.t")


def test_a_type_without_binary_form_that_appears_in_the_stream_is_read_as_text(
    make_shop: Shops, database: psycopg.Connection
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    shop = make_shop(t={})
    with shop.running():
        shop.catch_up()
        with database.transaction():
            database.execute("INSERT INTO t VALUES (1, 'a')")
            database.execute("ALTER TABLE t ADD COLUMN place point")
            database.execute("INSERT INTO t VALUES (2, 'b', '(1,2)')")
        database.execute("ALTER TABLE t DROP COLUMN place")
        database.execute("INSERT INTO t VALUES (3, 'c')")
        shop.catch_up()
    rows = {key: row.get("place") for (key,), row in shop.rows("public.t").items()}
    assert rows == {1: None, 2: "(1,2)", 3: None}


def test_a_column_added_with_a_default_arrives_with_a_warning_how_to_fill_old_rows(
    make_shop: Shops, database: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO t VALUES (1, 'a')")
    shop = make_shop(t={})
    with shop.running():
        shop.catch_up()
        database.execute("ALTER TABLE t ADD COLUMN n int NOT NULL DEFAULT 5")
        database.execute("INSERT INTO t VALUES (2, 'b')")
        shop.catch_up()
    with shop.running():
        database.execute("ALTER TABLE t ALTER COLUMN v SET NOT NULL")
        database.execute("INSERT INTO t VALUES (3, 'c')")
        shop.catch_up()
    rows = shop.rows("public.t")
    assert rows[2,] == {"id": 2, "v": "b", "n": 5}
    assert rows[3,] == {"id": 3, "v": "c", "n": 5}
    assert 'UPDATE "public"."t" SET "n" = "n"' in caplog.text


def test_a_dropped_and_a_renamed_column_arrive_with_the_rows_behind_them(
    make_shop: Shops, database: psycopg.Connection
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
    shop = make_shop(t={})
    with shop.running():
        shop.catch_up()
        database.execute("INSERT INTO t VALUES (1, 'a', 'b')")
        database.execute("ALTER TABLE t DROP COLUMN a")
        database.execute("ALTER TABLE t RENAME COLUMN b TO c")
        database.execute("INSERT INTO t VALUES (2, 'c')")
        shop.catch_up()
    assert shop.rows("public.t") == {(1,): {"id": 1, "a": "a", "b": "b"}, (2,): {"id": 2, "c": "c"}}


def test_tables_that_are_not_asked_for_do_not_reach_the_log(
    make_shop: Shops, database: psycopg.Connection
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute("CREATE TABLE other (id int PRIMARY KEY)")
    database.execute("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)")
    shop = make_shop(t={})
    shop.options["publication"] = "everything"
    with shop.running():
        shop.catch_up()
        with database.transaction():
            database.execute("INSERT INTO other VALUES (1)")
            database.execute("INSERT INTO t VALUES (1)")
            database.execute("TRUNCATE other")
        shop.catch_up()
    assert [change.op == OP_READ for change in shop.changes("public.t")] == [False]
    assert mirror.read_truncates(shop.client, shop.control) == []


def test_a_topic_that_changes_its_name_is_refused(
    make_shop: Shops, database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    shop = make_shop(t={})
    with shop.running():
        shop.catch_up()
    monkeypatch.setattr(shop, "topic", lambda table: f"elsewhere.{table.name}")
    with pytest.raises(TailraceError, match=rf"raw\.{shop.name}\.t until now"), shop.running():
        shop.catch_up()
