"""Something that may be told only when the records that it speaks of are durable."""

import asyncio
import logging
from collections.abc import Callable, Generator
from functools import partial
from typing import Generic, TypeVar

from tailrace.broker.log.errors import StorageFailure

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class WhenDurable(Generic[_T]):
    """A value that is given out when it is settled: to `then` at once, to `await` in a later turn of the loop.

    What a future is, without a turn of the loop for each producer that waits.
    """

    __slots__ = ("_failure", "_told", "_value", "settled")

    def __init__(self, value: _T) -> None:
        self._value = value
        self._failure: StorageFailure | None = None
        self._told: list[Callable[[], object]] = []
        self.settled = False

    def settle(self, failure: StorageFailure | None = None) -> None:
        """Tell everybody who waits; once."""
        self._failure = failure
        self.settled = True
        told, self._told = self._told, []  # which know this object: no cycle is left to the garbage collector
        for tell in told:
            try:
                tell()
            except Exception:  # noqa: BLE001 - the others wait too
                _log.exception("what was to follow a sync failed")

    def then(self, tell: Callable[[], object]) -> None:
        """Call `tell` when this is settled, which it is not yet."""
        self._told.append(tell)

    def result(self) -> _T:
        """The value, once settled.  Raises StorageFailure when nobody knows what is durable."""
        if self._failure is not None:
            raise self._failure
        return self._value

    def __await__(self) -> Generator[object, None, _T]:
        if not self.settled:
            turn = asyncio.get_running_loop().create_future()
            self.then(partial(_wake, turn))
            yield from turn
        return self.result()


def _wake(turn: "asyncio.Future[None]") -> None:
    if not turn.done():  # its task was cancelled
        turn.set_result(None)
