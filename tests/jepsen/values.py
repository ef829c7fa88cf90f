"""Analyses of single values: aborted, unwritten, precommitted, at two places, lost, unseen."""

from collections.abc import Iterator

from tests.jepsen.anomaly import Anomaly
from tests.jepsen.history import Operation
from tests.jepsen.observed import Observed


def aborted_reads(seen: Observed) -> Iterator[Anomaly]:
    """A value was read whose writer was told that it is not in the log; or that nobody wrote at all."""
    for (key, value), readers in seen.readers.items():
        writer = seen.writer.get((key, value))
        if writer is None:
            yield Anomaly("unwritten", f"{value} of {key}, read by {readers[0]}, was written by nobody")
        elif writer.outcome == "fail":
            yield Anomaly("G1a", f"{value} of {key}, read by {readers[0]}, is of the failed {writer}")


def precommitted_reads(seen: Observed) -> Iterator[Anomaly]:
    """An operation read what it wrote itself: nobody may, before the commit."""
    for (key, value), readers in seen.readers.items():
        if seen.writer.get((key, value)) in readers:
            yield Anomaly("precommitted-read", f"{seen.writer[key, value]} read its own {value} of {key}")


def inconsistent_offsets(seen: Observed) -> Iterator[Anomaly]:
    """Two values at one offset."""
    for key, order in seen.orders.items():
        for offset, values in order.offsets.items():
            if len(values) > 1:
                yield Anomaly("inconsistent-offsets", f"{key} has {sorted(values)} at offset {offset}")


def duplicates(seen: Observed) -> Iterator[Anomaly]:
    """One value at two offsets."""
    for key, order in seen.orders.items():
        places: dict[int, list[int]] = {}
        for offset, values in sorted(order.offsets.items()):
            for value in values:
                places.setdefault(value, []).append(offset)
        for value, offsets in places.items():
            if len(offsets) > 1:
                yield Anomaly("duplicate", f"{key} has {value} at the offsets {offsets}")


def lost_writes(seen: Observed) -> Iterator[Anomaly]:
    """A committed value that nobody has read, though later ones of its key were read."""
    for key, read in seen.reads.items():
        order = seen.orders[key]
        highest = max((order.first_position[value] for value in read), default=-1)
        for value, position in order.position.items():
            writer = seen.writer.get((key, value))
            if position <= highest and value not in read and writer and seen.is_committed(writer):
                yield Anomaly("lost-write", f"{value} of {key} by {writer} was never read, later values were")


def consumed_twice(seen: Observed) -> Iterator[Anomaly]:
    """Two committed transactions of members of one group read the same value, and both moved its offsets.

    Beyond Jepsen's analyses: members give a transaction up when what it read moves away (KIP-447).
    """
    consumer: dict[tuple[str, str, int], Operation] = {}
    for operation in seen.history:
        if operation.outcome == "ok" and operation.group:
            for key, records in operation.reads().items():
                for _, value in records:
                    before = consumer.setdefault((operation.group, key, value), operation)
                    if before is not operation:
                        yield Anomaly("consumed-twice", f"{value} of {key} by {before} and by {operation}")


def unseen(seen: Observed) -> Iterator[Anomaly]:
    """A committed value that nobody has read, though the last reader went to the end of every key."""
    for operation in seen.history:
        if seen.is_committed(operation):
            for send in operation.sends():
                if not seen.is_read(send):
                    yield Anomaly("unseen", f"{send.value} of {send.key} by {operation} was never read")
