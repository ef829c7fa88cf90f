"""uvicorn's HTTP protocol with an end to its patience: who never finishes a request or reads an answer is hung up on.

uvicorn bounds only the idle time between two requests, so a client of half a header would keep its connection for ever.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 30.0
"""From the first byte of a request, or from the connection, to the last."""

ANSWER_S = 30.0
"""For taking what was written already."""


class Deadline:
    """Hangs up on a client, unless it ends in time."""

    def __init__(self, protocol: H11Protocol, seconds: float) -> None:
        self._protocol = protocol
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """From now on, unless it runs already."""
        if self._timer is None:
            self._timer = self._protocol.loop.call_later(self._seconds, self._protocol.transport.abort)

    def end(self) -> None:
        """What was awaited is there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ImpatientProtocol(H11Protocol):
    """Has no deadline for making an answer: the store has its own."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._request = Deadline(self, REQUEST_S)
        self._answer = Deadline(self, ANSWER_S)
        self._request.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._request.end()
        self._answer.end()

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            self._request.begin()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._request.end()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answer.end()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._answer.begin()  # the connection closes only once everything is written
