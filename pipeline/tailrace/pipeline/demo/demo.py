"""The demo, start to end: a database, the pipeline as anybody would run it, load, kills, verification."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tailrace.changes import ConfigError, TailraceError
from tailrace.pipeline.demo.chaos import Chaos
from tailrace.pipeline.demo.report import DemoReport, DemoTable
from tailrace.pipeline.demo.shop import Load, create_shop
from tailrace.pipeline.demo.watch import Watch
from tailrace.pipeline.embedded_postgres import EmbeddedPostgres
from tailrace.pipeline.load import load_spec
from tailrace.pipeline.plan import BROKER, SOURCE, TRANSFORM, Plan, make_plan
from tailrace.pipeline.status import read_all
from tailrace.pipeline.verify.rounds import verify_pipeline

Talk = Callable[[str], None]

_START_TIMEOUT_S = 600.0
_CATCH_UP_TIMEOUT_S = 300.0
_POLL_S = 0.2
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def run_demo(*, rows: int, seconds: float, keep: Path | None, talk: Talk) -> DemoReport:
    """Run the demo in `keep`, or in a folder that is removed afterwards."""
    quickstart = _quickstart()
    folder = (keep or Path(tempfile.mkdtemp(prefix="tailrace-demo-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if keep and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", fix="give --keep a new folder")
    try:
        with EmbeddedPostgres(folder / "postgres") as postgres:
            talk(f"Postgres runs on port {postgres.port}; loading {rows} transactions")
            customers = create_shop(postgres.dsn, rows)
            os.environ |= {"PG_DSN": postgres.dsn, "LAKE": str(folder / "lake")}
            plan = make_plan(load_spec(quickstart))
            load = Load(postgres.dsn, rows, customers, seconds=seconds, column_after_s=seconds / 2)
            expected = {"customers": customers, "transactions": rows, "enriched_transactions": rows}
            report = _Run(plan, folder, load, talk).run(expected)
            report.kept = keep is not None
            return report
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


class _Run:
    """One run of the pipeline as a child process."""

    def __init__(self, plan: Plan, folder: Path, load: Load, talk: Talk) -> None:
        self._plan, self._folder, self._load, self._talk = plan, folder, load, talk
        self._data_dir = folder / "run"
        self._watch = Watch(self._data_dir)

    def run(self, expected: Mapping[str, int]) -> DemoReport:
        """Start, wait for the initial snapshot, load and kill, verify, stop."""
        started = time.monotonic()
        process = self._start()
        try:
            self._watch.start()
            self._talk("the pipeline starts; waiting for the initial snapshot in every table")
            self._wait_for_tables(process, expected)
            chaos = self._under_load()
            self._require_running(process)
            self._talk("verifying every table against the source")
            verdicts = verify_pipeline(self._plan, self._data_dir, timeout_s=_CATCH_UP_TIMEOUT_S)
            elapsed = time.monotonic() - started
        finally:
            self._watch.finish()
            process.send_signal(signal.SIGTERM)
            process.wait(90)
        return DemoReport(
            tables=self._tables(elapsed),
            verdicts=verdicts,
            parts={
                part: {
                    "cpu_seconds": use.cpu_seconds,
                    "peak_rss_bytes": use.peak_rss_bytes,
                    "starts": use.starts,
                }
                for part, use in self._watch.use().items()
            },
            kills=chaos.planned,
            survived=chaos.survived,
            source_changes=self._load.total,
            seconds=elapsed,
            lake=self._folder / "lake",
            kept=False,
        )

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tailrace.pipeline.cli", "run", str(self._plan.file)]
        self._data_dir.mkdir(parents=True, exist_ok=True)
        with (self._data_dir / "supervisor.log").open("ab") as log:
            return subprocess.Popen([*command, "--data-dir", str(self._data_dir)], stdout=log, stderr=log)

    def _wait_for_tables(self, process: "subprocess.Popen[bytes]", expected: Mapping[str, int]) -> None:
        """Wait until every table holds the initial rows; a progress bar on a terminal."""
        sinks = [part for part in self._plan.parts() if part.startswith("sink.")]
        names = [
            item.target for sink in self._plan.spec.sinks.values() for item in self._plan.sink_inputs(sink)
        ]
        deadline = time.monotonic() + _START_TIMEOUT_S
        with Progress(*_COLUMNS, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            bar = progress.add_task("initial snapshot", total=sum(expected[name] for name in names))
            while True:
                found = read_all(self._data_dir)
                tables = [
                    (name, t) for sink in sinks for name, t in found.get(sink, {}).get("tables", {}).items()
                ]
                progress.update(bar, completed=sum(min(int(t["rows"]), expected[name]) for name, t in tables))
                if len(tables) == len(names) and all(int(t["rows"]) >= expected[name] for name, t in tables):
                    return
                self._require_running(process)
                if time.monotonic() > deadline:
                    late = (
                        ", ".join(name for name, t in tables if int(t["rows"]) < expected[name])
                        or "every table"
                    )
                    raise TailraceError(
                        f"not filled in {_START_TIMEOUT_S:.0f} s: {late}", fix=f"read {self._data_dir}/logs"
                    )
                time.sleep(_POLL_S)

    def _require_running(self, process: "subprocess.Popen[bytes]") -> None:
        if process.poll() is not None:
            log = (self._data_dir / "supervisor.log").read_text().strip()
            raise TailraceError(f"the pipeline stopped: {log.splitlines()[-1] if log else 'no reason given'}")

    def _under_load(self) -> Chaos:
        sink = next(part for part in self._plan.parts() if part.startswith("sink."))
        seconds = self._load.planned_s
        chaos = Chaos(self._data_dir, (SOURCE, BROKER, TRANSFORM, sink), seconds, self._talk)
        self._talk(f"live load for {seconds:.0f} s, with kills")
        self._load.start()
        chaos.start()
        self._load.join()
        chaos.join()
        if self._load.error is not None:
            raise TailraceError(f"the load failed: {self._load.error}") from self._load.error
        self._talk(f"{self._load.total} changes committed; waiting for recovery")
        chaos.wait_for_recovery()
        return chaos

    def _tables(self, elapsed: float) -> list[DemoTable]:
        use = self._watch.use()
        found = []
        for (part, name), table in sorted(self._watch.tables.items()):
            changes = self._watch.changes(part, name)
            all_changes = sum(self._watch.changes(p, n) for p, n in self._watch.tables if p == part)
            cpu = use[part].cpu_seconds if part in use else 0.0
            found.append(
                DemoTable(
                    sink=part.removeprefix("sink."),
                    table=name,
                    location=str(table["location"]),
                    rows=int(table["rows"]),
                    changes=changes,
                    rows_per_second=changes / elapsed,
                    cpu_us_per_row=1e6 * cpu / max(all_changes, 1),
                    freshness_p50_ms=table["freshness_p50_ms"],
                    freshness_p99_ms=table["freshness_p99_ms"],
                )
            )
        return found


def _quickstart() -> Path:
    """The example of the checkout that this module belongs to."""
    for parent in Path(__file__).resolve().parents:
        file = parent / "examples" / "quickstart" / "pipeline.yaml"
        if file.is_file():
            return file
    raise ConfigError(
        "the demo runs examples/quickstart, which is not here", fix="run it in a checkout of Tailrace"
    )
