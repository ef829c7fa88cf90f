"""One client's connection: frames, order of answers, back-pressure, and what a bad client may cost.

Receive path: the kernel writes into a buffer, and `buffer_updated` hands each whole frame to its handler
while the bytes are still there.  A produce handler appends before it returns, so only durability is
awaited and record batches are never copied (`receive_buffer`).

Order: as in Kafka, a request starts when the one before it on the same connection is answered; only
produce requests may overtake the durability of produce requests before them.  Answers leave in request order.
"""

import asyncio
import inspect
import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from tailrace.broker import gate
from tailrace.broker.guards import guarded
from tailrace.broker.handlers import HANDLERS, RequestContext
from tailrace.broker.handlers.api_versions import unsupported_version_answer
from tailrace.broker.handlers.context import CloseConnection
from tailrace.broker.handlers.failures import failure_answer
from tailrace.broker.log import StorageFailure
from tailrace.broker.log.when_durable import WhenDurable
from tailrace.broker.memory_budget import Share
from tailrace.broker.outgoing import Outgoing
from tailrace.broker.protocol import (
    ApiKey,
    Buffer,
    MalformedMessageError,
    RequestHeader,
    UnsupportedVersionError,
    decode_request,
    encode_response,
)
from tailrace.broker.receive_buffer import ReceiveBuffer
from tailrace.broker.visitor import Visitor
from tailrace.security.sasl import SaslFailure, SaslSession
from tailrace.security.scram import Mechanism

if TYPE_CHECKING:
    from tailrace.broker.listening import Door
    from tailrace.broker.server import BrokerServer

_SIZE = struct.Struct(">i")
_BUFFER_KEPT_S = 5.0  # memory of its own is given back when nothing came for so long
_TURN_S = 0.005  # work for one connection before the others get their turn
_MOST_UNANSWERED = 1000  # requests after which a connection is not read any further

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Slot:
    """One request that was started and its answer: None until it is there, () for no answer at all."""

    is_produce: bool
    size: int
    parts: list[Buffer] | None = field(default=None)
    waiting_fetch: "asyncio.Task[None] | None" = field(default=None)
    began: float = field(default_factory=time.monotonic)
    busy_s: float = 0.0  # of the event loop, before anything was awaited


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, server: "BrokerServer", door: "Door", address: str) -> None:
        self._server = server
        self._broker = server.broker
        self._config = server.config
        self.address = address
        self._visitor = Visitor(server.broker.security, door, address, server.config.request_max_bytes)
        self._meter = gate.Meter(server.broker.security.quotas)
        self._muted = False  # over a quota: nothing is read or started until its time is over
        self._received = ReceiveBuffer(server.shared_buffer)
        self._slots: deque[_Slot] = deque()
        self._backlog: deque[bytes] = deque()
        self._share = Share(server.budget, self._read_or_pause, lambda: self._reading, self.abort)
        self._reading = True
        self._outgoing = Outgoing(
            self._answers_are_sent, partial(self._drop, "a request for what cannot be read: %s")
        )
        self._unsent = self._taken = 0  # bytes that a slow client has not taken, and has, as last counted
        self._resting = False  # its turn is over, the others have theirs
        self._stopping = False
        self._sends_soon = False
        self.last_active = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._client_host = ""
        self._context: RequestContext | None = None  # of the last request: the next one's is mostly the same

    # -- asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._outgoing.begin(self._transport)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client_host = f"/{self.address}"
        self._server.connections.add(self)
        self._broker.counters.connections += 1
        try:
            if not self._visitor.meet(transport.get_extra_info("ssl_object")):
                self._server.complain("connection from %s closed: no rule names its user", self._client_host)
                self.abort()
        except Exception:  # noqa: BLE001 - whoever cannot be told from others must not be taken for anybody
            _log.exception("connection from %s closed: who it is cannot be found out", self._client_host)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._outgoing.end()
        self._backlog.clear()
        self._note_unsent(0)
        self._share.close()
        for slot in self._slots:
            if slot.waiting_fetch is not None:
                slot.waiting_fetch.cancel()  # nobody waits for its data any more
        self._server.forget(self)
        self._broker.counters.connections -= 1

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._received.room()

    def buffer_updated(self, nbytes: int) -> None:
        received = self._received
        received.filled += nbytes
        self._broker.counters.bytes_in += nbytes
        self.last_active = now = time.monotonic()
        start = 0
        missing = 0
        while received.filled - start >= _SIZE.size:
            (size,) = _SIZE.unpack_from(received.view, start)
            if not 0 < size <= self._visitor.most_frame:
                first, most = bytes(received.view[start : start + _SIZE.size]), self._config.request_max_bytes
                self._drop(*gate.impossible_size(size, first, self._visitor.most_frame, most))
                return
            begin, end = start + _SIZE.size, start + _SIZE.size + size
            if end > received.filled:
                missing = _SIZE.size + size
                break
            self._accept(received.view[begin:end])
            if self._transport is None:
                return
            start = end
            if time.monotonic() - now > _TURN_S and start < received.filled:
                self._rest()
        received.keep_rest(start, missing, now)
        if received.filled != self._share.unfinished:
            self._share.note_unfinished(received.filled, missing)
        else:
            self._read_or_pause()

    def pause_writing(self) -> None:
        self._outgoing.pause()
        if self._transport is not None:
            self._note_unsent(self._transport.get_write_buffer_size())
        self._read_or_pause()

    def resume_writing(self) -> None:
        self._outgoing.resume()
        if not self._outgoing.slow:
            self._answers_are_sent()

    def _answers_are_sent(self) -> None:
        self._note_unsent(0)
        self._go_on()

    # -- what the server asks --------------------------------------------------------------------------

    def stop_reading(self) -> None:
        """Take no further request; those that started are still answered."""
        self._stopping = True
        self._backlog.clear()
        self._read_or_pause()

    def close(self) -> None:
        """Close after what was written is sent."""
        self._outgoing.close()

    def abort(self) -> None:
        """Close now; what was written and not sent is lost."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
            self._outgoing.end()
        self._backlog.clear()

    def look_after(self, now: float, idle_s: float) -> None:
        """Called about once a second: give memory back, and hang up on a client that is gone or stuck.

        That is one that asks nothing for `idle_s`, takes none of its answers, or does not finish a frame.
        """
        if self._transport is None:
            return
        if self._outgoing.slow:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent or self._outgoing.handed_over > self._taken:
                self.last_active = now  # it takes them slowly
            self._taken = self._outgoing.handed_over
            self._note_unsent(unsent)
            if self.last_active < now - idle_s:
                self._server.complain("connection from %s closed: it reads no answers", self._client_host)
                self.abort()
        elif self._reading and 0 < self._received.frame_began < now - idle_s:
            self._server.complain("connection from %s closed: it finishes no frame", self._client_host)
            self.abort()
        elif self._visitor.logs_in_too_slowly(now, self._config.authentication_timeout_ms / 1000):
            self._server.complain("connection from %s closed: it does not log in", self._client_host)
            self.abort()
        elif not (self._slots or self._backlog or self._muted) and self.last_active < now - idle_s:
            self.close()
        elif not self._received.filled and self.last_active < now - _BUFFER_KEPT_S:
            self._received.share()

    def rests_on(self, changed: Collection[tuple[str, Mechanism]]) -> bool:
        """Whether the client logged in with one of these credentials."""
        return self._visitor.rests_on(changed)

    def revoke(self) -> None:
        """Serve nothing more to a client whose credential is gone."""
        self._server.complain("connection from %s closed: its credential changed", self._client_host)
        self.stop_reading()
        self.close()

    # -- login -----------------------------------------------------------------------------------------

    def _after_login_step(self, session: SaslSession) -> None:
        if session.failed:
            self._server.complain("login from %s failed: %s", self._client_host, session.failure)
            self._stopping = True  # what follows a failed login is not served
            self._backlog.clear()
            self.close()
        else:
            self._visitor.after_login_step()

    async def _answer_raw_token(self, session: SaslSession, slot: _Slot, token: bytes) -> None:
        """A message of the exchange without a request around it: what follows SaslHandshake v0."""
        try:
            answer, _ = await session.answer(token)
        except SaslFailure:
            await asyncio.sleep(self._config.connection_failed_authentication_delay_ms / 1000)
            answer = b""  # this form has no way to say so
        if session.failed:
            self._after_login_step(session)
            return
        slot.parts = [_SIZE.pack(len(answer)), answer]
        self._send_ready()
        self._after_login_step(session)
        self._go_on()

    # -- requests --------------------------------------------------------------------------------------

    def _accept(self, frame: memoryview) -> None:
        if self._stopping:
            return  # what came in one piece with the last request that is served
        self._share.take(len(frame))
        if self._backlog or not self._may_start(frame):
            self._backlog.append(bytes(frame))
        else:
            self._start(frame)

    def _may_start(self, frame: Buffer) -> bool:
        if self._outgoing.slow or self._resting or self._muted:
            return False
        if not self._slots:
            return True
        # behind a produce request only produce requests start, so the first one tells of all
        return self._slots[0].is_produce and gate.api_key_of(frame) == ApiKey.PRODUCE

    def _start(self, frame: Buffer) -> None:
        session = self._visitor.session
        if session is not None and session.raw:
            slot = _Slot(False, len(frame))
            self._slots.append(slot)
            self._server.track(self._answer_raw_token(session, slot, bytes(frame)))
            return
        if session is not None and not session.may_ask and gate.api_key_of(frame) not in gate.LOGIN_APIS:
            # before a byte of it is decoded
            self._drop("API key %d without a login that holds", gate.api_key_of(frame))
            return
        try:
            header, request = decode_request(frame)
        except UnsupportedVersionError as error:
            self._answer_unsupported(error, len(frame))
            return
        except MalformedMessageError as error:
            self._drop("%s", error)
            return
        api_key = header.api_key
        handler = HANDLERS.get(api_key)
        if handler is None:
            self._drop("API key %d, which is not served", api_key)
            return
        slot = _Slot(api_key is ApiKey.PRODUCE, len(frame))
        self._slots.append(slot)
        context = self._context_of(header)
        if self._meter.active and api_key is ApiKey.FETCH:
            self._meter.narrow(self._who(header), request)
        try:
            answer = guarded(context, api_key, request, handler)
            slot.busy_s = time.monotonic() - slot.began
            if isinstance(answer, WhenDurable) and not answer.settled:  # a produce request costs no task
                answer.then(partial(self._durable, slot, header, request, answer))
            elif isinstance(answer, WhenDurable):
                self._answer(slot, header, answer.result())
            elif inspect.isawaitable(answer):
                task = self._server.track(self._finish(slot, header, request, answer))
                if api_key is ApiKey.FETCH:
                    slot.waiting_fetch = task
            else:
                self._answer(slot, header, answer)
        except Exception as error:  # noqa: BLE001 - whatever a handler does, only its client suffers
            self._failed(slot, header, request, error)

    def _context_of(self, header: RequestHeader) -> RequestContext:
        caller, client_id, context = self._visitor.caller, header.client_id or "", self._context
        if (
            context is None
            or context.version != header.api_version
            or context.client_id != client_id
            or context.caller is not caller
        ):
            context = RequestContext(self._broker, header.api_version, client_id, self._client_host, caller)
            self._context = context
        return context

    async def _finish(
        self, slot: _Slot, header: RequestHeader, request: Any, pending: Awaitable[Any]
    ) -> None:
        try:
            self._answer(slot, header, await pending)
        except Exception as error:  # noqa: BLE001 - whatever a handler does, only its client suffers
            self._failed(slot, header, request, error)
        self._go_on()

    def _durable(self, slot: _Slot, header: RequestHeader, request: Any, answer: WhenDurable[Any]) -> None:
        """Answer a produce request, in one piece with the others that the same round made durable."""
        try:
            self._note_answer(slot, header, answer.result())
        except Exception as error:  # noqa: BLE001 - whatever a handler does, only its client suffers
            self._failed(slot, header, request, error)
        if not self._slots or slot is self._slots[-1]:
            self._send_and_go_on()
        elif not self._sends_soon:
            self._sends_soon = True
            asyncio.get_running_loop().call_soon(self._send_and_go_on)

    def _answer(self, slot: _Slot, header: RequestHeader, answer: Any) -> None:
        self._note_answer(slot, header, answer)
        self._send_ready()
        if self._visitor.session is not None and header.api_key in gate.LOGIN_APIS:
            self._after_login_step(self._visitor.session)

    def _note_answer(self, slot: _Slot, header: RequestHeader, answer: Any) -> None:
        slot.parts = self._encoded(slot, header, answer)
        took_ms = (time.monotonic() - slot.began) * 1000
        self._broker.requests.answered(header.api_key, header.api_version, took_ms, answer)

    def _encoded(self, slot: _Slot, header: RequestHeader, answer: Any) -> list[Buffer]:
        if not self._meter.active:
            return _encode(header, answer)
        cost = gate.Cost(slot.size, slot.busy_s)
        encode = partial(_encode, header)
        parts, delay_s = self._meter.encode(self._who(header), header.api_key, cost, answer, encode)
        if delay_s > 0:
            self._mute(delay_s)
        return parts

    def _who(self, header: RequestHeader) -> tuple[str, str]:
        """The user and the client id that quotas are for."""
        return self._visitor.caller.principal.name, (header.client_id or "")[: gate.LONGEST_CLIENT_ID]

    def _mute(self, delay_s: float) -> None:
        """Neither read nor start anything: the client is over its quota (KIP-219)."""
        if not self._muted:
            self._muted = True
            asyncio.get_running_loop().call_later(delay_s, self._unmute)
            self._read_or_pause()

    def _unmute(self) -> None:
        self._muted = False
        self._go_on()

    def _answer_unsupported(self, error: UnsupportedVersionError, size: int) -> None:
        if error.api_key != ApiKey.API_VERSIONS:
            self._drop("%s", error)
            return
        parts = encode_response(ApiKey.API_VERSIONS, 0, error.correlation_id, unsupported_version_answer())
        self._slots.append(_Slot(False, size, parts))
        self._send_ready()

    def _send_and_go_on(self) -> None:
        self._sends_soon = False
        self._send_ready()
        self._go_on()

    def _send_ready(self) -> None:
        out: list[Buffer] = []
        while self._slots and self._slots[0].parts is not None:
            slot = self._slots.popleft()
            self._share.give_back(slot.size)
            out += slot.parts or ()
        if out and self._transport is not None:
            self._broker.counters.bytes_out += sum(map(len, out))
            self.last_active = time.monotonic()
            self._outgoing.send(out)

    # -- turns and back-pressure -----------------------------------------------------------------------

    def _work_off_backlog(self) -> None:
        began = time.monotonic()
        while self._backlog and self._transport is not None and self._may_start(self._backlog[0]):
            self._start(self._backlog.popleft())
            if time.monotonic() - began > _TURN_S and self._backlog:
                self._rest()

    def _rest(self) -> None:
        """Leave the rest to a later turn of the loop: what is still to start goes to the backlog."""
        if not self._resting:
            self._resting = True
            asyncio.get_running_loop().call_soon(self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._go_on()

    def _go_on(self) -> None:
        """Something that held requests back is over."""
        self._work_off_backlog()
        self._read_or_pause()

    def _read_or_pause(self) -> None:
        room = (
            self._share.held < self._config.max_in_flight_bytes
            and len(self._slots) + len(self._backlog) < _MOST_UNANSWERED
        )
        wanted = room and not (self._outgoing.slow or self._stopping or self._muted)
        wanted = wanted and self._share.budget.admits(self._share)
        if self._transport is None or wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _note_unsent(self, unsent: int) -> None:
        self._broker.counters.unsent_bytes += unsent - self._unsent
        self._unsent = unsent

    # -- failures --------------------------------------------------------------------------------------

    def _drop(self, why: Any, *args: object) -> None:
        self._server.complain("connection from %s closed: it sent " + why, self._client_host, *args)
        self.abort()

    def _failed(self, slot: _Slot, header: RequestHeader, request: Any, error: Exception) -> None:
        """Tell the client that its request failed, where its API can say so; else hang up."""
        if isinstance(error, CloseConnection):
            self._server.complain("connection from %s closed: %s", self._client_host, error)
            self.abort()
            return
        if self._broker.failure is not None or isinstance(error, StorageFailure):
            self.abort()  # the broker ends; nothing may be acknowledged
            return
        api_key = header.api_key
        _log.error(
            "request %s v%d of %s failed", api_key.name, header.api_version, self._client_host, exc_info=error
        )
        answer = failure_answer(api_key, header.api_version, request)
        if answer is None or slot.parts is not None:
            self.abort()
        else:
            self._answer(slot, header, answer)


def _encode(header: RequestHeader, answer: Any) -> list[Buffer]:
    if answer is None:
        return []
    return encode_response(header.api_key, header.api_version, header.correlation_id, answer)
