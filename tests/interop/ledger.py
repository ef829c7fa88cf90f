"""What producers were told, compared with what a consumer reads."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Fates of values; `unknown` holds transactions whose outcome the client never learned."""

    acknowledged: set[bytes] = field(default_factory=set)
    aborted: set[bytes] = field(default_factory=set)
    unknown: list[frozenset[bytes]] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)  # what each group committed last

    def check(self, read: Iterable[bytes]) -> None:
        """Everything acknowledged was read, once; nothing aborted; what is unknown, as a whole or not at all."""
        counts = Counter(read)
        assert not self.acknowledged - counts.keys(), "acknowledged records are lost"
        assert not self.aborted & counts.keys(), "aborted records were read"
        assert not [value for value, count in counts.items() if count > 1], "records were read twice"
        possible = set(self.acknowledged)
        for transaction in self.unknown:
            assert len(transaction & counts.keys()) in (0, len(transaction)), "a transaction was torn"
            possible |= transaction
        assert not counts.keys() - possible, "records were read that nobody wrote"


class Progress:
    """Counts what a producer got through, so that a killer can wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def step(self) -> None:
        """One more is done."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for_more(self, count: int, timeout_s: float = 60.0) -> None:
        """Return when `count` more are done; AssertionError when that takes too long."""
        with self._changed:
            target = self._count + count
            assert self._changed.wait_for(lambda: self._count >= target, timeout_s), "the producer is stuck"
