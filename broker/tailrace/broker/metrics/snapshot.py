"""The numbers of one moment: copied on the event loop in a few microseconds per partition, turned into text elsewhere."""

import time
from dataclasses import dataclass, field

from tailrace.broker.broker import Broker
from tailrace.broker.coordinator.schemas import TxnStatus
from tailrace.broker.log import PartitionLog
from tailrace.broker.metrics.histogram import Histogram
from tailrace.broker.metrics.requests import RequestStats

_OPEN = (TxnStatus.ONGOING, TxnStatus.PREPARE_COMMIT, TxnStatus.PREPARE_ABORT)
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PartitionNumbers:
    """One partition; bytes and records since the process started, offsets and sizes as they are now."""

    topic: str
    partition: int
    bytes_in: int
    bytes_out: int
    records_in: int
    size: int
    segments: int
    log_start: int
    log_end: int
    high_watermark: int
    last_stable: int
    unstable_for_s: float  # since the oldest transaction that is open here began; 0: there is none


@dataclass(frozen=True, slots=True)
class GroupNumbers:
    """One group: its members and the offsets that it has committed."""

    group: str
    state: str
    members: int
    offsets: dict[Place, int]


@dataclass(slots=True)
class RequestNumbers:
    """One API in one version."""

    api_key: int
    version: int
    times: Histogram
    without_error: int
    errors: dict[int, int]
    throttled_ms: int


@dataclass(slots=True)
class Snapshot:
    """Everything that /metrics tells."""

    partitions: list[PartitionNumbers] = field(default_factory=list)
    offline: list[Place] = field(default_factory=list)
    groups: list[GroupNumbers] = field(default_factory=list)
    transactions: dict[str, int] = field(default_factory=dict)  # by state
    oldest_transaction_s: float = 0.0
    requests: list[RequestNumbers] = field(default_factory=list)
    connections: int = 0
    network_bytes_in: int = 0
    network_bytes_out: int = 0
    flush_ms: Histogram = field(default_factory=Histogram)
    flush_backlog_partitions: int = 0
    flush_backlog_s: float = 0.0
    topics: int = 0


def take_snapshot(broker: Broker) -> Snapshot:
    """Copy what counts; on the event loop's thread."""
    now_ms = broker.clock.now_ms()
    states = {status.label: 0 for status in TxnStatus}
    began: dict[Place, int] = {}
    for txn in broker.transactions:
        states[txn.state.status.label] += 1
        if txn.state.status in _OPEN:
            for place in txn.state.partitions:
                began[place] = min(began.get(place, now_ms), txn.state.started_at_ms)
    counters, flusher = broker.counters, broker.flusher
    return Snapshot(
        partitions=[_partition(log, began, now_ms) for log in broker.logs.partitions()],
        offline=list(broker.logs.offline()),
        groups=[
            *(
                _group(broker, group.group_id, group.state.value, len(group.members))
                for group in broker.group_log.groups
            ),
            *(
                _group(broker, group.group_id, group.state.value, len(group.subscriptions))
                for group in broker.group_log.consumer_groups
            ),
        ],
        transactions=states,
        oldest_transaction_s=max(0, now_ms - min(began.values(), default=now_ms)) / 1000,
        requests=[_requests(key, version, stats) for (key, version), stats in broker.requests.stats.items()],
        connections=counters.connections,
        network_bytes_in=counters.bytes_in,
        network_bytes_out=counters.bytes_out,
        flush_ms=_copy(flusher.round_ms),
        flush_backlog_partitions=flusher.backlog,
        flush_backlog_s=flusher.backlog_age_s(time.monotonic()),
        topics=len(broker.topics.all()),
    )


def _group(broker: Broker, group_id: str, state: str, members: int) -> GroupNumbers:
    offsets = broker.group_log.offsets.of_group(group_id)
    return GroupNumbers(
        group_id, state, members, {place: offset.value.offset for place, offset in offsets.items()}
    )


def _partition(log: PartitionLog, began: dict[Place, int], now_ms: int) -> PartitionNumbers:
    high_watermark, stable = log.high_watermark, log.last_stable_offset
    since_ms = began.get((log.topic, log.partition), now_ms) if stable < high_watermark else now_ms
    return PartitionNumbers(
        log.topic,
        log.partition,
        log.bytes_in,
        log.bytes_out,
        log.records_in,
        log.size,
        len(log.segments),
        log.log_start_offset,
        log.log_end_offset,
        high_watermark,
        stable,
        max(0, now_ms - since_ms) / 1000,
    )


def _requests(api_key: int, version: int, stats: RequestStats) -> RequestNumbers:
    return RequestNumbers(
        api_key, version, _copy(stats.times), stats.without_error, dict(stats.errors), stats.throttled_ms
    )


def _copy(histogram: Histogram) -> Histogram:
    copied = Histogram(histogram.bounds)
    copied.add(histogram)
    return copied
