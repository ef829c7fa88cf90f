"""The broker's sockets: connections, frames, order of answers, back-pressure, start and stop.

Receive path: the kernel writes into a buffer of the connection, and `buffer_updated` hands each whole
frame to its handler while the bytes are still there.  A produce handler appends before it returns, so
only durability is awaited and record batches are never copied.

Order: as in Kafka, a request starts when the one before it on the same connection is answered; only
produce requests may overtake the durability of produce requests before them.  Answers leave in request order.
"""

import asyncio
import errno
import inspect
import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, cast

from tailrace.broker.broker import Broker
from tailrace.broker.config import BrokerConfig
from tailrace.broker.handlers import HANDLERS, RequestContext
from tailrace.broker.handlers.api_versions import unsupported_version_answer
from tailrace.broker.handlers.context import CloseConnection
from tailrace.broker.protocol import (
    ApiKey,
    Buffer,
    MalformedMessageError,
    RequestHeader,
    UnsupportedVersionError,
    decode_request,
    encode_response,
)
from tailrace.changes.errors import ConfigError, TailraceError

_SIZE = struct.Struct(">i")
_FIRST_BUFFER = 1 << 16
_KEPT_BUFFER = 4 << 20  # a larger receive buffer is given back when it is empty
_DRAIN_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Slot:
    """One request that was started and its answer: None until it is there, () for no answer at all."""

    is_produce: bool
    size: int
    parts: list[Buffer] | None = field(default=None)


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, server: "BrokerServer") -> None:
        self._server = server
        self._broker = server.broker
        self._config = server.config
        self._buffer = bytearray(_FIRST_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._slots: deque[_Slot] = deque()
        self._backlog: deque[bytes] = deque()
        self._held_bytes = 0  # of requests that are not answered yet
        self._reading = True
        self._client_slow = False
        self._stopping = False
        self.last_active = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._client_host = ""

    # -- asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self._client_host = f"/{peer[0]}" if peer else ""
        self._server.connections.add(self)
        self._broker.counters.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._backlog.clear()
        self._server.connections.discard(self)
        self._broker.counters.connections -= 1

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._broker.counters.bytes_in += nbytes
        self.last_active = time.monotonic()
        start = 0
        missing = 0
        while self._filled - start >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._buffer, start)
            if not 0 < size <= self._config.request_max_bytes:
                self._drop(
                    "a frame of %d bytes; request_max_bytes is %d", size, self._config.request_max_bytes
                )
                return
            begin, end = start + _SIZE.size, start + _SIZE.size + size
            if end > self._filled:
                missing = _SIZE.size + size
                break
            self._accept(self._view[begin:end])
            if self._transport is None:
                return
            start = end
        self._keep_rest(start, missing)

    def pause_writing(self) -> None:
        self._client_slow = True
        self._read_or_pause()

    def resume_writing(self) -> None:
        self._client_slow = False
        self._work_off_backlog()
        self._read_or_pause()

    # -- requests --------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether every request is answered."""
        return not self._slots and not self._backlog

    def stop_reading(self) -> None:
        """Take no further request; those that started are still answered."""
        self._stopping = True
        self._backlog.clear()
        self._read_or_pause()

    def close(self) -> None:
        """Close after what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def _accept(self, frame: memoryview) -> None:
        self._held_bytes += len(frame)
        if self._backlog or not self._may_start(frame):
            self._backlog.append(bytes(frame))
        else:
            self._start(frame)
        self._read_or_pause()

    def _may_start(self, frame: Buffer) -> bool:
        if self._client_slow:
            return False
        if not self._slots:
            return True
        is_produce = len(frame) >= 2 and (frame[0] << 8 | frame[1]) == ApiKey.PRODUCE
        return is_produce and all(slot.is_produce for slot in self._slots)

    def _start(self, frame: Buffer) -> None:
        try:
            header, request = decode_request(frame)
        except UnsupportedVersionError as error:
            self._answer_unsupported(error, len(frame))
            return
        except MalformedMessageError as error:
            self._drop("%s", error)
            return
        handler = HANDLERS.get(cast(ApiKey, header.api_key))
        if handler is None:
            self._drop("API key %d, which is not served", header.api_key)
            return
        slot = _Slot(header.api_key is ApiKey.PRODUCE, len(frame))
        self._slots.append(slot)
        context = RequestContext(self._broker, header.api_version, header.client_id or "", self._client_host)
        try:
            answer = handler(context, request)
            if inspect.isawaitable(answer):
                self._server.track(self._finish(slot, header, answer))
            else:
                self._answer(slot, header, answer)
        except Exception as error:  # noqa: BLE001 - whatever a handler does, only its client suffers
            self._failed(header, error)

    async def _finish(self, slot: _Slot, header: RequestHeader, pending: Awaitable[Any]) -> None:
        try:
            self._answer(slot, header, await pending)
        except Exception as error:  # noqa: BLE001 - whatever a handler does, only its client suffers
            self._failed(header, error)
            return
        self._work_off_backlog()
        self._read_or_pause()

    def _answer(self, slot: _Slot, header: RequestHeader, answer: Any) -> None:
        if answer is None:
            slot.parts = []
        else:
            slot.parts = encode_response(
                cast(ApiKey, header.api_key), header.api_version, header.correlation_id, answer
            )
        self._send_ready()

    def _answer_unsupported(self, error: UnsupportedVersionError, size: int) -> None:
        header = error.header
        if header.api_key != ApiKey.API_VERSIONS:
            self._drop("%s", error)
            return
        parts = encode_response(ApiKey.API_VERSIONS, 0, header.correlation_id, unsupported_version_answer())
        self._slots.append(_Slot(False, size, parts))
        self._send_ready()

    def _send_ready(self) -> None:
        out: list[Buffer] = []
        while self._slots and self._slots[0].parts is not None:
            slot = self._slots.popleft()
            self._held_bytes -= slot.size
            out += slot.parts or ()
        if out and self._transport is not None:
            self._broker.counters.bytes_out += sum(map(len, out))
            self.last_active = time.monotonic()
            self._transport.writelines(out)

    def _work_off_backlog(self) -> None:
        while self._backlog and self._transport is not None and self._may_start(self._backlog[0]):
            self._start(self._backlog.popleft())

    def _read_or_pause(self) -> None:
        room = self._held_bytes < self._config.max_in_flight_bytes
        wanted = room and not self._client_slow and not self._stopping
        if self._transport is None or wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _keep_rest(self, start: int, missing: int) -> None:
        rest = self._filled - start
        capacity = len(self._buffer)
        wanted = max(missing, _FIRST_BUFFER)
        if missing > capacity or (capacity > _KEPT_BUFFER and wanted <= _KEPT_BUFFER):
            buffer = bytearray(max(wanted, min(2 * missing, _KEPT_BUFFER)))
            buffer[:rest] = self._view[start : self._filled]
            self._buffer, self._view = buffer, memoryview(buffer)
        elif start and rest:
            self._view[:rest] = bytes(self._view[start : self._filled])
        self._filled = rest

    # -- failures --------------------------------------------------------------------------------------

    def _drop(self, why: str, *args: object) -> None:
        _log.warning("connection from %s closed: it sent " + why, self._client_host, *args)
        self._abort()

    def _failed(self, header: RequestHeader, error: Exception) -> None:
        if isinstance(error, CloseConnection):
            _log.warning("connection from %s closed: %s", self._client_host, error)
        elif self._broker.failure is None:
            _log.error(
                "request %s v%d of %s failed, its connection is closed",
                getattr(header.api_key, "name", header.api_key),
                header.api_version,
                self._client_host,
                exc_info=error,
            )
        self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._backlog.clear()


class BrokerServer:
    """The listener of one broker; `broker` is there once `start` has returned."""

    broker: Broker

    def __init__(self, config: BrokerConfig) -> None:
        self.config = config
        self.connections: set[Connection] = set()
        self._stopping = asyncio.Event()
        self._requests: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def start(self) -> tuple[str, int]:
        """Take the port, recover, then listen; returns the address.

        Raises TailraceError when the port is taken (nothing is opened then), ConfigError when the data
        directory cannot be used.
        """
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
            self._close_idle()
        failed.cancel()
        stopped.cancel()
        await self._close()
        if self.broker.failure is not None:
            raise self.broker.failure

    def track(self, work: Any) -> None:
        """Run the rest of a request; it goes on when its client leaves."""
        task = asyncio.get_running_loop().create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for connection in self.connections:
            connection.stop_reading()
        self.broker.release_parked()
        if self._requests and self.broker.failure is None:
            await asyncio.wait(self._requests, timeout=_DRAIN_S)
        for task in self._requests:
            task.cancel()
        for connection in list(self.connections):
            connection.close()
        await self.broker.close()
        _log.info("broker stopped")

    def _close_idle(self) -> None:
        before = time.monotonic() - self.config.connections_max_idle_ms / 1000
        for connection in [c for c in self.connections if c.idle and c.last_active < before]:
            connection.close()

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
