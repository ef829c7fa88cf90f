"""The broker's listener: start, stop, and the connections that it holds (`tailrace.broker.connection`)."""

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import time
from typing import Any

from tailrace.broker.broker import Broker
from tailrace.broker.config import BrokerConfig
from tailrace.broker.connection import RECEIVE_BUFFER, Connection
from tailrace.changes.errors import ConfigError, TailraceError

_DRAIN_S = 5.0
_COMPLAINTS_PER_SECOND = 20  # so that garbage on the port does not fill the log

_log = logging.getLogger(__name__)


class BrokerServer:
    """The listener of one broker; `broker` is there once `start` has returned."""

    broker: Broker

    def __init__(self, config: BrokerConfig) -> None:
        self.config = config
        self.connections: set[Connection] = set()
        self.receive_buffer = bytearray(RECEIVE_BUFFER)  # of all connections without an unfinished frame
        self.receive_view = memoryview(self.receive_buffer)
        self._complaints = 0
        self._last_left = asyncio.Event()  # while stopping: no connection is open any more
        self._stopping = asyncio.Event()
        self.unanswered: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def start(self) -> tuple[str, int]:
        """Take the port, recover, then listen; returns the address.

        Raises TailraceError when the port is taken (nothing is opened then), ConfigError when the data
        directory cannot be used.
        """
        raise_file_limit()
        sock = self._bind()
        try:
            port = sock.getsockname()[1]
            self.broker = self._open()
            self.broker.port = self.config.advertised_port or port
            await self.broker.start()
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(lambda: Connection(self), sock=sock, backlog=512)
        except BaseException:
            sock.close()
            raise
        _log.info("broker listens on %s:%d", self.config.host, port)
        return self.config.host, port

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
        if self._stopping.is_set() and not self.connections:
            self._last_left.set()

    def complain(self, message: str, *args: object) -> None:
        """Log a warning about a client; of very many, only how many there were."""
        self._complaints += 1
        if self._complaints <= _COMPLAINTS_PER_SECOND:
            _log.warning(message, *args)

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for connection in self.connections:
            connection.stop_reading()
        self.broker.release_parked()
        if self.unanswered and self.broker.failure is None:
            await asyncio.wait(self.unanswered, timeout=_DRAIN_S)
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

    def _bind(self) -> socket.socket:
        host, port = self.config.host, self.config.port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            # IPv4 first: clients that resolve `localhost` try it at the latest as their second
            family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            raise TailraceError(f"the broker cannot listen on {host}: {error}") from error
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise TailraceError(
                    f"the broker cannot listen on {host}:{port}: another process uses this port",
                    fix="Stop that process or choose another port with --listen",
                ) from error
            raise TailraceError(f"the broker cannot listen on {host}:{port}: {error.strerror}") from error
        sock.setblocking(False)
        return sock


def raise_file_limit() -> None:
    """Take all the open files that the system allows this process: each client and each segment needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
