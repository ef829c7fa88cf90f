"""The job's process as its parent sees it: started in a session of its own, asked over pipes, killed as a whole.

Two jobs must never commit side by side, so before a new one starts no process of the former may live.  Each process
of the job (Python, the JVM, workers) inherits the log as its stdout, and with it the lock that we hold on the log:
the lock is free when the last of them is gone.  A job whose parent dies sees its stdin close, and kills itself.
"""

import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from tailrace.changes.errors import TailraceError
from tailrace.flink.environment import FlinkEnvironment
from tailrace.flink.failures import causes_of

JOB = Path(__file__).with_name("inside") / "job.py"


class RequestFailed(Exception):
    """The job's process could not do what it was asked; `causes` as (class, message), outermost first."""

    def __init__(self, causes: Sequence[tuple[str, str]]) -> None:
        super().__init__(causes)
        self.causes = causes


class JobEnded(Exception):
    """The job, or the process under it, is gone; `causes` is empty when it left no word."""

    def __init__(self, causes: Sequence[tuple[str, str]]) -> None:
        super().__init__(causes)
        self.causes = causes


class Stopped(Exception):
    """We were asked to stop while waiting for an answer."""


class JobProcess:
    """One running job process.  Not thread-safe; a context manager that leaves no process behind."""

    def __init__(
        self,
        environment: FlinkEnvironment,
        folder: Path,
        log: Path,
        settings: Mapping[str, str],
        variables: Mapping[str, str],
        stop: threading.Event,
    ) -> None:
        """Start it; `variables` are added to its environment variables, `log` takes its output."""
        self._stop = stop
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._pid_file = folder / "job.pid"
        settings_file = folder / "settings.json"
        settings_file.write_text(json.dumps(settings))
        log.parent.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        with log.open("ab") as output:
            self._lock_out_others(output)
            self._process = subprocess.Popen(
                [environment.python, "-P", JOB, settings_file, str(writing)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(writing,),
                env={**os.environ, **variables},
                start_new_session=True,
                text=True,
            )
        os.close(writing)
        parent = psutil.Process()
        former = {"pid": self._process.pid, "parent": parent.pid, "parent_started": parent.create_time()}
        self._pid_file.write_text(json.dumps(former))
        self._reader = threading.Thread(target=self._read, args=(os.fdopen(reading),), daemon=True)
        self._reader.start()

    def __enter__(self) -> "JobProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process id, which is also its process group."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Return when it takes requests; raises as `ask` does."""
        self._answer()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask and wait.  Raises RequestFailed, JobEnded, or Stopped when asked to stop meanwhile."""
        return self._asked(request, heed_stop=True)

    def stop_cleanly(self, folder: Path, *, timeout_s: float) -> bool:
        """Stop the job with a savepoint in `folder`: all its results are committed.  False when it would not."""
        try:
            self._asked({"do": "stop", "folder": str(folder)}, heed_stop=False, timeout_s=timeout_s)
        except (JobEnded, RequestFailed, TimeoutError):
            return False
        return True

    def check(self) -> None:
        """Raise JobEnded if the job has ended."""
        try:
            document = self._answers.get_nowait()
        except queue.Empty:
            return
        self._ended(document)

    def usage(self) -> tuple[float, int]:
        """(CPU seconds, resident bytes) of all its processes."""
        cpu, memory = 0.0, 0
        for process in _tree(self._process.pid):
            try:
                times = process.cpu_times()
                cpu += times.user + times.system
                memory += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return cpu, memory

    def kill(self) -> None:
        """SIGKILL to all its processes; returns when they are gone."""
        _kill_group(self._process.pid)
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _asked(
        self, request: Mapping[str, Any], *, heed_stop: bool, timeout_s: float | None = None
    ) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise JobEnded([]) from None
        return self._answer(heed_stop=heed_stop, timeout_s=timeout_s)

    def _answer(self, *, heed_stop: bool = True, timeout_s: float | None = None) -> dict[str, Any]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                document = self._answers.get(timeout=0.1)
                break
            except queue.Empty:
                if heed_stop and self._stop.is_set():
                    raise Stopped from None
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError from None
        if document is not None and "error" in document:
            raise RequestFailed(causes_of(document["error"]))
        if document is None or "ended" in document:
            self._ended(document)
        assert document is not None
        return document

    def _ended(self, document: dict[str, Any] | None) -> None:
        raise JobEnded(
            [] if document is None else causes_of(document.get("ended", document.get("error", "")))
        )

    def _read(self, answers: IO[str]) -> None:
        with answers:
            for line in answers:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _lock_out_others(self, log: IO[bytes]) -> None:
        """Take the lock that lives as long as any process of a job; a former job that still lives is killed."""
        deadline = time.monotonic() + 30
        while True:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self._kill_former()
            if time.monotonic() > deadline:
                raise TailraceError(
                    f"a Flink job of this data directory still runs and holds {log.name}",
                    fix="stop the other `tailrace run`, then start again",
                )
            time.sleep(0.1)

    def _kill_former(self) -> None:
        """Kill what is left of the job in our pid file, unless its parent, another `tailrace run`, lives."""
        try:
            former = json.loads(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return
        if not _lives(former["parent"], former["parent_started"]) and _is_job(former["pid"]):
            _kill_group(former["pid"])


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _lives(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_job(pid: int) -> bool:
    """Whether the process is a job, or is gone (its group may live on)."""
    try:
        return str(JOB) in psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return True


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
