"""What one client process does next: polls and sends, alone or mixed in transactions, over keys that move on.

A key is one partition ("t3/1").  A few keys are active at a time; over a run new ones follow, so that topics are
made and grow while producers and consumers use them.  The same seed and process choose alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.jepsen.history import Kind, Poll, Send, Step

PARTITIONS = 2  # of each topic
ACTIVE_KEYS = 4
SHIFTS = 6  # how often the oldest active key gives way to a new one
MOST_STEPS = 4
ASSIGN_SHARE = 1 / 12
VALUES_PER_PROCESS = 1_000_000


def topic_partition(key: str) -> tuple[str, int]:
    """Topic and partition of a key."""
    topic, _, partition = key.partition("/")
    return topic, int(partition)


@dataclass(frozen=True, slots=True)
class Task:
    """One operation to come."""

    kind: Kind
    steps: tuple[Step, ...] = ()
    keys: tuple[str, ...] = ()


class Workload:
    """An endless source of tasks; `subscribes`: by topics and not by partitions."""

    def __init__(
        self, rng: Random, process: int, *, transactional: bool, subscribes: bool, seconds: float
    ) -> None:
        self._rng = rng
        self._values: Iterator[int] = iter(
            range(process * VALUES_PER_PROCESS + 1, (process + 1) * VALUES_PER_PROCESS)
        )
        self._transactional = transactional
        self._subscribes = subscribes
        self._seconds = seconds
        self._begun = False

    def next(self, elapsed_s: float) -> Task:
        """The task at this time of the run."""
        first = int(SHIFTS * min(1.0, elapsed_s / self._seconds))
        active = [_key(number) for number in range(first, first + ACTIVE_KEYS)]
        if not self._begun or self._rng.random() < ASSIGN_SHARE:
            self._begun = True
            older = [_key(number) for number in range(first)]
            keys = self._rng.sample(active, self._rng.randint(1, ACTIVE_KEYS))
            keys += self._rng.sample(older, min(len(older), self._rng.randint(0, 2)))
            return Task("subscribe" if self._subscribes else "assign", keys=tuple(keys))
        count = self._rng.randint(1, MOST_STEPS) if self._transactional else 1
        steps = tuple(self._step(active) for _ in range(count))
        kinds = {type(step) for step in steps}
        return Task("send" if kinds == {Send} else "poll" if kinds == {Poll} else "txn", steps)

    def _step(self, active: list[str]) -> Step:
        if self._rng.random() < 0.5:
            return Send(self._rng.choice(active), next(self._values))
        return Poll()


def _key(number: int) -> str:
    return f"t{number // PARTITIONS}/{number % PARTITIONS}"
