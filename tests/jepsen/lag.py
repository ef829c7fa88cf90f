"""How far behind the log a poll was: a measure, not an anomaly."""

from tests.jepsen.history import Operation
from tests.jepsen.observed import Observed


def worst_lag_s(seen: Observed) -> float:
    """The longest time that a value was known to exist when a poll began that did not show it.

    Only assigned keys count (of a subscription nobody knows which keys a process has), and positions
    only of what is committed: the time of a value is that of the first answer that names it or a later one.
    """
    known = {key: _known_since(seen, key) for key in seen.orders}
    worst = 0
    for operations in seen.by_process.values():
        at: dict[str, int] = {}
        for operation in operations:
            if operation.outcome != "ok":
                continue
            if operation.kind in ("assign", "subscribe"):
                keys = operation.keys if operation.kind == "assign" else ()
                at = {key: at.get(key, -1) for key in keys}
            elif operation.kind != "send":
                _advance(seen, at, operation)
                for key, position in at.items():
                    since = known.get(key, [])
                    if position + 1 < len(since):
                        worst = max(worst, operation.invoked_ns - since[position + 1])
    return worst / 1e9


def _advance(seen: Observed, at: dict[str, int], operation: Operation) -> None:
    for key, records in operation.reads().items():
        if key in at and records:
            at[key] = max(at[key], seen.orders[key].position[records[-1][1]])


def _known_since(seen: Observed, key: str) -> list[int]:
    """For each position, when the first answer came that shows that it exists."""
    order = seen.orders[key]
    times = [1 << 62] * len(order.values)
    for value, position in order.position.items():
        knowing = [seen.writer.get((key, value)), *seen.readers.get((key, value), ())]
        ends = [o.completed_ns for o in knowing if o is not None and o.completed_ns is not None]
        times[position] = min(ends, default=1 << 62)
    for position in range(len(times) - 2, -1, -1):
        times[position] = min(times[position], times[position + 1])
    return times
