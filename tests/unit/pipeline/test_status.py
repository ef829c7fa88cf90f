"""`tailrace status`: what it makes of the parts' own words."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tailrace.changes.status import StatusFile
from tailrace.pipeline.load import load_spec
from tailrace.pipeline.plan import Plan, make_plan
from tailrace.pipeline.status import CaughtUp, gather, read_all

PIPELINE = """\
version: 1
name: shop
source: {type: postgres, dsn: "host=nowhere", tables: [public.orders]}
sinks: {lake: {type: delta, path: ./lake}}
"""
CAUGHT_UP = {
    "location": "/lake/orders",
    "state": "caught_up",
    "rows": 3,
    "changes": 3,
    "lsn": 0x1000,
    "lag_rows": 0,
    "newest_ms": None,
    "waiting_since_ms": None,
    "freshness_p50_ms": None,
    "freshness_p99_ms": None,
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    return make_plan(load_spec(file, {}))


def table_of(plan: Plan, folder: Path, *, pid: int | None = None, **said: Any) -> dict[str, Any]:
    """The one table of the state, as its sink described it."""
    StatusFile(folder, "source").write("running", received_lsn="0/1800")
    document = {"tables": {"orders": {**CAUGHT_UP, **said}}}
    StatusFile(folder, "sink.lake").write("running", **document, **({} if pid is None else {"pid": pid}))
    found: dict[str, Any] = gather(plan, folder)["tables"][0]
    return found


def ago_ms(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


def test_a_table_that_is_caught_up_lags_zero_seconds_however_old_its_rows_are(
    plan: Plan, tmp_path: Path
) -> None:
    table = table_of(plan, tmp_path, newest_ms=ago_ms(3600))
    assert (table["lag_rows"], table["lag_seconds"], table["lag_bytes"]) == (0, 0.0, 0x800)


def test_a_table_lags_by_the_age_of_the_oldest_change_that_waits(plan: Plan, tmp_path: Path) -> None:
    table = table_of(
        plan, tmp_path, lag_rows=7, state="running", newest_ms=ago_ms(3600), waiting_since_ms=ago_ms(12)
    )
    assert table["lag_rows"] == 7
    assert 11.5 < table["lag_seconds"] < 30


def test_where_nothing_has_arrived_the_age_of_the_table_counts(plan: Plan, tmp_path: Path) -> None:
    table = table_of(plan, tmp_path, lag_rows=7, state="running", newest_ms=ago_ms(60))
    assert 59.5 < table["lag_seconds"] < 90
    assert table_of(plan, tmp_path, lag_rows=7, state="running")["lag_seconds"] is None


def test_a_table_without_its_sink_is_not_caught_up(plan: Plan, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    table = table_of(plan, tmp_path, pid=child, newest_ms=ago_ms(60))
    assert table["state"] == "no sink"
    assert 59.5 < table["lag_seconds"] < 90
    assert gather(plan, tmp_path)["running"] is False


def test_a_younger_process_with_the_same_number_is_another(plan: Plan, tmp_path: Path) -> None:
    StatusFile(tmp_path, "source").write("running", started_at=1_000_000.0)
    source = next(part for part in gather(plan, tmp_path)["parts"] if part["part"] == "source")
    assert (source["pid"], source["alive"]) == (os.getpid(), False)


def test_a_part_that_has_not_started_has_every_field(plan: Plan, tmp_path: Path) -> None:
    StatusFile(tmp_path, "source").write("running")
    absent, source, _ = gather(plan, tmp_path)["parts"]
    assert set(absent) == set(source)
    assert (absent["part"], absent["state"], absent["alive"]) == ("broker", "not started", False)


def test_the_newest_word_of_the_broker_counts(tmp_path: Path) -> None:
    StatusFile(tmp_path, "broker").write("failed", error="the disk is full")
    assert read_all(tmp_path)["broker"]["state"] == "failed"
    StatusFile(tmp_path / "broker", "broker").write("running")
    assert read_all(tmp_path)["broker"]["state"] == "running"


@pytest.mark.parametrize(("lsn", "done"), [(0, False), (0xFFF, False), (0x1000, True)])
def test_a_table_that_has_not_reached_the_target_is_not_caught_up_however_quiet_its_sink_is(
    plan: Plan, tmp_path: Path, lsn: int, done: bool
) -> None:
    StatusFile(tmp_path, "source").write("running", position=0x1000)
    StatusFile(tmp_path, "sink.lake").write("caught_up", tables={"orders": {**CAUGHT_UP, "lsn": lsn}})
    assert CaughtUp(plan, tmp_path, 0x1000)() is done
