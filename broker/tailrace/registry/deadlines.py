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


class ImpatientProtocol(H11Protocol):
    """Has no deadline for making an answer: the store has its own."""

    _request: asyncio.TimerHandle | None = None
    _answer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_request()
        self._end_answer()

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            self._await_request()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._end_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_answer()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_reader()  # the connection closes only once everything is written

    def _await_request(self) -> None:
        if self._request is None:
            self._request = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _end_request(self) -> None:
        if self._request is not None:
            self._request.cancel()
            self._request = None

    def _await_reader(self) -> None:
        if self._answer is None:
            self._answer = self.loop.call_later(ANSWER_S, self.transport.abort)

    def _end_answer(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None
