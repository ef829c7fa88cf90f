"""A pipeline under measurement: started as anybody would, stopped with SIGSTOP while a burst is written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
from tests.benchmarks.limits import Leg

from tailrace.changes import parse_lsn
from tailrace.pipeline.embedded_postgres import EmbeddedPostgres
from tailrace.pipeline.status import read_all

_POLL_S = 0.05
_TIMEOUT_S = 900.0

DIRECT = """\
version: 1
name: bench
source:
  type: postgres
  dsn: ${env:PG_DSN}
  tables: [public.transactions]
sinks:
  lake: {type: SINK, PLACE}
"""

TRANSFORM = """\
version: 1
name: bench
source:
  type: postgres
  dsn: ${env:PG_DSN}
  tables: [public.transactions]
transforms:
  enriched:
    from: {t: public.transactions}
    to: enriched
    key: [id]
    sql: SELECT id, account_id, amount, currency, merchant, country, is_online, created_at, note,
      CAST(amount AS DOUBLE) * 0.01 AS risk FROM t
sinks:
  lake: {type: SINK, from: enriched, PLACE}
"""

PLACES = {"delta": 'path: "./lake/{table}"', "iceberg": 'warehouse: ./lake, table: "bench.{table}"'}


class Pipeline:
    """`tailrace run` on a fresh data directory."""

    def __init__(self, folder: Path, server: EmbeddedPostgres, text: str, sink: str) -> None:
        folder.mkdir(parents=True)
        self._file = folder / "pipeline.yaml"
        self._file.write_text(text.replace("SINK", sink).replace("PLACE", PLACES[sink]))
        self._data_dir = folder / "data"
        self._server = server
        self._transform = "transforms:" in text
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tailrace.pipeline.cli", "run", str(self._file), "--data-dir"]
        log = (self._file.parent / "run.log").open("ab")
        self._process = subprocess.Popen(
            [*command, str(self._data_dir)],
            env={**os.environ, "PG_DSN": self._server.dsn},
            stdout=log,
            stderr=log,
        )
        log.close()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(90)

    def measure(self, name: str, rows: int, *, live_rows: int) -> Leg:
        """Run until the table holds what Postgres holds now; CPU and memory of every process of ours."""
        target = self._now()
        before = self._cpu()
        started = time.monotonic()
        self.resume()
        peak = self._wait(target, live_rows)
        seconds = time.monotonic() - started
        after = self._cpu()
        cpu = {part: after[part] - before.get(part, 0.0) for part in after}
        return Leg(name, rows, seconds, cpu, peak)

    def pause(self) -> None:
        """Stop all parts where they are, so that a burst piles up."""
        for process in self._parts().values():
            for member in [process, *process.children(recursive=True)]:
                member.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in self._parts().values():
            for member in [process, *process.children(recursive=True)]:
                member.send_signal(signal.SIGCONT)

    def _wait(self, target: int, live_rows: int) -> dict[str, int]:
        peak: dict[str, int] = {}
        deadline = time.monotonic() + _TIMEOUT_S
        due = 0.0
        while not self._done(target, live_rows):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._file.parent / "run.log").read_text()[-2000:])
            if time.monotonic() > due:
                due = time.monotonic() + 0.5
                for part, process in self._parts().items():
                    peak[part] = max(peak.get(part, 0), _memory(process))
            time.sleep(_POLL_S)
        return peak

    def _done(self, target: int, live_rows: int) -> bool:
        found = read_all(self._data_dir)
        tables = found.get("sink.lake", {}).get("tables", {})
        if not tables:
            return False
        (table,) = tables.values()
        complete = self._transform or table["lsn"] >= target
        return bool(complete and table["rows"] == live_rows and not table["lag_rows"])

    def _now(self) -> int:
        with psycopg.connect(self._server.dsn) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
            assert row is not None
            return parse_lsn(row[0])

    def _parts(self) -> dict[str, psutil.Process]:
        return {part: psutil.Process(int(status["pid"])) for part, status in read_all(self._data_dir).items()}

    def _cpu(self) -> dict[str, float]:
        return {part: _cpu(process) for part, process in self._parts().items()}


def _cpu(process: psutil.Process) -> float:
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        times = member.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _memory(process: psutil.Process) -> int:
    """Proportional set size: a page that several processes share counts once."""
    return sum(int(member.memory_full_info().pss) for member in [process, *process.children(recursive=True)])
