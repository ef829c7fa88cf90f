"""Bad input, as a user meets it: one paragraph that names the thing and the next step, and nothing half-made."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.integration.pipeline.command import Result, Shell, execute, paragraph_of, wait_until

from tailrace.pipeline.embedded_postgres import EmbeddedPostgres

pytestmark = pytest.mark.postgres

PIPELINE = """\
version: 1
name: shop
source:
  type: postgres
  dsn: ${env:PG_DSN}
  tables: [public.orders]
sinks:
  lake:
    type: delta
    path: ./lake/{table}
"""
SLOT = PUBLICATION = "tailrace_shop"
ORDERS = "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2) NOT NULL, note text)"


@pytest.fixture
def shell(postgres: str, tmp_path: Path) -> Shell:
    """A folder and an empty database with one table."""
    execute(postgres, ORDERS, "INSERT INTO orders VALUES (1, 1.50, 'a'), (2, 2.50, NULL)")
    return Shell(tmp_path, postgres)


def refused(shell: Shell, result: Result, code: int, *words: str) -> str:
    """Check the exit code and the paragraph; no secret may stand anywhere that a person reads."""
    told = paragraph_of(result)
    assert result.code == code, result.err
    for word in words:
        assert word in told
    password = str(urlsplit(shell.dsn).password)
    written = [path.read_text() for path in shell.folder.glob("run/**/*.log") if path.parent.name == "logs"]
    for text in (result.out, result.err, *written):
        assert password not in text
        assert "Traceback" not in text
    return told


def made_in(dsn: str) -> list[str]:
    """Slots and publications of the pipeline."""
    with psycopg.connect(dsn) as connection:
        return [
            str(row[0])
            for row in connection.execute(
                "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name = %s "
                "UNION ALL SELECT pubname::text FROM pg_publication",
                (SLOT,),
            )
        ]


def nothing_made(shell: Shell, dsn: str | None = None) -> None:
    """Neither in the database nor on the disk."""
    assert made_in(dsn or shell.dsn) == []
    assert not (shell.folder / "lake").exists()
    assert not shell.data_dir.exists()


def with_dsn(shell: Shell, old: str, new: str) -> Shell:
    assert old in shell.dsn
    return Shell(shell.folder, shell.dsn.replace(old, new))


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_host_that_does_not_exist_is_named(shell: Shell) -> None:
    lost = with_dsn(shell, "127.0.0.1", "no-such-host.invalid")
    refused(lost, lost.run(lost.write(PIPELINE)), 2, "no-such-host.invalid", "check the host in `dsn`")
    nothing_made(shell)


def test_a_port_without_a_server_is_named(shell: Shell) -> None:
    port = urlsplit(shell.dsn).port
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        lost = with_dsn(shell, f":{port}/", f":{free.getsockname()[1]}/")
        told = refused(
            lost, lost.run(lost.write(PIPELINE)), 1, "Connection refused", "check that the server runs"
        )
        assert str(free.getsockname()[1]) in told
    nothing_made(shell)


def test_a_wrong_password_is_refused_without_showing_it(shell: Shell) -> None:
    wrong = with_dsn(shell, str(urlsplit(shell.dsn).password), "not-the-password")
    told = refused(
        wrong,
        wrong.run(wrong.write(PIPELINE)),
        2,
        "password authentication failed",
        "check user and password",
    )
    assert "not-the-password" not in told
    nothing_made(shell)


def test_a_database_that_does_not_exist_is_named(shell: Shell) -> None:
    name = urlsplit(shell.dsn).path[1:]
    lost = with_dsn(shell, f"/{name}", "/no_such_database")
    refused(lost, lost.run(lost.write(PIPELINE)), 2, "no_such_database", "check database and user")
    nothing_made(shell)


def test_a_server_without_logical_wal_is_refused_with_the_statement_that_repairs_it(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "server", fsync=False, settings={"wal_level": "replica"}) as server:
        shell = Shell(tmp_path, server.dsn)
        execute(server.dsn, ORDERS)
        result = shell.run(shell.write(PIPELINE))
        refused(shell, result, 2, "wal_level is replica", "ALTER SYSTEM SET wal_level = 'logical'")
        nothing_made(shell)
    shutil.rmtree(server.data_dir, ignore_errors=True)


def test_a_missing_table_is_named_with_the_nearest_one(shell: Shell) -> None:
    file = shell.write(PIPELINE.replace("public.orders", "public.ordres"))
    refused(shell, shell.run(file), 2, "public.ordres does not exist", "did you mean public.orders?")
    nothing_made(shell)


def test_a_table_without_a_key_cannot_be_mirrored(shell: Shell) -> None:
    execute(shell.dsn, "CREATE TABLE events (at timestamptz, what text)")
    file = shell.write(PIPELINE.replace("[public.orders]", "[public.orders, public.events]"))
    refused(shell, shell.run(file), 2, "public.events has no primary key", "ADD PRIMARY KEY", "append mode")
    nothing_made(shell)


def test_every_finding_of_the_source_is_told_at_once(shell: Shell) -> None:
    execute(shell.dsn, "CREATE TABLE events (at timestamptz, what text)")
    file = shell.write(PIPELINE.replace("public.orders", "public.events, public.nowhere"))
    refused(
        shell, shell.run(file), 2, "2 things keep the source from starting", "public.events", "public.nowhere"
    )


def test_a_role_without_the_replication_right_is_refused(shell: Shell) -> None:
    execute(
        shell.dsn,
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN PASSWORD 'reader'",
        "ALTER TABLE orders OWNER TO reader",
    )
    user = urlsplit(shell.dsn).netloc.rpartition("@")[0]
    reader = with_dsn(shell, user, "reader:reader")
    try:
        told = paragraph_of(reader.run(reader.write(PIPELINE)))
        assert "role reader may not replicate" in told
        assert 'ALTER ROLE "reader" REPLICATION' in told
        nothing_made(reader, shell.dsn)
    finally:
        execute(shell.dsn, "REASSIGN OWNED BY reader TO postgres", "DROP OWNED BY reader", "DROP ROLE reader")


def test_a_file_in_the_way_of_the_lake_is_told_before_the_slot_is_made(shell: Shell) -> None:
    (shell.folder / "lake").write_text("in the way")
    result = shell.run(shell.write(PIPELINE))
    refused(shell, result, 2, "sink 'lake'", f"{shell.folder}/lake is a file", "choose a folder")
    assert made_in(shell.dsn) == []
    assert not shell.data_dir.exists()


def test_a_file_in_the_way_of_the_warehouse_is_told_before_the_slot_is_made(shell: Shell) -> None:
    (shell.folder / "lake").write_text("in the way")
    file = shell.write(
        PIPELINE.replace("type: delta", "type: iceberg").replace(
            "path: ./lake/{table}", "warehouse: ./lake/deep"
        )
    )
    refused(shell, shell.run(file), 2, "sink 'lake'", f"{shell.folder}/lake is a file")
    assert made_in(shell.dsn) == []


def test_a_data_directory_that_cannot_be_made_is_named(shell: Shell) -> None:
    shell.data_dir.write_text("in the way")
    refused(shell, shell.run(shell.write(PIPELINE)), 2, str(shell.data_dir), "--data-dir")
    assert made_in(shell.dsn) == []


@pytest.mark.parametrize("service", ["broker", "registry"])
def test_a_port_in_use_is_named(shell: Shell, service: str) -> None:
    with taken_port() as port:
        file = shell.write(f"{PIPELINE}{service}:\n  listen: 127.0.0.1:{port}\n")
        refused(shell, shell.run(file), 1, f"127.0.0.1:{port}", "port")
    assert made_in(shell.dsn) == []
    assert not (shell.folder / "lake").exists()


def test_an_address_that_is_none_is_a_configuration_error(shell: Shell) -> None:
    file = shell.write(f"{PIPELINE}broker:\n  listen: localhost\n")
    result = shell.run(file)
    assert result.code == 2
    assert f"{file}:12:3: E203 broker.listen: not an address; write host:port" in result.err
    nothing_made(shell)


def test_an_unknown_part_is_answered_with_the_known_ones(shell: Shell) -> None:
    result = shell.run(shell.write(PIPELINE), "--only", "sink.lak")
    refused(shell, result, 2, "no part 'sink.lak'", "broker, source, sink.lake")
    nothing_made(shell)


YAML_MISTAKES = """\
version: 1
nmae: shop
source:
  type: postgres
  dsn: ${env:PG_DSN}
  tables: [public.orders]
sinks:
  lake:
    type: dleta
    path: ./lake/{table}
    from: public.order
"""


def test_mistakes_in_the_file_are_told_all_at_once_with_place_caret_and_fix(shell: Shell) -> None:
    file = shell.write(YAML_MISTAKES)
    for arguments in (["run", file, "--data-dir", shell.data_dir], ["validate", file], ["plan", file]):
        result = shell.tailrace(*arguments)
        assert result.code == 2
        assert "Traceback" not in result.err
        lines = result.err.splitlines()
        place = next(n for n, line in enumerate(lines) if f"{file}:2:1: E202" in line)
        assert lines[place + 1 : place + 4] == ["    nmae: shop", "    ^", "    fix: did you mean 'name'?"]
        assert f"{file}:9:5: E401" in result.err
        assert result.err.rstrip().endswith(f"problems in {file}")
    nothing_made(shell)


def test_a_file_that_does_not_exist_is_named(shell: Shell) -> None:
    refused(shell, shell.run(shell.folder / "nowhere.yaml"), 2, "nowhere.yaml", "give the path")


def test_validate_prints_problems_as_json(shell: Shell) -> None:
    good, bad = shell.write(PIPELINE, "good.yaml"), shell.write(YAML_MISTAKES, "bad.yaml")
    result = shell.tailrace("validate", "--json", good, bad)
    assert result.code == 2
    problems = result.json()
    assert {"code", "file", "line", "column", "message", "fix"} == set(problems[0])
    assert {problem["file"] for problem in problems} == {str(bad)}
    result = shell.tailrace("validate", "--json", good)
    assert (result.code, result.json()) == (0, [])


def test_plan_prints_the_columns_and_what_stands_in_the_way_as_json(shell: Shell) -> None:
    result = shell.tailrace("plan", "--json", shell.write(PIPELINE))
    assert result.code == 0
    plan = result.json()
    assert plan["parts"] == ["broker", "source", "sink.lake"]
    assert plan["tables"] == {"public.orders": "raw.shop.orders"}
    assert plan["sinks"] == {
        "lake": {"type": "delta", "mode": "mirror", "tables": {"raw.shop.orders": "orders"}}
    }
    orders = plan["columns"]["public.orders"]
    assert orders["key"] == ["id"]
    assert orders["columns"]["amount"] == {
        "source_type": "numeric(12,2)",
        "type": "decimal128(12, 2)",
        "nullable": False,
    }
    assert plan["findings"] == []
    (shell.folder / "lake").write_text("in the way")
    result = shell.tailrace(
        "plan", "--json", shell.write(PIPELINE.replace("public.orders", "public.nowhere"))
    )
    assert result.code == 1
    findings = result.json()["findings"]
    assert [finding["level"] for finding in findings] == ["error", "error"]
    assert all(finding["what"] and finding["fix"] for finding in findings)
    assert str(urlsplit(shell.dsn).password) not in result.out
    assert made_in(shell.dsn) == []


def test_a_slot_held_by_another_process_is_told_with_its_holder(shell: Shell) -> None:
    options = {"replication": "database", "application_name": "thief"}
    with closing(psycopg.connect(make_conninfo(shell.dsn, **options), autocommit=True)) as holder:
        execute(shell.dsn, "CREATE PUBLICATION theirs FOR TABLE orders")
        pgconn = holder.pgconn
        pgconn.exec_(f"CREATE_REPLICATION_SLOT {SLOT} LOGICAL pgoutput".encode())
        stream_options = "(proto_version '1', publication_names 'theirs')"
        pgconn.send_query(f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 {stream_options}".encode())
        pgconn.get_result()
        result = shell.run(shell.write(PIPELINE))
        refused(shell, result, 2, SLOT, f"pid {pgconn.backend_pid}", "thief", "pg_terminate_backend")
        assert not shell.data_dir.exists()
        assert not (shell.folder / "lake").exists()
        assert made_in(shell.dsn) == [SLOT, "theirs"]


@pytest.mark.timeout(240)
def test_a_second_run_is_refused_and_a_slot_ahead_of_the_log_too(shell: Shell) -> None:
    file = shell.write(PIPELINE)
    with shell.running(file):
        table = shell.folder / "lake" / "orders" / "_delta_log"
        wait_until(table.exists, "the table")
        refused(shell, shell.run(file), 1, f"already runs on {shell.data_dir}", "--data-dir")
        assert shell.status(file)["running"]

    execute(
        shell.dsn,
        "INSERT INTO orders VALUES (3, 3, 'read by somebody else')",
        f"SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())",
    )
    told = refused(shell, shell.run(file), 2, "SLOT_AHEAD", SLOT, "new data directory")
    assert "read by somebody else" not in told

    assert SLOT in made_in(shell.dsn)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["broker", "lake"])
def test_a_full_disk_stops_the_run_with_the_path_and_nothing_is_lost(shell: Shell, what: str) -> None:
    execute(
        shell.dsn,
        "INSERT INTO orders SELECT i, i, (SELECT string_agg(md5(i::text || k), '') FROM generate_series(1, 8) k) "
        "FROM generate_series(10, 30000) i",
    )
    file = shell.write(PIPELINE)
    folder = shell.data_dir if what == "broker" else shell.folder / "lake"
    with small_disk(folder, 3):
        told = refused(shell, shell.run(file), 1, "No space left on device", str(folder))
        assert "room" in told
        resize(folder, 100)
        assert shell.run(file, "--until-caught-up").code == 0
        with shell.running(file) as process:
            wait_until((shell.data_dir / "endpoints.json").exists, "the broker")
            result = shell.tailrace("verify", file, "--data-dir", shell.data_dir, "--json")
            assert (result.code, result.json()["equal"]) == (0, True)
            assert result.json()["tables"][0]["rows"] == 29993
            assert process.poll() is None


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of a few megabytes in a folder."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("mounting a small file system needs more rights than this user has")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def resize(folder: Path, megabytes: int) -> None:
    """Give a small disk more room."""
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", folder], check=True)
