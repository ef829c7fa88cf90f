"""A sink killed at each of its crash points, in a process of its own: its tables still equal the source.

One broker holds the topics of all tests; every test builds tables of its own from them, over several kills.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.fixtures.registry import Stack
from tests.fixtures.tables import scan_delta, scan_iceberg
from tests.integration.sinks.source_log import SourceLog

from tailrace.changes import ChangeBatch
from tailrace.changes.status import read_status
from tailrace.sinks.service import CRASH_POINTS
from tailrace.sinks.testing import EVENTS, ORDERS, ModelSource, assert_mirrors

pytestmark = [pytest.mark.crash, pytest.mark.timeout(400)]

DEADLINE_S = 120.0
LAST_LSN = 400

FORMATS: dict[str, tuple[dict[str, Any], Callable[[str], pa.Table]]] = {
    "delta": ({"path": "lake/{table}", "checkpoint_every": 5, "keep_old_files": 0}, scan_delta),
    "iceberg": ({"warehouse": "lake", "keep_snapshots": 3, "keep_old_files": 0}, scan_iceberg),
}

# The sink as a process: configuration on the command line, SIGTERM stops it.
PROGRAM = """
import json, pathlib, signal, sys, threading
from tailrace.changes import TableId
from tailrace.sinks.service import CommitPolicy, SinkInput, SinkPartConfig, run
c = json.loads(sys.argv[1])
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
inputs = tuple(SinkInput(t, TableId.parse(n), None, target, c["mode"]) for t, n, target in c["inputs"])
run(SinkPartConfig("shop", "lake", c["type"], c["options"], inputs, c["control"], c["bootstrap"], c["registry"],
                   pathlib.Path(c["dir"]), pathlib.Path(c["dir"]), CommitPolicy(every=0, max_rows=60)), stop)
"""


@dataclass(frozen=True)
class Published:
    """What the topics hold: the log, the two sources, every change of `events` as (lsn, seq, op)."""

    stack: Stack
    log: SourceLog
    orders: ModelSource
    events: ModelSource
    changes: list[tuple[int, int, str]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """A broker whose topics hold forty source transactions."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.start()
    log = SourceLog(stack, [ORDERS.id, EVENTS.id], partitions=2)
    orders = ModelSource(ORDERS, seed=1, partitions=1, keys=80)
    events = ModelSource(EVENTS, seed=2, partitions=1)
    changes: list[tuple[int, int, str]] = []
    for lsn in range(10, LAST_LSN + 1, 10):
        of_events = at(events.transaction(10), lsn)
        for batch in of_events:
            changes += zip(batch.lsn.tolist(), batch.seq.tolist(), map(chr, batch.op.tolist()), strict=True)
        log.publish(*at(orders.transaction(30), lsn), *of_events, lsn=lsn)
    yield Published(stack, log, orders, events, changes)
    log.close()
    stack.kill()


def at(batches: list[ChangeBatch], lsn: int) -> list[ChangeBatch]:
    """The batches as part of the source transaction that ends at `lsn`, committed now."""
    now = time.time_ns() // 1000
    return [
        replace(batch, lsn=np.full(len(batch), lsn, np.int64), timestamp=np.full(len(batch), now, np.int64))
        for batch in batches
    ]


class SinkProcess:
    """Runs one sink over and over on one folder."""

    def __init__(self, published: Published, folder: Path, kind: str, mode: str) -> None:
        self.folder = folder
        topics = published.log.topics
        inputs = [(topics[EVENTS.id], str(EVENTS.id), "events")]
        if mode == "mirror":
            inputs.append((topics[ORDERS.id], str(ORDERS.id), "orders"))
        self._config = {
            "type": kind,
            "options": FORMATS[kind][0],
            "mode": mode,
            "inputs": inputs,
            "control": published.log.control_topic,
            "bootstrap": published.stack.bootstrap,
            "registry": published.stack.registry_url,
            "dir": str(folder),
        }

    def run(self, point: str = "") -> int:
        """Run until it dies, or until all is loaded and SIGTERM has ended it; the exit code."""
        mark = self.folder / f"{point}.killed"
        environment = {**os.environ, "TAILRACE_CRASH_AT": point, "TAILRACE_CRASH_MARK": str(mark)}
        with (self.folder / "sink.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, json.dumps(self._config)],
                env=environment,
                stdout=log,
                stderr=log,
            )
            deadline = time.monotonic() + DEADLINE_S
            try:
                while process.poll() is None and not self._is_loaded(process.pid):
                    assert time.monotonic() < deadline, (self.folder / "sink.log").read_text()[-3000:]
                    time.sleep(0.02)
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                return process.wait(DEADLINE_S)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def status(self) -> dict[str, Any]:
        """The sink's status document."""
        return read_status(self.folder).get("sink.lake", {})

    def _is_loaded(self, pid: int) -> bool:
        status = self.status()
        tables = status.get("tables", {}).values()
        return status.get("pid") == pid and bool(tables) and all(t["lsn"] >= LAST_LSN for t in tables)


def is_killed(code: int) -> bool:
    return code == -signal.SIGKILL


def assert_tables(sink: SinkProcess, published: Published, kind: str, mode: str) -> None:
    scan = FORMATS[kind][1]
    tables = sink.status()["tables"]
    found = scan(tables["events"]["location"])
    if mode == "mirror":
        assert_mirrors(found, published.events)
        assert_mirrors(scan(tables["orders"]["location"]), published.orders)
    else:
        rows = found.select(["_lsn", "_seq", "_op"]).to_pylist()
        assert sorted(tuple(row.values()) for row in rows) == sorted(published.changes)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_mirror_killed_at_any_point_equals_the_source(
    published: Published, tmp_path: Path, point: str, kind: str
) -> None:
    sink = SinkProcess(published, tmp_path, kind, "mirror")
    # the first start only creates the tables: what a take-over does needs a second one
    assert is_killed(sink.run("sink.after_commit:2"))
    once = point in ("sink.after_fence", "sink.before_offset_report")
    assert is_killed(sink.run(point if once else f"{point}:5")), (tmp_path / "sink.log").read_text()[-3000:]
    assert sink.run() == 0, (tmp_path / "sink.log").read_text()[-3000:]
    assert_tables(sink, published, kind, "mirror")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("point", ["sink.after_data_file", "sink.before_commit", "sink.after_commit"])
def test_a_change_log_killed_at_any_point_has_every_change_once(
    published: Published, tmp_path: Path, point: str, kind: str
) -> None:
    sink = SinkProcess(published, tmp_path, kind, "append")
    for passes in (":1", ":4"):
        assert is_killed(sink.run(point + passes)), (tmp_path / "sink.log").read_text()[-3000:]
    assert sink.run() == 0, (tmp_path / "sink.log").read_text()[-3000:]
    assert_tables(sink, published, kind, "append")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_sink_killed_six_times_in_a_row_equals_the_source(
    published: Published, tmp_path: Path, kind: str
) -> None:
    sink = SinkProcess(published, tmp_path, kind, "mirror")
    points = [f"{point}:{n}" for n, point in enumerate(CRASH_POINTS[1:-1], start=2)]
    for point in points:
        assert is_killed(sink.run(point)), (tmp_path / "sink.log").read_text()[-3000:]
    assert sink.run() == 0, (tmp_path / "sink.log").read_text()[-3000:]
    assert_tables(sink, published, kind, "mirror")
