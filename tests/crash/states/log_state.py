"""Everything that a client can learn of a log, as one value to compare."""

from typing import NamedTuple

from tailrace.broker.log import PartitionLog

_ALL = 1 << 40


class KnownProducer(NamedTuple):
    """A producer as a log remembers it; batches: (first and last sequence, first and last offset)."""

    producer_id: int
    epoch: int
    batches: tuple[tuple[int, int, int, int], ...]
    transaction_start: int  # -1: none is open


class LogState(NamedTuple):
    """Everything that a client can learn of one log."""

    start: int
    end: int
    stable: int
    content: bytes
    producers: tuple[KnownProducer, ...]
    aborted: tuple[tuple[int, int], ...]
    epochs: tuple[tuple[int, int], ...]


def state_of(log: PartitionLog) -> LogState:
    """What the log tells now."""
    start, end = log.log_start_offset, log.log_end_offset
    content = b"".join(log.read(start, _ALL, upper=end))
    producers = tuple(
        KnownProducer(
            producer_id,
            producer.epoch,
            tuple(
                (b.first_sequence, b.last_sequence, b.last_offset - b.offset_delta, b.last_offset)
                for b in producer.batches
            ),
            producer.transaction_start,
        )
        for producer_id, producer in sorted(log.states.by_id.items())
    )
    aborted = tuple(log.aborted_transactions(start, end))
    epochs = tuple(log.leader_epochs().items())
    return LogState(start, end, log.last_stable_offset, content, producers, aborted, epochs)


def difference(state: LogState, other: LogState) -> str:
    """What tells them apart, by name; empty when nothing does."""
    pairs = zip(LogState._fields, state, other, strict=True)
    return "; ".join(f"{name} {a!r:.200} instead of {b!r:.200}" for name, a, b in pairs if a != b)


def last_of(producer: KnownProducer) -> KnownProducer:
    """What is sure to be known of it after compaction: its last batch."""
    return producer._replace(batches=producer.batches[-1:])
