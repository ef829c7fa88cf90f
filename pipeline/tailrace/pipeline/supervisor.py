"""The supervisor: every part an own OS process, restarted with back-off, stopped together.

A part that exits with 1 or 2 has told a person what to do: the whole run stops with that reason.  A
part that crashed, or asked to be tried again (75), is started again after a pause that doubles from 0.2 s
to 10 s and falls back after half a minute of health.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.pipeline.part import EX_TEMPFAIL, REASON_FD, SUPERVISOR_PID, endpoints_path
from tailrace.pipeline.plan import BROKER, Plan

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_HEALTHY_AFTER_S = 30.0
_CRASHES_IN_A_ROW = 10
_STOP_TIMEOUT_S = 30.0
_TICK_S = 0.05
# Buffers of a busy minute go back to the system: about 150 MB less per pipeline, at no cost that we could measure.
_LEAN = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "262144",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


@dataclass(slots=True)
class _Child:
    part: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    pause_s: float = _FIRST_PAUSE_S
    crashes: int = 0
    restarts: int = 0
    reason: int = -1
    """Read end of the pipe through which the part tells why it stops."""


@dataclass(slots=True)
class Supervisor:
    """Runs the parts of a plan; `on_event` gets one line for a person per start, crash and stop."""

    plan: Plan
    data_dir: Path
    on_event: Callable[[str], None]
    _children: dict[str, _Child] = field(default_factory=dict)
    _stopping: bool = False

    def run(self, done: Callable[[], bool] = lambda: False) -> bool:
        """Start every part and supervise until SIGTERM, SIGINT, `done()`, or a failure a person must see.

        Must be called inside `alone()`.  Returns whether `done()` ended it.  Raises TailraceError with the
        reason of the part that failed for good.
        """
        finished = False
        with self._signals():
            self._forget_old_status()
            self._children = {part: _Child(part) for part in self.plan.parts()}
            try:
                while not (self._stopping or (finished := done())):
                    self._tick()
                    time.sleep(_TICK_S)
            finally:
                self._stop_children()
                endpoints_path(self.data_dir).unlink(missing_ok=True)
        return finished

    def _tick(self) -> None:
        now = time.monotonic()
        broker_ready = not self.plan.embedded or endpoints_path(self.data_dir).exists()
        for child in self._children.values():
            if child.process is None:
                if now >= child.due_at and (broker_ready or child.part == BROKER):
                    self._start(child)
                continue
            code = child.process.poll()
            if code is not None:
                child.process = None
                self._exited(child, code)
            elif child.crashes and now - child.started_at > _HEALTHY_AFTER_S:
                child.crashes, child.pause_s = 0, _FIRST_PAUSE_S

    def _start(self, child: _Child) -> None:
        log = self.log_path(child.part)
        log.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tailrace.pipeline.cli", "run", str(self.plan.file)]
        command += ["--only", child.part, "--data-dir", str(self.data_dir)]
        reading, writing = os.pipe()
        try:
            with log.open("ab") as output:
                child.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**_LEAN, **os.environ, SUPERVISOR_PID: str(os.getpid()), REASON_FD: str(writing)},
                    pass_fds=(writing,),
                    process_group=0,  # Ctrl-C in the terminal is for us, who stop the parts in order
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        child.reason = reading
        child.started_at = time.monotonic()
        self.on_event(f"{child.part} started (pid {child.process.pid})")

    def _exited(self, child: _Child, code: int) -> None:
        reason = _read_reason(child)
        if code in (1, 2):
            error = TailraceError(
                reason or f"the part {child.part} stopped without a reason",
                fix="" if reason else f"read {self.log_path(child.part)}",
            )
            error.exit_code = code
            raise error
        if code == 0 and self._stopping:
            return
        child.crashes += code != EX_TEMPFAIL
        if child.crashes > _CRASHES_IN_A_ROW:
            raise TailraceError(
                f"the part {child.part} crashed {child.crashes} times in a row, last with code {code}",
                fix=f"read {self.log_path(child.part)}",
            )
        child.restarts += 1
        child.due_at = time.monotonic() + child.pause_s
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        why = f": {reason}" if reason else ""
        self.on_event(f"{child.part} {how}{why}; starting it again in {child.pause_s:.1f} s")
        child.pause_s = min(child.pause_s * 2, _LONGEST_PAUSE_S)

    def log_path(self, part: str) -> Path:
        """The log of a part."""
        return self.data_dir / "logs" / f"{part}.log"

    def _stop_children(self) -> None:
        """Stop in the order of the data flow, the broker last: what is read is still committed."""
        running = [child for child in self._children.values() if child.process is not None]
        others = [child for child in running if child.part != BROKER]
        for group in (others, [child for child in running if child.part == BROKER]):
            for child in group:
                if child.process is not None:
                    child.process.terminate()
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            for child in group:
                if child.process is None:
                    continue
                try:
                    child.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self.on_event(f"{child.part} did not stop in {_STOP_TIMEOUT_S:.0f} s and was killed")
                    child.process.kill()
                    child.process.wait()
                os.close(child.reason)

    def _forget_old_status(self) -> None:
        for path in (self.data_dir / "status").glob("*.json"):
            path.unlink()
        endpoints_path(self.data_dir).unlink(missing_ok=True)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(*_: object) -> None:
            self._stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the data directory; TailraceError when another supervisor has it, ConfigError when it cannot be made.

        A directory that is new and still empty at the end is removed again.
        """
        import fcntl

        path = self.data_dir / "run.json"
        made = [folder for folder in (self.data_dir, *self.data_dir.parents) if not folder.exists()]
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            lock = path.open("a+")
        except OSError as error:
            raise ConfigError(
                f"cannot keep the state of the run in {self.data_dir}: {error.strerror}",
                fix="choose a folder that can be written: --data-dir",
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TailraceError(
                    f"the pipeline already runs on {self.data_dir}",
                    fix="stop the other one, or choose another --data-dir",
                ) from None
            lock.truncate(0)
            lock.write(
                json.dumps(
                    {
                        "pid": os.getpid(),
                        "started_at": time.time(),
                        "file": str(self.plan.file),
                        "parts": self.plan.parts(),
                    }
                )
            )
            lock.flush()
            try:
                yield
            finally:
                if made and not self._children:
                    path.unlink()
                    with suppress(OSError):  # somebody keeps something there
                        for folder in made:
                            folder.rmdir()


def _read_reason(child: _Child) -> str:
    """What the part said before it ended; empty when it was killed."""
    try:
        return os.read(child.reason, 4096).decode()
    except BlockingIOError:  # a process that the part had started still holds the other end
        return ""
    finally:
        os.close(child.reason)
