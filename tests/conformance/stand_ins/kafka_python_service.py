"""Ours for `test/service.py`, which kafka-python's source distribution leaves out: the processes of its fixtures."""

import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence


class ExternalService:
    """A broker that somebody else started."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def open(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to stop."""


class SpawnedService:
    """A child process whose output is kept and searched."""

    def __init__(self, args: Sequence[object], env: Mapping[str, str] | None = None) -> None:
        self._args, self._env = [str(argument) for argument in args], env
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str]

    def start(self) -> None:
        """Start the child."""
        self._process = subprocess.Popen(
            self._args, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, pattern: str, timeout: float = 30) -> bool:
        """Whether a line of the output matches within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not any(re.search(pattern, line, re.IGNORECASE) for line in self._lines):
                left = deadline - time.monotonic()
                if left <= 0 or self._process.poll() is not None:
                    return False
                self._changed.wait(min(left, 0.2))
        return True

    def stop(self) -> None:
        """Stop the child."""
        self._process.terminate()
        self._process.wait(30)

    def dump_logs(self) -> None:
        """Show the output."""
        with self._changed:
            print("".join(self._lines))  # noqa: T201

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
