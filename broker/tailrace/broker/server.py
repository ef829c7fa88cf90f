"""The broker's listener: start, stop, and the connections that it holds (`tailrace.broker.connection`)."""

import asyncio
import contextlib
import logging
import resource
import time
from collections.abc import Collection
from typing import Any

from tailrace.broker.broker import Broker
from tailrace.broker.config import BrokerConfig
from tailrace.broker.connection import Connection
from tailrace.broker.listening import BACKLOG, Door, Porter, as_bound, bind
from tailrace.broker.memory_budget import MemoryBudget
from tailrace.broker.receive_buffer import SharedBuffer
from tailrace.changes.errors import ConfigError
from tailrace.security.scram import Mechanism

_DRAIN_S = 5.0
_COMPLAINTS_PER_SECOND = 20  # so that garbage on the port does not fill the log

_log = logging.getLogger(__name__)


class BrokerServer:
    """The listener of one broker; `broker` is there once `start` has returned."""

    broker: Broker

    def __init__(self, config: BrokerConfig) -> None:
        self.config = config
        self.connections: set[Connection] = set()
        self.shared_buffer = SharedBuffer()
        self.budget = MemoryBudget(config.queued_max_request_bytes)
        self._complaints = 0
        self._last_left = asyncio.Event()  # while stopping: no connection is open any more
        self._stopping = asyncio.Event()
        self.unanswered: set[asyncio.Task[None]] = set()
        self.doors: list[Door] = []
        self._porters: list[asyncio.Task[None]] = []

    async def start(self) -> tuple[str, int]:
        """Take the port, recover, then listen; returns the address.

        Raises TailraceError when the port is taken (nothing is opened then), ConfigError when the data
        directory cannot be used.
        """
        raise_file_limit()
        try:
            for listener in self.config.doors():
                self.doors.append(bind(listener))
            self.config = as_bound(self.config, self.doors)
            self.broker = self._open()
            self.broker.host, self.broker.port = self.doors[0].advertised
            self.broker.security.users.on_change = self._close_sessions
            await self.broker.start()
            for door in self.doors:
                door.socket.listen(BACKLOG)
            self._porters = [asyncio.create_task(self._porter(door).run()) for door in self.doors]
        except BaseException:
            for door in self.doors:
                door.socket.close()
            raise
        for door in self.doors:
            _log.info(
                "listener %s (%s) on %s:%d",
                door.listener.name,
                door.listener.protocol,
                door.listener.host,
                door.port,
            )
        return self.address

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first listener."""
        return self.doors[0].listener.host, self.doors[0].port

    def _porter(self, door: Door) -> Porter:
        return Porter(
            door,
            self.broker.security,
            make=lambda address: Connection(self, door, address),
            complain=self.complain,
            handshake_timeout_s=self.config.authentication_timeout_ms / 1000,
        )

    def _close_sessions(self, changed: Collection[tuple[str, Mechanism]]) -> None:
        """Hang up on whoever logged in with a credential that is another one now, or none.

        In a later turn of the loop, so that the one who changed it gets the answer.
        """
        gone = [connection for connection in self.connections if connection.rests_on(changed)]
        for connection in gone:
            asyncio.get_running_loop().call_soon(connection.revoke)

    def stop(self) -> None:
        """Ask `run_until_stopped` to end (signal handlers call this)."""
        self._stopping.set()

    async def run_until_stopped(self) -> None:
        """Serve; return after `stop` and a clean end.  Raises StorageFailure when a disk write failed."""
        failed = asyncio.create_task(self.broker.failed.wait())
        stopped = asyncio.create_task(self._stopping.wait())
        while not (failed.done() or stopped.done()):
            await asyncio.wait((failed, stopped), timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            self._look_after_connections()
        failed.cancel()
        stopped.cancel()
        await self._close()
        if self.broker.failure is not None:
            raise self.broker.failure

    def track(self, work: Any) -> asyncio.Task[None]:
        """Run the rest of a request; it goes on when its client leaves."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self.unanswered.add(task)
        task.add_done_callback(self.unanswered.discard)
        return task

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self.connections.discard(connection)
        self.broker.security.limits.release(connection.address)
        if self._stopping.is_set() and not self.connections:
            self._last_left.set()

    def complain(self, message: str, *args: object) -> None:
        """Log a warning about a client; of very many, only how many there were."""
        self._complaints += 1
        if self._complaints <= _COMPLAINTS_PER_SECOND:
            _log.warning(message, *args)

    async def _close(self) -> None:
        for porter in self._porters:
            porter.cancel()
        await asyncio.gather(*self._porters, return_exceptions=True)
        for connection in self.connections:
            connection.stop_reading()
        self.broker.release_parked()
        if self.unanswered and self.broker.failure is None:
            await asyncio.wait(self.unanswered, timeout=_DRAIN_S)
        if self.broker.failure is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.broker.flusher.settle(), _DRAIN_S)
        for task in self.unanswered:
            task.cancel()
        for connection in list(self.connections):
            connection.close()
        await self.broker.close()
        await self._send_last_answers()
        _log.info("broker stopped")

    async def _send_last_answers(self) -> None:
        """Leave clients a moment to take what was answered."""
        if self.connections and self.broker.failure is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._last_left.wait(), _DRAIN_S)
        for connection in list(self.connections):
            connection.abort()

    def _look_after_connections(self) -> None:
        if self._complaints > _COMPLAINTS_PER_SECOND:
            more = self._complaints - _COMPLAINTS_PER_SECOND
            _log.warning("%d more warnings about clients were left out", more)
        self._complaints = 0
        self.broker.security.refresh()
        if wasteful := self.budget.look_after():
            self.complain(
                "%d connections closed: they finish no frame, and others wait for their memory", wasteful
            )
        now, idle_s = time.monotonic(), self.config.connections_max_idle_ms / 1000
        for connection in list(self.connections):
            connection.look_after(now, idle_s)

    def _open(self) -> Broker:
        try:
            return Broker(self.config)
        except OSError as error:
            raise ConfigError(
                f"the broker cannot use the data directory {self.config.data_dir}: {error.strerror}",
                fix="Choose a directory that can be written with --data-dir",
            ) from error


def raise_file_limit() -> None:
    """Take all the open files that the system allows this process: each client and each segment needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
