"""What the parts used and did over a whole run, whatever was killed in between: sampled twice a second."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tailrace.pipeline.status import read_all

_EVERY_S = 0.5


@dataclass(slots=True)
class PartUse:
    """CPU seconds and largest memory of one part, all its processes and restarts together."""

    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0
    starts: int = 0


@dataclass(slots=True)
class _Seen:
    cpu: dict[tuple[str, int], float] = field(default_factory=dict)
    changes: dict[tuple[str, str, int], int] = field(default_factory=dict)


class Watch(threading.Thread):
    """Samples the status files and process trees under a data directory until `finish`."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(name="watch", daemon=True)
        self._data_dir = data_dir
        self._done = threading.Event()
        self._seen = _Seen()
        self._peak: dict[str, int] = {}
        self._pids: dict[str, set[int]] = {}
        self.tables: dict[tuple[str, str], dict[str, Any]] = {}
        """Newest status of each table, by (sink, table)."""

    def run(self) -> None:
        """Sample until finished."""
        while not self._done.wait(_EVERY_S):
            self.sample()

    def finish(self) -> None:
        """Sample once more and end."""
        self._done.set()
        self.join()
        self.sample()

    def sample(self) -> None:
        """Take one sample."""
        for part, status in read_all(self._data_dir).items():
            pid = int(status["pid"])
            self._pids.setdefault(part, set()).add(pid)
            self._sample_tree(part, pid)
            for name, table in status.get("tables", {}).items():
                if part.startswith("sink."):
                    self.tables[part, name] = table
                    place = (part, name, pid)
                    self._seen.changes[place] = max(self._seen.changes.get(place, 0), int(table["changes"]))

    def _sample_tree(self, part: str, pid: int) -> None:
        resident = 0
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for member in family:
            try:
                times = member.cpu_times()
                resident += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            self._seen.cpu[part, member.pid] = times.user + times.system
        self._peak[part] = max(self._peak.get(part, 0), resident)

    def use(self) -> dict[str, PartUse]:
        """Use by part."""
        found: dict[str, PartUse] = {}
        for (part, _), seconds in self._seen.cpu.items():
            found.setdefault(part, PartUse()).cpu_seconds += seconds
        for part, use in found.items():
            use.peak_rss_bytes = self._peak.get(part, 0)
            use.starts = len(self._pids.get(part, ()))
        return found

    def changes(self, part: str, table: str) -> int:
        """Changes that a sink applied to a table, over all its restarts."""
        return sum(n for (p, t, _), n in self._seen.changes.items() if (p, t) == (part, table))
