"""What a run is doing: parts, positions, and the lag of every table in rows, bytes and seconds."""

import json
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tailrace.changes import Lsn, parse_lsn
from tailrace.changes.status import read_status
from tailrace.pipeline.plan import BROKER, SOURCE, TRANSFORM, Plan

_STALE_S = 5.0


def read_all(data_dir: Path) -> dict[str, dict[str, Any]]:
    """Status documents of all parts, the newest of each; a running broker keeps its own beside its log."""
    found = read_status(data_dir)
    for part, document in read_status(data_dir / BROKER).items():
        if part not in found or found[part]["updated_at"] < document["updated_at"]:
            found[part] = document
    return found


def gather(plan: Plan, data_dir: Path) -> dict[str, Any]:
    """The state of a run as plain data; `running` says whether every part is alive and works."""
    documents = read_all(data_dir)
    parts = [_part(name, documents.get(name)) for name in plan.parts()]
    alive = {part["part"] for part in parts if part["alive"]}
    source = documents.get(SOURCE, {})
    tables = [
        _table(part, name, table, source, part in alive)
        for part, document in documents.items()
        if part.startswith("sink.")
        for name, table in document.get("tables", {}).items()
    ]
    return {
        "pipeline": plan.name,
        "data_dir": str(data_dir),
        "running": all(part["alive"] and part["state"] not in ("failed", "stopped") for part in parts),
        "parts": parts,
        "source": {
            "position": source.get("position_lsn"),
            "received": source.get("received_lsn"),
            "confirmed": source.get("confirmed_lsn"),
            "lag_bytes": source.get("lag_bytes"),
            "tables": source.get("tables", {}),
        },
        "tables": tables,
    }


def _part(name: str, document: dict[str, Any] | None) -> dict[str, Any]:
    """One part; all fields are there whether it has started or not."""
    found = document or {}
    updated_at = found.get("updated_at")
    return {
        "part": name,
        "state": found.get("state", "not started"),
        "alive": document is not None and _is_alive(document),
        "pid": found.get("pid"),
        "cpu_seconds": found.get("cpu_seconds"),
        "max_rss_bytes": found.get("max_rss_bytes"),
        "age_s": None if updated_at is None else round(time.time() - updated_at, 1),
        "error": found.get("error"),
    }


def _table(
    part: str, name: str, table: dict[str, Any], source: dict[str, Any], alive: bool
) -> dict[str, Any]:
    """One table.

    lag_rows     changes in the log that are not in the table; when the sink is dead, those of its last word.
    lag_bytes    WAL between the table and what the source has received; None behind a transform.
    lag_seconds  age of the oldest change that waits; where none is known, of what the table holds; None
                 when the sink has not said either.
    """
    received = parse_lsn(source["received_lsn"]) if source.get("received_lsn") else 0
    lag_rows = int(table["lag_rows"])
    behind = lag_rows > 0 or table["state"] != "caught_up" or not alive
    since_ms = table["waiting_since_ms"] or table["newest_ms"]
    waits_s = None if since_ms is None else max(0.0, round(time.time() - since_ms / 1000, 1))
    return {
        "sink": part.removeprefix("sink."),
        "table": name,
        "location": table["location"],
        "state": table["state"] if alive else "no sink",
        "rows": table["rows"],
        "changes": table["changes"],
        "lag_rows": lag_rows,
        "lag_bytes": max(0, received - table["lsn"]) if table["lsn"] else None,
        "lag_seconds": waits_s if behind else 0.0,
        "freshness_p50_ms": table["freshness_p50_ms"],
        "freshness_p99_ms": table["freshness_p99_ms"],
    }


def _is_alive(document: dict[str, Any]) -> bool:
    """Whether the process that wrote the document runs; a younger one with its number is another."""
    try:
        process = psutil.Process(int(document["pid"]))
        started = process.create_time()
        return bool(process.status() != psutil.STATUS_ZOMBIE and started <= document["started_at"] + 1)
    except psutil.NoSuchProcess:
        return False


def is_running(data_dir: Path) -> bool:
    """Whether a supervisor, or a broker without one, lives on a data directory; what a killed one left does not."""
    for name in ("run.json", "endpoints.json"):
        try:
            document = json.loads((data_dir / name).read_text())
        except (OSError, ValueError):  # not there, or being written right now
            continue
        if "started_at" in document and _is_alive(document):
            return True
    return False


class Patience:
    """How long to wait for tables: until a deadline, and not for a sink that has ended."""

    def __init__(self, data_dir: Path, timeout_s: float) -> None:
        self._data_dir = data_dir
        self._deadline = time.monotonic() + timeout_s

    def over(self, part: str) -> str:
        """Why to wait for `part` no longer; empty while there is hope."""
        if time.monotonic() > self._deadline:
            return "did not get there in time"
        document = read_status(self._data_dir).get(part)
        if document is None or _is_alive(document) or is_running(self._data_dir):
            return ""
        # it may be restarted, or run where its pid means nothing here: then it goes on writing
        silent = time.time() - document["updated_at"] > 2 * _STALE_S
        return "will not get there: the run has ended" if silent else ""


def render(found: dict[str, Any]) -> None:
    """Print the state for people."""
    console = Console()
    parts = Table("part", "state", "pid", "CPU s", "memory MiB", title=f"pipeline {found['pipeline']}")
    for part in found["parts"]:
        state = part["state"] if part["alive"] or part["pid"] is None else f"{part['state']} (dead)"
        memory = f"{part['max_rss_bytes'] / 2**20:.0f}" if part["pid"] else "-"
        cpu = f"{part['cpu_seconds']:.1f}" if part["pid"] else "-"
        parts.add_row(part["part"], state, str(part["pid"] or "-"), cpu, memory)
    console.print(parts)
    tables = Table(
        "sink", "table", "state", "rows", "lag rows", "lag bytes", "lag s", "fresh p50 ms", "p99 ms"
    )
    for row in found["tables"]:
        columns = ("sink", "table", "state", "rows", "lag_rows", "lag_bytes", "lag_seconds")
        cells = [*(row[name] for name in columns), row["freshness_p50_ms"], row["freshness_p99_ms"]]
        tables.add_row(*("-" if cell is None else str(cell) for cell in cells))
    console.print(tables)
    for part in found["parts"]:
        if part.get("error"):
            console.print(f"{part['part']}: {part['error']}", style="red", highlight=False)


class CaughtUp:
    """True once every table holds what the source held at `target`."""

    def __init__(self, plan: Plan, data_dir: Path, target: Lsn) -> None:
        self._plan, self._data_dir, self._target = plan, data_dir, target
        self._transform_seen: int | None = None
        self._raw = {
            f"sink.{name}": {item.target for item in plan.sink_inputs(sink) if item.table is not None}
            for name, sink in plan.spec.sinks.items()
        }
        """Tables that come straight from the source, and so have an LSN."""

    def __call__(self) -> bool:
        documents = read_all(self._data_dir)
        if (documents.get(SOURCE, {}).get("position") or 0) < self._target:
            return False
        return self._transform_done(documents) and self._sinks_done(documents)

    def _transform_done(self, documents: dict[str, dict[str, Any]]) -> bool:
        """Two checkpoints that began after the source was done: what was read is written and committed."""
        if TRANSFORM not in self._plan.parts():
            return True
        checkpoint = documents.get(TRANSFORM, {}).get("checkpoint_id")
        if checkpoint is None or documents[TRANSFORM].get("lag_rows"):
            self._transform_seen = None
            return False
        if self._transform_seen is None:
            self._transform_seen = int(checkpoint)
        return int(checkpoint) >= self._transform_seen + 2

    def _sinks_done(self, documents: dict[str, dict[str, Any]]) -> bool:
        for part in self._plan.parts():
            if not part.startswith("sink."):
                continue
            document = documents.get(part, {})
            tables = document.get("tables", {})
            if not tables or time.time() - document["updated_at"] > _STALE_S:
                return False
            if any(tables[name]["lsn"] < self._target for name in self._raw[part] & tables.keys()):
                return False
            if document["state"] != "caught_up":
                return False
        return True
