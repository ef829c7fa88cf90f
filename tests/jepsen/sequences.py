"""Analyses of order: what one operation, or one process, polls and sends one after the other."""

from collections.abc import Iterator
from itertools import pairwise

from tests.jepsen.anomaly import Anomaly
from tests.jepsen.history import Operation
from tests.jepsen.observed import Observed

SUBSCRIBED = " (subscribed)"  # suffix of what only rebalancing explains


def internal_polls(seen: Observed) -> Iterator[Anomaly]:
    """Within one operation the polls of a key go on without gap or step back, unless it was rebalanced."""
    for operation in seen.history:
        for key, records in operation.reads().items():
            if key in operation.rebalanced:
                continue
            for (_, before), (_, after) in pairwise(records):
                step = _step(seen, key, before, after)
                if step > 1:
                    yield Anomaly("int-poll-skip", f"{operation} read {after} of {key} right after {before}")
                elif step < 1:
                    yield Anomaly(
                        "int-nonmonotonic-poll", f"{operation} read {after} of {key} after {before}"
                    )


def internal_sends(seen: Observed) -> Iterator[Anomaly]:
    """Within one operation later sends to a key lie behind earlier ones; others may come between them."""
    for operation in seen.history:
        last: dict[str, int] = {}
        for send in operation.sends():
            before, last[send.key] = last.get(send.key), send.value
            if before is None:
                continue
            step = _step(seen, send.key, before, send.value)
            if step > 1:
                yield Anomaly("int-send-skip", f"{operation} sent {before} and {send.value} to {send.key}")
            elif step < 1:
                yield Anomaly(
                    "int-nonmonotonic-send", f"{operation} sent {before} to {send.key} before {send.value}"
                )


def external_polls(seen: Observed) -> Iterator[Anomaly]:
    """From one operation of a process to its next, polls of a key go on without gap or step back."""
    for operations in seen.by_process.values():
        last: dict[str, int] = {}
        suffix = ""
        for operation in operations:
            if operation.kind in ("assign", "subscribe"):
                suffix = SUBSCRIBED if operation.kind == "subscribe" else ""
                last = {key: value for key, value in last.items() if key in operation.keys}
            for key, records in operation.reads().items():
                if key in last:
                    step = _step(seen, key, last[key], records[0][1])
                    told = (
                        f"{operation} began {key} at {records[0][1]}, the one before had ended at {last[key]}"
                    )
                    if step > 1:
                        yield Anomaly("poll-skip" + suffix, told)
                    elif step < 1:
                        yield Anomaly("nonmonotonic-poll" + suffix, told)
                if operation.outcome == "ok":  # else the client has gone back to where it was
                    last[key] = records[-1][1]


def external_sends(seen: Observed) -> Iterator[Anomaly]:
    """From one operation of a process to its next, sends to a key lie behind each other."""
    for operations in seen.by_process.values():
        last: dict[str, int] = {}
        for operation in operations:
            if not seen.is_committed(operation):
                continue
            for key, values in _sent(operation).items():
                if key in last and _step(seen, key, last[key], values[0]) < 1:
                    yield Anomaly("nonmonotonic-send", f"{operation} sent {values[0]} before {last[key]}")
                last[key] = values[-1]


def _sent(operation: Operation) -> dict[str, list[int]]:
    sent: dict[str, list[int]] = {}
    for send in operation.sends():
        sent.setdefault(send.key, []).append(send.value)
    return sent


def _step(seen: Observed, key: str, before: int, after: int) -> int:
    """How many places `after` lies behind `before`; 1 where that is not known."""
    order = seen.orders.get(key)
    if order is None or before not in order.position or after not in order.position:
        return 1
    return order.position[after] - order.position[before]
