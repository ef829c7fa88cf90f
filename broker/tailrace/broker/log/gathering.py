"""When a round of fdatasync waits a moment for more requests: PostgreSQL's commit_delay, set by what it brings.

A producer that keeps several small requests on their way and is told of each by itself costs a sync, a wake-up and an
answer for each.  It loses nothing when the round begins a millisecond later and holds all that came
meanwhile; a producer that sends when it is answered does.  Which of both is there, a pause now and then tells.
"""

PAUSE_S = 0.001
"""The longest pause: the event loop's timers know no shorter one."""

SMALL_BYTES = 128 << 10
"""A round with more than this is worth its sync."""

MOST_REQUESTS = 32
"""So many share the cost of a round well enough."""

TRIED_EVERY = 64
"""Rounds, while pauses bring nothing."""

MEASURED_EVERY = 16
"""Pauses, while they bring something: such a one is not ended early."""

_MOST_CREDIT = 8
_COST = 2  # of a pause that brought nothing, where one that did earns 1


class Gathering:
    """Decides, and learns from what came of it.  Counts requests; knows no clock."""

    def __init__(self) -> None:
        self._credit = 0
        self._rounds = 0
        self._pauses = 0
        self._expected = MOST_REQUESTS
        self._began_with = 0

    def pauses(self, requests: int, size: int) -> bool:
        """Whether the round that is to begin with `requests` of `size` bytes in all shall wait for more."""
        self._rounds += 1
        tries = self._rounds % TRIED_EVERY == 0
        if self._credit == 0 and not tries:
            return False
        if self._credit == 0 or self._pauses % MEASURED_EVERY == 0:
            self._expected = MOST_REQUESTS
        if self.is_enough(requests, size):
            return False
        self._pauses += 1
        self._began_with = requests
        return True

    def is_enough(self, requests: int, size: int) -> bool:
        """Whether a pause ends before its time: as many have come as came of late."""
        return requests >= self._expected or size > SMALL_BYTES

    def paused(self, requests: int) -> None:
        """The pause is over, and the round begins with `requests`."""
        if requests > self._began_with:
            self._credit = min(self._credit + 1, _MOST_CREDIT)
        else:
            self._credit = max(self._credit - _COST, 0)
        self._expected = max(2, requests)
