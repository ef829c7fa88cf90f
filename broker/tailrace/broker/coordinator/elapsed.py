"""How long ago something in a log was, as far as this process can know.

A recorded time may come from another process under another clock: one that was a year ahead, or from before
a year in which the machine was off.  Nothing may expire for that.  So time counts from the start of this
process: a restart starts every timeout anew, and a jump of the wall clock changes nothing.
"""

from typing import Protocol


class MillisecondClock(Protocol):
    """The clock of the log layer: it never jumps while the process lives."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


class Elapsed:
    """Ages of recorded times, in ms."""

    def __init__(self, clock: MillisecondClock) -> None:
        self._clock = clock
        self._start_ms = clock.now_ms()

    def since(self, recorded_ms: int) -> int:
        """Milliseconds that this process saw pass since `recorded_ms`."""
        now_ms = self._clock.now_ms()
        own = self._start_ms <= recorded_ms <= now_ms
        return now_ms - (recorded_ms if own else self._start_ms)
