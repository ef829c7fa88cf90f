"""What a connection sends: in order, and from the files no sooner than its client takes it."""

import asyncio
import struct
from collections import deque
from collections.abc import Callable

from tailrace.broker.log.unread import Unread
from tailrace.broker.protocol import Buffer

_PIECE = 256 << 10  # small enough for the processor's cache, large enough that calls do not count
_TURN = 4 << 20  # bytes for one connection before the others get their turn


class Outgoing:
    """The answers of one connection on their way to its transport.

    `emptied`: called when `slow` ends by itself, not in `resume`; `unreadable`: a file cannot be read, so that the
    answer that has begun cannot be finished.
    """

    def __init__(self, emptied: Callable[[], None], unreadable: Callable[[Exception], None]) -> None:
        self._emptied = emptied
        self._unreadable = unreadable
        self._transport: asyncio.Transport | None = None
        self._parts: deque[Buffer | Unread] = deque()
        self._paused = False
        self._resting = False
        self._closing = False
        self.handed_over = 0
        """Bytes of all answers that were not handed over at once."""

    @property
    def slow(self) -> bool:
        """Whether the client has still to take what was sent: nothing else is read or started meanwhile."""
        return self._paused or bool(self._parts)

    def begin(self, transport: asyncio.Transport) -> None:
        """The connection is made."""
        self._transport = transport

    def end(self) -> None:
        """The connection is gone."""
        self._transport = None
        self._parts.clear()
        self._emptied = self._unreadable = _nothing  # the connection does not wait for the garbage collector

    def send(self, parts: list[Buffer]) -> None:
        """Send an answer, or several; parts of it may be `Unread`."""
        if self._parts or any(isinstance(part, Unread) for part in parts):
            self._parts += parts
            self._hand_over()
        elif self._transport is not None:
            self._transport.writelines(parts)

    def pause(self) -> None:
        """The client takes nothing for now."""
        self._paused = True

    def resume(self) -> None:
        """The client took what the transport held."""
        self._paused = False
        self._hand_over()

    def close(self) -> None:
        """Close the transport when all is sent."""
        self._closing = True
        if self._transport is not None and not self._parts:
            self._transport.close()

    def _hand_over(self) -> None:
        turn = _TURN
        while self._parts and self._transport is not None and not (self._paused or self._resting):
            if turn <= 0:
                self._resting = True
                asyncio.get_running_loop().call_soon(self._go_on)
                return
            try:
                piece, size = self._next_piece()
            except (OSError, struct.error) as error:
                self._unreadable(error)
                return
            turn -= size
            self.handed_over += size
            self._transport.writelines(piece)
        if self._closing:
            self.close()

    def _go_on(self) -> None:
        self._resting = False
        self._hand_over()
        if not self.slow:
            self._emptied()

    def _next_piece(self) -> tuple[list[Buffer], int]:
        piece: list[Buffer] = []
        size = 0
        while self._parts and size < _PIECE:
            part = self._parts[0]
            if isinstance(part, Unread):
                data: Buffer = part.take(_PIECE - size)
                if not part:
                    self._parts.popleft()
            else:
                data = part
                self._parts.popleft()
            piece.append(data)
            size += len(data)
        return piece, size


def _nothing(*_: object) -> None:
    """What is called of a connection that is gone."""
