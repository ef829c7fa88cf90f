"""Bytes of requests over all connections (`queued.max.request.bytes`): those not answered yet, and unfinished frames.

    under the budget    everybody is read
    over it             who holds little is read; of the others those whose turn it is, until their frame is whole

Turns go to whose frames lack least, as many as lack a quarter of the budget together, and always one.  So a client that
begins frames and leaves them costs neither the memory of the broker nor the turns of others: who has a turn and does
not finish its frame is hung up on.  What is held stays below the budget and a quarter, or one frame, and SMALL for each
connection.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

SMALL = 1 << 16
_TURN_S = 10.0
_UNLIMITED = 1 << 62


class MemoryBudget:
    """Of one broker; it belongs to the event loop's thread."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        """most: bytes; -1: no limit."""
        self.held = 0
        self.most = most if most > 0 else _UNLIMITED
        self.waiting: dict[Share, None] = {}
        self._now = now
        self._turns: dict[Share, tuple[float, int]] = {}  # when each ends, and what its frame lacked
        self._lacking = 0  # by all of them

    def admits(self, share: "Share") -> bool:
        """Whether its client may be read; if not, it is told when it may."""
        if self.held < self.most or share in self._turns or share.held + share.unfinished < SMALL:
            self.waiting.pop(share, None)
            return True
        self.waiting[share] = None
        return self._give_turn(share)

    def wake(self) -> None:
        """Something was given back while others waited for it."""
        if self.held < self.most:
            woken, self.waiting = self.waiting, {}
            self._turns.clear()
            self._lacking = 0
            for share in woken:
                share.reconsider()

    def end_turn(self, share: "Share") -> None:
        """Its frame is whole, or its connection closed: if it had a turn, others have theirs."""
        if share in self._turns:
            self._lacking -= self._turns.pop(share)[1]
            self._hand_out()

    def look_after(self) -> int:
        """Called about once a second: hang up on who wasted its turn; on how many."""
        if self.held < self.most:
            self._turns.clear()
            self._lacking = 0
            return 0
        now, wasted = self._now(), 0
        for share in [share for share, (ends, _) in self._turns.items() if ends <= now]:
            if share.is_read():  # else something else keeps it from being read, and it will ask again
                wasted += 1
                share.abort()
            self.end_turn(share)
        return wasted

    def _hand_out(self) -> None:
        while self.held >= self.most:
            unfinished = [share for share in self.waiting if share.unfinished]
            following = min(unfinished, key=lambda share: share.lacking, default=None)
            if following is None or not self._give_turn(following):
                return
            following.reconsider()

    def _give_turn(self, share: "Share") -> bool:
        if not share.unfinished or (self._turns and self._lacking + share.lacking > self.most // 4):
            return False
        self.waiting.pop(share, None)
        self._turns[share] = (self._now() + _TURN_S, share.lacking)
        self._lacking += share.lacking
        return True


@dataclass(slots=True, eq=False)
class Share:
    """What one connection has of the budget.

    `reconsider`: ask again whether its client may be read; `is_read`: whether it is; `abort`: hang up.
    """

    budget: MemoryBudget
    reconsider: Callable[[], None]
    is_read: Callable[[], bool]
    abort: Callable[[], None]
    held: int = 0
    """Bytes of requests that are not answered yet."""
    unfinished: int = 0
    """Bytes of a frame that is not whole yet."""
    lacking: int = 0
    """Bytes that it lacks."""
    closed: bool = False

    def take(self, size: int) -> None:
        """A request has come."""
        self.held += size
        self.budget.held += size

    def give_back(self, size: int) -> None:
        """A request is answered."""
        if self.closed:
            return  # with all the others
        self.held -= size
        self.budget.held -= size
        if self.budget.waiting:
            self.budget.wake()

    def note_unfinished(self, size: int, whole: int) -> None:
        """So much of the next frame is here, which has `whole` bytes; 0: not known yet."""
        is_whole = size < self.unfinished
        self.budget.held += size - self.unfinished
        self.unfinished, self.lacking = size, max(0, whole - size)
        if is_whole:
            self.budget.end_turn(self)
            if self.budget.waiting:
                self.budget.wake()
        self.reconsider()

    def close(self) -> None:
        """Give everything back: the connection is gone."""
        self.closed = True
        self.budget.held -= self.held + self.unfinished
        self.budget.waiting.pop(self, None)
        self.budget.end_turn(self)
        if self.budget.waiting:
            self.budget.wake()
        self.reconsider = self.abort = (
            _nothing  # the connection's memory does not wait for the garbage collector
        )
        self.is_read = bool


def _nothing() -> None:
    """What a connection that is gone does."""
