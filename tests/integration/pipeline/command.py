"""The real command as a user runs it: `tailrace run FILE` in a process of its own, with a deadline."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

COMMAND = [sys.executable, "-m", "tailrace.pipeline.cli"]
DEADLINE_S = 90.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands in one folder, with PG_DSN set."""

    folder: Path
    dsn: str

    @property
    def data_dir(self) -> Path:
        return self.folder / "run"

    def write(self, text: str, name: str = "pipeline.yaml") -> Path:
        """Put a pipeline file into the folder."""
        file = self.folder / name
        file.write_text(text)
        return file

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PG_DSN": self.dsn}

    def tailrace(
        self,
        *arguments: object,
        timeout_s: float = DEADLINE_S,
        preexec: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the command to its end; AssertionError when it does not end in time."""
        process = self._popen(arguments, preexec, environment)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            stop(process)
            out, err = process.communicate()
            raise AssertionError(f"no end after {timeout_s:.0f} s: {out}\n{err}") from None
        return Result(process.returncode, out, err)

    def run(self, file: Path, *arguments: object, **options: Any) -> Result:
        """`tailrace run FILE` on this shell's data directory."""
        return self.tailrace("run", file, "--data-dir", self.data_dir, *arguments, **options)

    @contextmanager
    def running(self, file: Path, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
        """`tailrace run FILE` in the background; stopped at the end, by force where it must be."""
        process = self._popen(["run", file, "--data-dir", self.data_dir, *arguments], None, None)
        try:
            yield process
        finally:
            stop(process)
            process.communicate()

    def status(self, file: Path) -> dict[str, Any]:
        """`tailrace status --json` from a process of its own."""
        found: dict[str, Any] = self.tailrace("status", file, "--data-dir", self.data_dir, "--json").json()
        return found

    def _popen(
        self,
        arguments: Any,
        preexec: Callable[[], None] | None,
        environment: Mapping[str, str] | None,
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**self.environment(), **(environment or {})},
            preexec_fn=preexec,
        )


def stop(process: "subprocess.Popen[str]") -> None:
    """SIGTERM, then SIGKILL for the whole family."""
    if process.poll() is not None:
        return
    family = [*psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        if child.is_running():
            child.kill()


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Poll until `condition()` is true and return its value; AssertionError after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(0.05)
    return value


def execute(dsn: str, *statements: str) -> None:
    """Run SQL, each statement its own transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def paragraph_of(result: Result) -> str:
    """The one paragraph that a person is told: the last line of standard error."""
    lines = result.err.strip().splitlines()
    assert "Traceback" not in result.err
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], result.err
    return lines[-1]
