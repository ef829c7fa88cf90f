"""The smallest pipeline, Postgres -> broker -> Delta, run and looked at as a user does."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.pipeline.command import Shell, execute, paragraph_of, wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[3] / "examples" / "minimal" / "pipeline.yaml"
TABLES = (
    "CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL)",
    "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2) NOT NULL, note text, at timestamptz)",
    "INSERT INTO customers SELECT i, 'Customer ' || i FROM generate_series(1, 20) i",
    "INSERT INTO orders SELECT i, i * 1.25, 'note ' || i, now() FROM generate_series(1, 500) i",
)
PARTS = ["broker", "source", "sink.lake"]


@pytest.fixture
def shell(postgres: str, tmp_path: Path) -> Shell:
    execute(postgres, *TABLES)
    return Shell(tmp_path, postgres)


@pytest.fixture
def file(shell: Shell) -> Path:
    return shell.write(EXAMPLE.read_text() + "broker: {config: {offsets.topic.num.partitions: 3}}\n")


def orders(shell: Shell) -> pa.Table:
    """The table as deltalake reads it."""
    table = deltalake.DeltaTable(str(shell.folder / "lake" / "orders"))
    rows = pa.table(deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t ORDER BY id"))
    types = [pa.string() if pa.types.is_string_view(field.type) else field.type for field in rows.schema]
    return rows.cast(pa.schema(list(zip(rows.column_names, types, strict=True))))


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return found


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def rows_of(shell: Shell) -> int:
    """-1 while the table has no version."""
    if not any((shell.folder / "lake" / "orders" / "_delta_log").glob("*.json")):
        return -1
    return orders(shell).num_rows


def verify(shell: Shell, file: Path) -> tuple[int, dict[str, Any]]:
    result = shell.tailrace("verify", file, "--data-dir", shell.data_dir, "--json")
    assert result.code in (0, 3), result.err
    return result.code, result.json()


@pytest.fixture
def running(shell: Shell, file: Path) -> Iterator["subprocess.Popen[str]"]:
    """The pipeline with its first rows in the table."""
    with shell.running(file) as process:
        wait_until(lambda: process.poll() is not None or rows_of(shell) == 500, "the snapshot")
        assert process.poll() is None
        yield process


def test_a_run_until_caught_up_ends_with_equal_tables_and_no_java(shell: Shell, file: Path) -> None:
    with shell.running(file, "--until-caught-up") as process:
        seen: set[str] = set()
        while process.poll() is None:
            for child in family(process):
                try:
                    seen.add(child.name())
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.2)
        assert process.returncode == 0
    assert seen
    assert not [name for name in seen if "java" in name]
    assert orders(shell).column("id").to_pylist() == list(range(1, 501))
    assert sorted(path.name for path in (shell.data_dir / "logs").iterdir()) == [
        f"{p}.log" for p in sorted(PARTS)
    ]
    assert shell.tailrace("status", file, "--data-dir", shell.data_dir).code == 1
    stopped = shell.tailrace("verify", file, "--data-dir", shell.data_dir)
    assert stopped.code == 1
    assert "does not run" in stopped.err


def test_what_a_running_pipeline_says_of_itself(
    shell: Shell, file: Path, running: "subprocess.Popen[str]"
) -> None:
    caught_up = wait_until(
        lambda: (
            (found := shell.status(file))
            and all(t["state"] == "caught_up" for t in found["tables"])
            and found
        ),
        "caught up",
    )
    assert caught_up["running"] is True
    assert [part["part"] for part in caught_up["parts"]] == PARTS
    for part in caught_up["parts"]:
        assert set(part) == {
            "part", "state", "alive", "pid", "cpu_seconds", "max_rss_bytes", "age_s", "error",
        }  # fmt: skip
        assert part["alive"] is True
        assert part["pid"] in [child.pid for child in family(running)]
        assert part["cpu_seconds"] > 0
        assert part["error"] is None
    assert caught_up["source"]["confirmed"]
    assert {table["table"] for table in caught_up["tables"]} == {"orders", "customers"}
    for table in caught_up["tables"]:
        assert set(table) == {
            "sink", "table", "location", "state", "rows", "changes", "lag_rows", "lag_bytes", "lag_seconds",
            "freshness_p50_ms", "freshness_p99_ms",
        }  # fmt: skip
        assert (table["lag_rows"], table["lag_seconds"]) == (0, 0.0)
        assert table["lag_bytes"] >= 0
    _topics_and_records(shell, file)
    code, report = verify(shell, file)
    assert (code, report["equal"]) == (0, True)
    assert {table["table"]: table["rows"] for table in report["tables"]} == {"orders": 500, "customers": 20}
    assert all(table["verified_through"] and table["equal"] for table in report["tables"])
    children = family(running)
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) == 0
    assert gone(children)


def _topics_and_records(shell: Shell, file: Path) -> None:
    """`topics` and `consume`, which find the broker by the data directory."""
    where = ["--data-dir", shell.data_dir]
    listed = {row["topic"]: row for row in shell.tailrace("topics", "list", "--json", *where).json()}
    assert listed["raw.orders.orders"]["partitions"] == 1
    assert listed["raw.orders.orders"]["records"] >= 500
    assert listed["__consumer_offsets"]["partitions"] == 3
    described = shell.tailrace("topics", "describe", "raw.orders.orders", "--json", *where).json()
    assert described["partitions"][0]["latest"] == listed["raw.orders.orders"]["records"]
    assert {"raw.orders.orders-key", "raw.orders.orders-value"} == set(described["schemas"])
    first = _consumed(shell, "raw.orders.orders", "-n", "3", *where)
    assert [record["key"]["id"] for record in first] == [1, 2, 3]
    assert first[0]["value"]["note"] == "note 1"
    assert str(first[0]["value"]["amount"]) == "1.25"
    recent = _consumed(shell, "raw.orders.orders", "--from", "-1h", "-n", "1", *where)
    assert recent == first[:1]
    later = _consumed(shell, "raw.orders.orders", "--from", first[2]["offset"], "-n", "1", *where)
    assert later == first[2:3]
    control = _consumed(shell, "_tailrace.orders.control", "-n", "100", *where)
    assert "position" in {record["key"] for record in control}
    for arguments, word in (
        (["describe", "nowhere"], "no topic 'nowhere'"),
        (["describe", "nowhere", "--bootstrap", "127.0.0.1:1"], "127.0.0.1:1"),
    ):
        refused = shell.tailrace("topics", *arguments, *where)
        assert refused.code == 1
        assert word in refused.err
    bad = shell.tailrace("consume", "raw.orders.orders", "--from", "yesterday", *where)
    assert (bad.code, "beginning, end, an offset, an age" in bad.err) == (2, True)


def _consumed(shell: Shell, *arguments: object) -> list[dict[str, Any]]:
    result = shell.tailrace("consume", *arguments)
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def test_changes_of_every_kind_arrive_and_a_killed_sink_catches_up(
    shell: Shell, file: Path, running: "subprocess.Popen[str]"
) -> None:
    execute(
        shell.dsn,
        "ALTER TABLE orders ADD COLUMN channel text",
        "INSERT INTO orders VALUES (1001, 1, 'new', now(), 'web')",
        "UPDATE orders SET channel = 'shop' WHERE id = 1",
        "DELETE FROM orders WHERE id = 2",
    )
    wait_until(lambda: "channel" in orders(shell).column_names and rows_of(shell) == 500, "the new column")
    changed = {row["id"]: row["channel"] for row in orders(shell).to_pylist()}
    assert (changed[1], changed[1001], changed[3], 2 in changed) == ("shop", "web", None, False)

    sink = next(part for part in shell.status(file)["parts"] if part["part"] == "sink.lake")
    psutil.Process(sink["pid"]).kill()
    execute(shell.dsn, "INSERT INTO orders SELECT i, 1 FROM generate_series(2001, 2100) i")
    wait_until(lambda: rows_of(shell) == 600, "the killed sink to catch up")
    again = wait_until(
        lambda: next(
            (p for p in shell.status(file)["parts"] if p["part"] == "sink.lake" and p["alive"]), None
        ),
        "the sink's new process",
    )
    assert again["pid"] != sink["pid"]

    execute(shell.dsn, "TRUNCATE orders", "INSERT INTO orders VALUES (7, 7, 'after')")
    wait_until(lambda: rows_of(shell) == 1, "the TRUNCATE")
    assert orders(shell).column("note").to_pylist() == ["after"]
    assert verify(shell, file)[0] == 0

    children = family(running)
    assert children
    running.kill()
    running.wait()
    wait_until(lambda: gone(children), "the parts to end with their supervisor", 40)
    dead = shell.status(file)
    assert dead["running"] is False
    assert not any(part["alive"] for part in dead["parts"])


def test_verify_objects_to_a_table_that_was_tampered_with(shell: Shell, file: Path) -> None:
    assert shell.run(file, "--until-caught-up").code == 0
    _rewrite(shell.folder / "lake" / "orders", _lost_doubled_and_wrong)
    with shell.running(file):
        wait_until((shell.data_dir / "endpoints.json").exists, "the broker")
        code, report = verify(shell, file)
        assert (code, report["equal"]) == (3, False)
        found = {table["table"]: table for table in report["tables"]}
        assert found["customers"]["equal"] is True
        assert found["orders"]["equal"] is False
        assert found["orders"]["keys"]["lost"] == [["10"]]
        assert found["orders"]["keys"]["doubled"] == [["21"]]
        assert found["orders"]["keys"]["wrong"] == [{"key": ["11"], "columns": ["note"]}]
        told = shell.tailrace("verify", file, "--data-dir", shell.data_dir)
        assert told.code == 3
        assert "lost: 1 keys: 10" in told.out
        assert "forged" not in told.out + told.err + json.dumps(report)


def test_a_table_that_somebody_else_wrote_stops_the_run(shell: Shell, file: Path) -> None:
    assert shell.run(file, "--until-caught-up").code == 0
    deltalake.DeltaTable(str(shell.folder / "lake" / "customers")).delete("id = 3")
    told = paragraph_of(result := shell.run(file))
    assert result.code == 1
    assert "written by somebody else" in told
    assert str(shell.folder / "lake" / "customers") in told


def _lost_doubled_and_wrong(rows: pa.Table) -> pa.Table:
    """Without key 10, with a forged note for key 11, with key 21 twice."""
    ids = rows.column("id").to_pylist()
    notes = [
        "forged" if i == 11 else note for i, note in zip(ids, rows.column("note").to_pylist(), strict=True)
    ]
    place = rows.schema.get_field_index("note")
    forged = rows.set_column(place, rows.schema.field(place), pa.array(notes, rows.schema.field(place).type))
    kept = forged.filter(pa.array([i != 10 for i in ids]))
    return pa.concat_tables([kept, forged.slice(ids.index(21), 1)])


def _rewrite(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Falsify a table as a sink with a bug would have written it: data file and commit agree."""
    for commit in (folder / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in commit.read_text().splitlines()]
        for action in actions:
            if "add" in action:
                path = folder / action["add"]["path"]
                rows = change(pq.read_table(path))
                pq.write_table(rows, path)
                action["add"]["size"] = path.stat().st_size
                stats = {**json.loads(action["add"]["stats"]), "numRecords": rows.num_rows}
                action["add"]["stats"] = json.dumps(stats)
        commit.write_text("".join(json.dumps(action) + "\n" for action in actions))
