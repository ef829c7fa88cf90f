"""A correct log in memory, and histories of clients that use it concurrently: what the checker must accept."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from tests.jepsen.history import Kind, Operation, Outcome, Poll, Send, Step

KEYS = ("a/0", "a/1", "b/0")
Fate = Literal["open", "committed", "aborted"]


@dataclass
class Transaction:
    fate: Fate = "open"


@dataclass
class Log:
    """Partitions with transactions: readers see what is committed, up to the first record that is undecided."""

    entries: dict[str, list[tuple[int, Transaction] | None]] = field(
        default_factory=lambda: {key: [] for key in KEYS}
    )

    def append(self, key: str, value: int, transaction: Transaction) -> int:
        self.entries[key].append((value, transaction))
        return len(self.entries[key]) - 1

    def end(self, transaction: Transaction, fate: Fate) -> None:
        transaction.fate = fate
        for entries in self.entries.values():
            if any(entry and entry[1] is transaction for entry in entries):
                entries.append(None)  # the marker

    def read(self, key: str, start: int, most: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for offset, entry in enumerate(self.entries[key][start:], start):
            if (entry and entry[1].fate == "open") or len(found) == most:
                break
            if entry and entry[1].fate == "committed":
                found.append((offset, entry[0]))
        return found


class Simulation:
    """Processes that take turns at random; time is the number of turns."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.log = Log()
        self.now = 0
        self.history: list[Operation] = []
        self._values = iter(range(1, 1 << 30))

    def run(self, processes: int, operations: int) -> list[Operation]:
        """The history of some processes, then one reader that reads every key to its end."""
        running = [self._process(number, operations) for number in range(processes)]
        while running:
            self.now += 1
            turn = self.rng.choice(running)
            if next(turn, "done") == "done":
                running.remove(turn)
        self.now += 1
        self._note(processes, "assign", "ok", self.now, keys=KEYS)
        self.now += 1
        everything = {key: self.log.read(key, 0, 1 << 30) for key in KEYS}
        self._note(processes, "poll", "ok", self.now, [Poll(everything)])
        return sorted(self.history, key=lambda operation: operation.invoked_ns)

    def _process(self, number: int, operations: int) -> Generator[None]:
        positions: dict[str, int] = {}
        for _ in range(operations):
            if not positions or self.rng.random() < 0.1:
                keys = self.rng.sample(KEYS, self.rng.randint(1, len(KEYS)))
                positions = {key: positions.get(key, 0) for key in keys}
                self._note(number, "assign", "ok", self.now, keys=tuple(keys))
                yield
            transactional = self.rng.random() < 0.7
            outcome = yield from self._operation(number, positions, transactional)
            if outcome == "info":
                return  # Jepsen's processes end with an operation whose outcome is unknown

    def _operation(
        self, number: int, positions: dict[str, int], transactional: bool
    ) -> Generator[None, None, Outcome]:
        invoked = self.now
        transaction = Transaction("open" if transactional else "committed")
        steps: list[Step] = []
        read_to = dict(positions)
        for _ in range(self.rng.randint(1, 4) if transactional else 1):
            yield
            steps.append(self._step(read_to, transaction))
        yield
        likely: dict[Outcome, int] = {"ok": 8, "fail": 2 if transactional else 0, "info": 1}
        (outcome,) = self.rng.choices(list(likely), list(likely.values()))
        if transactional:
            commits = outcome == "ok" or (outcome == "info" and self.rng.random() < 0.5)
            self.log.end(transaction, "committed" if commits else "aborted")
        yield
        if outcome == "ok":
            positions.update(read_to)
        elif outcome == "info":
            steps = [Send(step.key, step.value) if isinstance(step, Send) else step for step in steps]
        kind: Kind = "txn" if len(steps) > 1 else "send" if isinstance(steps[0], Send) else "poll"
        self._note(number, kind, outcome, invoked, steps)
        return outcome

    def _step(self, read_to: dict[str, int], transaction: Transaction) -> Step:
        if self.rng.random() < 0.5:
            key, value = self.rng.choice(KEYS), next(self._values)
            return Send(key, value, self.log.append(key, value, transaction))
        records: dict[str, list[tuple[int, int]]] = {}
        for key, start in read_to.items():
            if found := self.log.read(key, start, self.rng.randint(1, 5)):
                records[key] = found
                read_to[key] = found[-1][0] + 1
        return Poll(records)

    def _note(
        self,
        process: int,
        kind: Kind,
        outcome: Outcome,
        invoked: int,
        steps: list[Step] | None = None,
        keys: tuple[str, ...] = (),
    ) -> None:
        self.now += 1
        ended = None if outcome == "info" else self.now
        self.history.append(Operation(process, kind, outcome, tuple(steps or ()), invoked, ended, keys))


def sends_of(history: list[Operation], outcome: Outcome) -> Iterator[Send]:
    """Every send of an operation with this outcome."""
    return (send for operation in history if operation.outcome == outcome for send in operation.sends())
