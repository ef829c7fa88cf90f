"""The embedded server: what it promises to the demo and to every test that needs a real Postgres."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tailrace.changes import ConfigError, TailraceError
from tailrace.pipeline.embedded_postgres import EmbeddedPostgres

pytestmark = pytest.mark.postgres


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder whose private stand-in under /tmp, made when root asks, is removed too."""
    yield tmp_path / "home"
    stand_in = EmbeddedPostgres(tmp_path / "home").data_dir
    shutil.rmtree(stand_in)


def ask(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


@pytest.mark.parametrize("version", [16, 18])
def test_each_version_of_the_wheel_starts_ready_for_logical_decoding(home: Path, version: int) -> None:
    with EmbeddedPostgres(home, version=version, fsync=False) as server:
        assert str(ask(server, "SHOW server_version")).startswith(str(version))
        assert ask(server, "SHOW wal_level") == "logical"
        assert ask(server, "SHOW listen_addresses") == "127.0.0.1"


def test_a_wrong_password_is_refused(home: Path) -> None:
    with EmbeddedPostgres(home, fsync=False) as server:
        bad = f"postgresql://postgres:wrong@127.0.0.1:{server.port}/postgres"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(bad)


def test_committed_rows_survive_a_kill_and_the_port_stays(home: Path) -> None:
    with EmbeddedPostgres(home) as server:
        ask(server, "CREATE TABLE t AS SELECT 7 AS a")
        port, pid = server.port, server.pid
        server.kill()
        assert server.pid is None
        server.start()
        assert (server.port, ask(server, "SELECT a FROM t")) == (port, 7)
        assert server.pid != pid


def test_a_restart_applies_changed_settings(home: Path) -> None:
    with EmbeddedPostgres(home, fsync=False, settings={"max_wal_senders": "5"}) as server:
        assert ask(server, "SHOW max_wal_senders") == "5"
        server.restart(settings={"max_wal_senders": "7"})
        assert ask(server, "SHOW max_wal_senders") == "7"


def test_a_server_left_behind_by_a_killed_owner_is_replaced(home: Path) -> None:
    first = EmbeddedPostgres(home, fsync=False)
    first.start()
    try:
        ask(first, "CREATE TABLE t AS SELECT 1 AS a")
        with EmbeddedPostgres(home, fsync=False) as second:
            assert first.pid is None
            assert ask(second, "SELECT a FROM t") == 1
    finally:
        first.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give the server to another user")
def test_root_changes_no_mode_and_no_owner_outside_the_server(tmp_path: Path) -> None:
    parent = tmp_path / "private"
    parent.mkdir(mode=0o700)
    before = parent.stat()
    with EmbeddedPostgres(parent / "data", fsync=False) as server:
        assert not server.data_dir.is_relative_to(tmp_path)
        assert server.data_dir.stat().st_mode & 0o777 == 0o700
        assert ask(server, "SELECT 1") == 1
    shutil.rmtree(server.data_dir)
    after = parent.stat()
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)


def test_a_port_in_use_is_an_error_with_the_servers_words(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedPostgres(home, taken.getsockname()[1], fsync=False, start_timeout_s=0.5)
        with pytest.raises(TailraceError, match="Address already in use"):
            server.start()
        assert server.pid is None


def test_an_unknown_version_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Postgres 9"):
        EmbeddedPostgres(tmp_path, version=9)


def test_the_fixture_gives_an_empty_database(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 2200").fetchone() == (
            0,
        )
