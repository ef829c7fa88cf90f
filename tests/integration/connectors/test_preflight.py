"""Every refusal of the Postgres source names the thing and the repair; the repair, where it is SQL, is run here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tailrace.changes import TableId
from tailrace.connectors.postgres.config import PostgresConfig
from tailrace.connectors.postgres.connection import connect, connect_replication
from tailrace.connectors.postgres.slot import SystemIdentity, create_slot, identify_system
from tailrace.connectors.postgres.snapshot_note import SnapshotNote
from tailrace.connectors.postgres.source import PostgresSource
from tailrace.connectors.source import Finding, LogState, SourceContext, SourceUnavailable
from tailrace.pipeline.embedded_postgres import EmbeddedPostgres

pytestmark = pytest.mark.postgres

ORDERS = TableId("public", "orders")


@pytest.fixture
def database(postgres: str) -> Iterator[psycopg.Connection]:
    """A session of the superuser in a database with one good table."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        yield connection


@pytest.fixture
def role(database: psycopg.Connection) -> Iterator[str]:
    """A role that may log in and nothing else."""
    database.execute("CREATE ROLE reader LOGIN PASSWORD 'secret-of-reader'")
    yield "reader"
    database.execute("DROP OWNED BY reader")
    database.execute("DROP ROLE reader")


def source(dsn: str, tmp_path: Path, *, keyed: bool = False, **options: Any) -> PostgresSource:
    config = {"dsn": dsn, "tables": {"public.orders": {}}, **options}
    context = SourceContext("shop", tmp_path, frozenset([ORDERS]) if keyed else frozenset())
    return PostgresSource(PostgresConfig.model_validate(config), context)


def errors_of(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level == "error"]


def only_error(found: list[Finding]) -> Finding:
    [error] = errors_of(found)
    return error


def assert_nothing_was_created(connection: psycopg.Connection) -> None:
    publications = connection.execute("SELECT pubname FROM pg_publication").fetchall()
    slots = connection.execute(
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
    ).fetchall()
    assert (publications, slots) == ([], [])


def as_role(dsn: str, role: str) -> str:
    return make_conninfo(dsn, user=role, password="secret-of-reader")


def test_a_good_database_has_no_findings_and_nothing_is_created(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    assert source(postgres, tmp_path, keyed=True).check(LogState()) == []
    assert_nothing_was_created(database)


def test_a_wrong_password_is_named_without_being_shown(postgres: str, tmp_path: Path) -> None:
    wrong = make_conninfo(postgres, password="not-the-password")
    error = only_error(source(wrong, tmp_path).check(LogState()))
    assert "password authentication failed" in error.what
    assert "not-the-password" not in str(error)
    assert "dsn" in error.fix


def test_a_missing_database_is_named(postgres: str, tmp_path: Path) -> None:
    error = only_error(source(make_conninfo(postgres, dbname="nowhere"), tmp_path).check(LogState()))
    assert '"nowhere" does not exist' in error.what


def test_an_unknown_host_is_named(tmp_path: Path) -> None:
    error = only_error(source("host=no-such-host.invalid dbname=x", tmp_path).check(LogState()))
    assert "no-such-host.invalid" in error.what


def test_a_server_that_is_down_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="cannot connect to Postgres") as caught:
        source("host=127.0.0.1 port=1 dbname=x password=hidden-one", tmp_path).check(LogState())
    assert "hidden-one" not in str(caught.value)


def test_a_missing_table_is_named_with_the_nearest_one(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    error = only_error(source(postgres, tmp_path, tables={"public.order": {}}).check(LogState()))
    assert "table public.order does not exist" in error.what
    assert "public.orders" in error.fix


def test_a_view_is_no_table(postgres: str, database: psycopg.Connection, tmp_path: Path) -> None:
    database.execute("CREATE VIEW recent AS SELECT * FROM orders")
    error = only_error(source(postgres, tmp_path, tables={"public.recent": {}}).check(LogState()))
    assert "public.recent is not a table" in error.what


def test_an_unlogged_table_is_refused_and_the_sql_repairs_it(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    database.execute("ALTER TABLE orders SET UNLOGGED")
    error = only_error(source(postgres, tmp_path).check(LogState()))
    database.execute(error.fix.split(",")[0].encode())
    assert source(postgres, tmp_path).check(LogState()) == []


def test_a_mirrored_table_needs_a_key(postgres: str, database: psycopg.Connection, tmp_path: Path) -> None:
    database.execute("CREATE TABLE loose (a int)")
    options: dict[str, Any] = {"tables": {"public.loose": {}}}
    found = source(postgres, tmp_path, **options).check(LogState())
    assert [finding.level for finding in found] == ["warning"]
    assert "refuses every UPDATE and DELETE" in found[0].what
    context = SourceContext("shop", tmp_path, frozenset([TableId("public", "loose")]))
    config = PostgresConfig.model_validate({"dsn": postgres, **options})
    error = only_error(PostgresSource(config, context).check(LogState()))
    assert "public.loose has no primary key" in error.what


def test_a_configured_key_must_be_covered_by_the_replica_identity_and_not_null(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE loose (a int, b int)")
    options: dict[str, Any] = {"tables": {"public.loose": {"key": ["a"]}}}
    uncovered = only_error(source(postgres, tmp_path, **options).check(LogState()))
    assert "does not cover the key (a)" in uncovered.what
    database.execute(uncovered.fix.encode())
    nullable = only_error(source(postgres, tmp_path, **options).check(LogState()))
    assert "key column a of public.loose may be null" in nullable.what
    database.execute(nullable.fix.encode())
    assert source(postgres, tmp_path, **options).check(LogState()) == []


@pytest.mark.parametrize("option", ["exclude", "as_text", "key"])
def test_an_option_that_names_no_column_is_refused(
    option: str, postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"tables": {"public.orders": {option: ["nothing"]}}}
    found = errors_of(source(postgres, tmp_path, **options).check(LogState()))
    assert any(f"has no column nothing, named under `{option}`" in error.what for error in found)


def test_excluding_a_key_column_is_refused(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"tables": {"public.orders": {"exclude": ["id"]}}}
    assert "key column id" in only_error(source(postgres, tmp_path, **options).check(LogState())).what


def test_a_role_without_rights_learns_each_of_them_and_the_sql_grants_them(
    postgres: str, database: psycopg.Connection, role: str, tmp_path: Path
) -> None:
    reader = source(as_role(postgres, role), tmp_path)
    found = errors_of(reader.check(LogState()))
    whats = " | ".join(error.what for error in found)
    assert "role reader may not replicate" in whats
    assert "role reader may not read table public.orders" in whats
    assert "publication tailrace_shop must carry public.orders, and role reader does not own" in whats
    assert len(found) == 3
    for error in found:
        database.execute(error.fix.removeprefix("let the owner run: ").encode())
    assert reader.check(LogState()) == []


def test_a_row_security_policy_that_hides_rows_is_refused(
    postgres: str, database: psycopg.Connection, role: str, tmp_path: Path
) -> None:
    database.execute("GRANT SELECT ON orders TO reader")
    database.execute("ALTER ROLE reader REPLICATION")
    database.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    database.execute("CREATE PUBLICATION tailrace_shop FOR TABLE orders")
    reader = source(as_role(postgres, role), tmp_path)
    error = only_error(reader.check(LogState()))
    assert "row security policy hides rows of public.orders" in error.what
    database.execute(error.fix.encode())
    assert reader.check(LogState()) == []


@pytest.mark.parametrize(
    ("publication", "expected"),
    [
        ("FOR TABLE orders WITH (publish = 'insert')", "does not publish update, delete, truncate"),
        ("FOR TABLE orders WHERE (id > 5)", "has a row filter or a column list on public.orders"),
        ("FOR TABLE orders (id)", "has a row filter or a column list on public.orders"),
    ],
)
def test_a_publication_of_another_shape_is_refused_and_the_sql_repairs_it(
    publication: str, expected: str, postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    database.execute(f"CREATE PUBLICATION tailrace_shop {publication}".encode())
    error = only_error(source(postgres, tmp_path).check(LogState()))
    assert expected in error.what
    repair = error.fix.removeprefix("publish the whole table: ").removesuffix(
        ". Leave columns out with `exclude`"
    )
    for statement in repair.split("; "):
        database.execute(statement.encode())
    assert source(postgres, tmp_path).check(LogState()) == []


def test_a_publication_of_leaves_is_refused_for_a_partitioned_table(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    database.execute("CREATE PUBLICATION tailrace_shop FOR TABLE parts")
    options: dict[str, Any] = {"tables": {"public.parts": {}}}
    error = only_error(source(postgres, tmp_path, **options).check(LogState()))
    assert "publishes the partitions of public.parts" in error.what
    database.execute(error.fix.encode())
    assert source(postgres, tmp_path, **options).check(LogState()) == []


def test_a_slot_that_the_log_does_not_know_is_refused_and_the_sql_frees_it(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    database.execute("SELECT pg_create_logical_replication_slot('tailrace_shop', 'pgoutput')")
    error = only_error(source(postgres, tmp_path).check(LogState()))
    assert "knows nothing of it" in error.what
    database.execute(error.fix.partition("start anew with: ")[2].encode())
    assert source(postgres, tmp_path).check(LogState()) == []


@pytest.mark.parametrize("state", ["started", "done"])
def test_a_slot_under_another_name_than_the_log_knows_is_refused(
    postgres: str, database: psycopg.Connection, tmp_path: Path, state: Literal["started", "done"]
) -> None:
    _shop, done = _started(postgres, tmp_path)
    note = SnapshotNote(state, "tailrace_before", done.lsn, done.system, done.tables)
    error = only_error(source(postgres, tmp_path).check(log_state(note)))
    assert "made slot tailrace_before" in error.what
    assert "pg_drop" not in error.fix


def test_a_slot_of_another_database_is_refused(
    postgres: str, postgres_server: EmbeddedPostgres, database: psycopg.Connection, tmp_path: Path
) -> None:
    with psycopg.connect(postgres_server.dsn, autocommit=True) as elsewhere:
        elsewhere.execute("SELECT pg_create_logical_replication_slot('taken', 'pgoutput')")
        try:
            error = only_error(source(postgres, tmp_path, slot="taken").check(LogState()))
            assert "slot taken is of plugin pgoutput in database postgres" in error.what
        finally:
            elsewhere.execute("SELECT pg_drop_replication_slot('taken')")


def _started(postgres: str, tmp_path: Path) -> tuple[PostgresSource, SnapshotNote]:
    """A source with a slot, and the note of a finished snapshot as the log would hold it."""
    shop = source(postgres, tmp_path)
    config = PostgresConfig.model_validate({"dsn": postgres, "tables": {"public.orders": {}}})
    with connect(config) as connection, connect_replication(config) as replication:
        connection.execute("CREATE PUBLICATION tailrace_shop FOR TABLE public.orders")
        note = SnapshotNote.started("tailrace_shop", identify_system(replication), [ORDERS])
        slot = create_slot(connection, replication, "tailrace_shop")
    return shop, note.done(slot.consistent_point)


def log_state(note: SnapshotNote, position: int | None = None) -> LogState:
    kept = note.to_note()
    return LogState(note.lsn if position is None else position, {kept.key: kept.value})


def test_a_log_and_a_slot_that_fit_pass(postgres: str, database: psycopg.Connection, tmp_path: Path) -> None:
    shop, note = _started(postgres, tmp_path)
    assert shop.check(log_state(note)) == []


def test_a_slot_ahead_of_the_log_is_refused(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    shop, note = _started(postgres, tmp_path)
    error = only_error(shop.check(log_state(note, note.lsn - 1)))
    assert error.what.startswith("SLOT_AHEAD: slot tailrace_shop stands at ")


def test_a_slot_that_is_gone_while_the_log_has_a_position_is_refused(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    shop, note = _started(postgres, tmp_path)
    database.execute("SELECT pg_drop_replication_slot('tailrace_shop')")
    error = only_error(shop.check(log_state(note)))
    assert "slot tailrace_shop is gone, but the log stands at" in error.what


def test_another_cluster_and_another_timeline_are_refused(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    shop, note = _started(postgres, tmp_path)
    elsewhere = SnapshotNote("done", note.slot, note.lsn, SystemIdentity("1", 1), note.tables)
    assert "another Postgres cluster" in only_error(shop.check(log_state(elsewhere))).what
    system = SystemIdentity(note.system.system_id, note.system.timeline + 1)
    failed_over = SnapshotNote("done", note.slot, note.lsn, system, note.tables)
    assert "restored from a backup or failed over" in only_error(shop.check(log_state(failed_over))).what


def test_a_table_added_after_the_snapshot_is_refused(
    postgres: str, database: psycopg.Connection, tmp_path: Path
) -> None:
    _, note = _started(postgres, tmp_path)
    database.execute("CREATE TABLE later (id int PRIMARY KEY)")
    both = source(postgres, tmp_path, tables={"public.orders": {}, "public.later": {}})
    assert "public.later came into `tables` after" in only_error(both.check(log_state(note))).what


def test_a_slot_held_by_another_process_is_refused_by_its_pid(
    postgres: str, database: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.connectors.postgres.slot._RELEASE_PATIENCE_S", 0.0)
    shop, note = _started(postgres, tmp_path)
    config = PostgresConfig.model_validate({"dsn": postgres, "tables": {"public.orders": {}}})
    twin = connect_replication(config)
    twin.pgconn.exec_(
        b"START_REPLICATION SLOT tailrace_shop LOGICAL 0/0 "
        b"(proto_version '1', publication_names 'tailrace_shop')"
    )
    pid = twin.pgconn.backend_pid
    error = only_error(shop.check(log_state(note)))
    twin.close()
    assert f"slot tailrace_shop is held by pid {pid} (application tailrace" in error.what
    assert f"pg_terminate_backend({pid})" in error.fix


@pytest.fixture(scope="module")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that cannot decode, with room for one slot."""
    settings = {"wal_level": "replica", "max_replication_slots": "1"}
    folder = tmp_path_factory.mktemp("bare") / "server"
    with EmbeddedPostgres(folder, fsync=False, settings=settings) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        yield server


def test_wal_level_replica_is_refused(bare_server: EmbeddedPostgres, tmp_path: Path) -> None:
    error = only_error(source(bare_server.dsn, tmp_path).check(LogState()))
    assert "wal_level is replica" in error.what
    assert "ALTER SYSTEM SET wal_level = 'logical'" in error.fix


def test_a_server_with_no_free_slot_is_refused(bare_server: EmbeddedPostgres, tmp_path: Path) -> None:
    with psycopg.connect(bare_server.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_create_physical_replication_slot('other')")
        try:
            found = errors_of(source(bare_server.dsn, tmp_path).check(LogState()))
        finally:
            connection.execute("SELECT pg_drop_replication_slot('other')")
    assert any("all 1 replication slots of the server are in use" in error.what for error in found)


def test_a_lost_slot_is_refused(tmp_path: Path) -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    with (
        EmbeddedPostgres(tmp_path / "small", fsync=False, settings=settings) as server,
        psycopg.connect(server.dsn, autocommit=True) as connection,
    ):
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        shop, note = _started(server.dsn, tmp_path)
        for _ in range(3):
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 9000000))")
            connection.execute("CHECKPOINT")
        error = only_error(shop.check(log_state(note)))
    assert "slot tailrace_shop is lost" in error.what


def test_messages_never_show_the_password(
    postgres: str, database: psycopg.Connection, role: str, tmp_path: Path
) -> None:
    secret = str(conninfo_to_dict(postgres)["password"])
    shop = source(postgres, tmp_path, tables={"public.nope": {}})
    said = " ".join(str(finding) for finding in shop.check(LogState()))
    config = PostgresConfig.model_validate({"dsn": postgres, "tables": {"public.orders": {}}})
    assert secret not in said + repr(config) + str(config)
    assert sql.Literal(secret).as_string() not in said
