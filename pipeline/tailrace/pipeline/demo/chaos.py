"""SIGKILLs while the load runs: the source, the broker, Flink and a sink, once each."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from tailrace.pipeline.plan import TRANSFORM
from tailrace.pipeline.status import read_all

_RECOVERY_S = 90.0

_Processes = tuple[int | None, int | None]


class Chaos(threading.Thread):
    """Kills one part after another, evenly over `seconds`; `survived` counts those that run again.

    A part that could not be killed counts as planned and not as survived.
    """

    def __init__(
        self, data_dir: Path, parts: Sequence[str], seconds: float, talk: Callable[[str], None]
    ) -> None:
        super().__init__(name="chaos", daemon=True)
        self.survived = 0
        self.planned = len(parts)
        self._killed: dict[str, _Processes] = {}
        self._data_dir, self._parts, self._talk = data_dir, parts, talk
        self._pause_s = seconds / (len(parts) + 1)

    def run(self) -> None:
        """Kill on schedule."""
        for part in self._parts:
            time.sleep(self._pause_s)
            try:
                victims = self._victims(part, int(read_all(self._data_dir)[part]["pid"]))
                self.note_killed(part)
            except (KeyError, psutil.NoSuchProcess):
                self._talk(f"could not kill {part}: it does not run")
                continue
            for victim in victims:
                with contextlib.suppress(ProcessLookupError):  # gone with the one before it
                    os.kill(victim, signal.SIGKILL)
            self._talk(f"killed {part} (SIGKILL)")

    def note_killed(self, part: str) -> None:
        """Remember the processes that a part has now, just before they are killed."""
        self._killed[part] = _processes(read_all(self._data_dir)[part])

    def wait_for_recovery(self) -> None:
        """Wait until every killed part works again, in new processes, and count those that do."""
        deadline = time.monotonic() + _RECOVERY_S
        while self._killed and time.monotonic() < deadline:
            found = read_all(self._data_dir)
            for part, before in list(self._killed.items()):
                status = found.get(part, {})
                if _processes(status) != before and status.get("state") in ("running", "caught_up"):
                    del self._killed[part]
                    self.survived += 1
            time.sleep(0.2)

    @staticmethod
    def _victims(part: str, pid: int) -> list[int]:
        """Flink is what the transform part started; any other part is one process."""
        if part == TRANSFORM:
            return [child.pid for child in psutil.Process(pid).children(recursive=True)] or [pid]
        return [pid]


def _processes(status: dict[str, Any]) -> _Processes:
    """A part's own process, and Flink's below it: a kill of Flink leaves the part, and its old status."""
    return status.get("pid"), status.get("child_pid")
