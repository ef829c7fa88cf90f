"""What a history says about the log: who wrote and read each value, and in which order each key has them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.jepsen.history import Operation, Poll, Send


@dataclass(slots=True)
class Order:
    """The values of one key by offset.

    Offsets have gaps (markers, aborted records), so positions count values only.  A value that stands at several offsets,
    or an offset with several values, is an anomaly; then `position` is that of the last place.
    """

    offsets: dict[int, set[int]] = field(default_factory=dict)
    values: list[set[int]] = field(default_factory=list)
    first_position: dict[int, int] = field(default_factory=dict)
    position: dict[int, int] = field(default_factory=dict)

    def note(self, offset: int | None, value: int) -> None:
        """Somebody knows that `value` is at `offset`."""
        if offset is not None:
            self.offsets.setdefault(offset, set()).add(value)

    def settle(self) -> None:
        """Number the values, once all are noted."""
        self.values = [self.offsets[offset] for offset in sorted(self.offsets)]
        for position, values in enumerate(self.values):
            for value in values:
                self.first_position.setdefault(value, position)
                self.position[value] = position


class Observed:
    """A history, indexed.

    Every poll counts, also in an operation that failed: a consumer that reads committed records must never be
    shown anything else, whatever its own transaction comes to.  The offset of a send counts when it was committed.
    """

    def __init__(self, history: Sequence[Operation]) -> None:
        self.history = history
        self.writer: dict[tuple[str, int], Operation] = {}
        self.readers: dict[tuple[str, int], list[Operation]] = {}
        self.reads: dict[str, set[int]] = {}
        self.orders: dict[str, Order] = {}
        self.by_process: dict[int, list[Operation]] = {}
        for operation in history:
            self.by_process.setdefault(operation.process, []).append(operation)
            for send in operation.sends():
                self.writer[send.key, send.value] = operation
            for key, read in operation.reads().items():
                self.reads.setdefault(key, set()).update(value for _, value in read)
                for _, value in read:
                    self.readers.setdefault((key, value), []).append(operation)
        for operation in history:
            committed = self.is_committed(operation)
            for step in operation.steps:
                if isinstance(step, Poll):
                    for key, records in step.records.items():
                        for offset, value in records:
                            self._order(key).note(offset, value)
                elif committed:
                    self._order(step.key).note(step.offset, step.value)
        for order in self.orders.values():
            order.settle()

    def is_committed(self, operation: Operation) -> bool:
        """Whether its sends must be in the log: it was told so, or somebody has read one of them."""
        return operation.outcome == "ok" or (
            operation.outcome == "info" and any(self.is_read(send) for send in operation.sends())
        )

    def is_read(self, send: Send) -> bool:
        """Whether anybody has read this value."""
        return send.value in self.reads.get(send.key, ())

    def _order(self, key: str) -> Order:
        return self.orders.setdefault(key, Order())
