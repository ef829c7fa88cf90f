"""A broker in a child process, for tests and the quick start."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tailrace.broker.config import BrokerConfig
from tailrace.changes.errors import TailraceError

_START_TIMEOUT_S = 60.0


class EmbeddedBroker:
    """A real broker process on `data_dir`; used as a context manager, or with `start` and `stop`.

    `options` are fields of BrokerConfig; `env` is added to the child's environment.  The port is
    chosen at the first start and kept over `restart`, so that clients find their broker again.
    The broker's own log is `<data_dir>/broker.log`.
    """

    def __init__(self, data_dir: Path, *, env: Mapping[str, str] | None = None, **options: Any) -> None:
        self.config = BrokerConfig(data_dir=data_dir, **options)
        self.env = dict(env or {})
        self.log_path = data_dir / "broker.log"
        self._process: subprocess.Popen[str] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of the first listener, for a client's `bootstrap.servers`."""
        first = self.config.doors()[0]
        return f"{first.host}:{first.port}"

    def address(self, listener: str) -> str:
        """`host:port` of the listener with this name."""
        (found,) = [door for door in self.config.doors() if door.name == listener]
        return f"{found.host}:{found.port}"

    @property
    def pid(self) -> int:
        """Process id of the running child."""
        return self._running().pid

    def start(self) -> Self:
        """Start the child and wait until clients may connect.  Raises TailraceError with the child's reason."""
        if self._process is not None:
            raise TailraceError(f"the embedded broker on {self.config.data_dir} is already started")
        self.config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = {**dataclasses.asdict(self.config), "data_dir": str(self.config.data_dir)}
        self.log_path.touch(mode=0o600)
        with self.log_path.open("a") as log:
            log_start = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "tailrace.broker.service"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.env},
                text=True,
            )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(
            json.dumps(options) + "\n"
        )  # not an argument: every user of the machine sees those
        process.stdin.flush()
        ready = process.stdout.readline()
        if not ready:
            code = process.wait(_START_TIMEOUT_S)
            _close_pipes(process)
            with self.log_path.open() as log:
                log.seek(log_start)
                reason = log.read()[-2000:].strip()
            raise TailraceError(f"the embedded broker exited with code {code} at start: {reason}")
        self._process = process
        told = json.loads(ready)
        if self.config.listeners:
            doors = [dataclasses.replace(d, port=told["listeners"][d.name]) for d in self.config.doors()]
            self.config = dataclasses.replace(self.config, listeners=tuple(map(str, doors)))
        else:
            self.config = dataclasses.replace(self.config, port=told["port"])
        return self

    def kill(self) -> None:
        """SIGKILL: what a power cut of the process looks like."""
        process = self._running()
        process.kill()
        self._reap(process)

    def stop(self) -> int:
        """SIGTERM, wait, and return the exit code (0 after a clean stop)."""
        process = self._running()
        process.terminate()
        return self._reap(process)

    def restart(self) -> Self:
        """Start again on the same data directory and port (after `kill`, `stop` or `wait_for_exit`)."""
        return self.start()

    def wait_for_exit(self, timeout_s: float = 30.0) -> int:
        """Wait until the child ended by itself (a crash point) and return its exit code (-9: SIGKILL)."""
        return self._reap(self._running(), timeout_s)

    def is_running(self) -> bool:
        """Whether the child is alive right now."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise TailraceError(f"the embedded broker on {self.config.data_dir} is not started")
        return self._process

    def _reap(self, process: subprocess.Popen[str], timeout_s: float = 30.0) -> int:
        code = process.wait(timeout_s)
        _close_pipes(process)
        self._process = None
        return code


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
