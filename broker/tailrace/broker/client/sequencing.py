"""Sending record batches in sequence: the heart of both producers (KIP-98, idempotent producer).

Every batch of a (producer, partition) carries the sequence of its first record, from 0, without gaps; a
broker refuses a gap and recognises a repetition.  So a batch whose answer was lost is sent again with the
same bytes until it is answered, and is in the log once.

At most five requests are in flight per broker, as many as a broker remembers per producer and partition.  A
partition that this producer has not been acknowledged on yet gets one batch at a time: a broker that knows
nothing of a producer takes any sequence, and would take a second batch after losing the first.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tailrace.broker.client.client import Client
from tailrace.broker.client.connection import Connection
from tailrace.broker.client.errors import BrokerError, RetryableError
from tailrace.broker.client.partition import TopicPartition
from tailrace.broker.protocol import ApiKey, ErrorCode, messages
from tailrace.broker.records.batch import HEADER_BYTES, MAX_SEQUENCE, finish_batch, read_header
from tailrace.changes.errors import FencedError

MAX_IN_FLIGHT = 5
MAX_REQUEST_BYTES = 4 << 20

_ALL_REPLICAS = -1
_FENCED = frozenset({ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.PRODUCER_FENCED})


@dataclass(slots=True)
class _Queue:
    """Batches of one partition that are not acknowledged yet, oldest first; the first `sent` are in flight."""

    place: TopicPartition
    batches: deque[tuple[int, bytearray]] = field(default_factory=deque)
    sent: int = 0
    blocked: RetryableError | None = None


@dataclass(slots=True)
class _Lane:
    """One broker's connection, the partitions it leads, and the requests it has not answered."""

    connection: Connection
    queues: list[_Queue]
    requests: deque[dict[TopicPartition, _Queue]] = field(default_factory=deque)


class SequencedSender:
    """Sends batches of one producer id and epoch; not usable after an error but for `reset`."""

    def __init__(self, client: Client, transactional_id: str | None) -> None:
        self._client = client
        self._transactional_id = transactional_id
        self.producer_id = -1
        self.producer_epoch = -1
        self._sequences: dict[TopicPartition, int] = {}
        self._acknowledged: set[TopicPartition] = set()

    def reset(self, producer_id: int, producer_epoch: int) -> None:
        """Begin anew with an id and epoch from InitProducerId: sequences start at 0."""
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self._sequences.clear()
        self._acknowledged.clear()

    def send(self, items: Sequence[tuple[TopicPartition, bytearray]]) -> list[int]:
        """Fill each batch's producer fields and CRC, send all, and return their base offsets.

        Returns when every batch is acknowledged by all in-sync replicas.  Raises FencedError, BrokerError, or
        BrokerUnavailableError; any of the batches may then be in the log.
        """
        queues: dict[TopicPartition, _Queue] = {}
        for position, (place, batch) in enumerate(items):
            self._number(place, batch)
            queues.setdefault(place, _Queue(place)).batches.append((position, batch))
        offsets = [-1] * len(items)
        # each attempt that acknowledges something starts the clock anew: progress is no outage
        while any(queue.batches for queue in queues.values()):
            self._client.retrying("produce", lambda: self._attempt(queues.values(), offsets))
        return offsets

    def _number(self, place: TopicPartition, batch: bytearray) -> None:
        header = read_header(batch)
        if header.size != len(batch) or len(batch) < HEADER_BYTES or header.last_offset_delta < 0:
            raise ValueError(f"what was sent to {place} is not one whole record batch")
        sequence = self._sequences.get(place, 0)
        self._sequences[place] = (sequence + header.last_offset_delta + 1) & MAX_SEQUENCE
        finish_batch(
            batch,
            self.producer_id,
            self.producer_epoch,
            sequence,
            transactional=self._transactional_id is not None,
        )

    def _attempt(self, queues: Iterable[_Queue], offsets: list[int]) -> None:
        """Send what is queued until all is acknowledged; after a failure that a retry may cure, what was is kept."""
        waiting = {queue.place: queue for queue in queues if queue.batches}
        for queue in waiting.values():
            queue.sent, queue.blocked = 0, None
        left = sum(len(queue.batches) for queue in waiting.values())
        lanes: list[_Lane] = []
        try:
            for node, places in self._client.by_leader(waiting).items():
                lanes.append(_Lane(self._client.connection(node), [waiting[place] for place in places]))
            self._exchange(lanes, offsets)
        except RetryableError:
            if sum(len(queue.batches) for queue in waiting.values()) == left:
                raise
        finally:
            for lane in lanes:
                if lane.connection.in_flight:
                    self._client.drop(lane.connection)

    def _exchange(self, lanes: list[_Lane], offsets: list[int]) -> None:
        while True:
            for lane in lanes:
                self._fill(lane)
            if not any(lane.requests for lane in lanes):
                break
            for lane in lanes:
                if lane.requests:
                    self._collect(lane, offsets)
        blocked = [queue for lane in lanes for queue in lane.queues if queue.blocked is not None]
        if blocked:
            self._client.forget_leaders(queue.place for queue in blocked)
            raise blocked[0].blocked or RetryableError("produce")

    def _fill(self, lane: _Lane) -> None:
        """Put requests in flight while there is room for them."""
        while len(lane.requests) < MAX_IN_FLIGHT:
            chosen: dict[TopicPartition, _Queue] = {}
            size = 0
            for queue in lane.queues:
                if not self._may_send(queue):
                    continue
                batch = queue.batches[queue.sent][1]
                if chosen and size + len(batch) > MAX_REQUEST_BYTES:
                    break
                chosen[queue.place] = queue
                size += len(batch)
            if not chosen:
                return
            # those left out by the size limit go first next time
            lane.queues.sort(key=lambda queue: queue.place in chosen)
            self._send(lane, chosen)

    def _may_send(self, queue: _Queue) -> bool:
        if queue.blocked is not None or queue.sent == len(queue.batches):
            return False
        return queue.sent == 0 or queue.place in self._acknowledged

    def _send(self, lane: _Lane, chosen: dict[TopicPartition, _Queue]) -> None:
        topics: dict[str, list[messages.PartitionProduceData]] = {}
        for (topic, index), queue in chosen.items():
            batch = queue.batches[queue.sent][1]
            topics.setdefault(topic, []).append(messages.PartitionProduceData(index=index, records=batch))
            queue.sent += 1
        request = messages.ProduceRequest(
            transactional_id=self._transactional_id,
            acks=_ALL_REPLICAS,
            timeout_ms=int(self._client.request_timeout_s * 1000),
            topic_data=[
                messages.TopicProduceData(name=name, partition_data=data) for name, data in topics.items()
            ],
        )
        lane.requests.append(chosen)
        try:
            lane.connection.send(ApiKey.PRODUCE, request)
        except RetryableError:
            self._client.drop(lane.connection)
            raise

    def _collect(self, lane: _Lane, offsets: list[int]) -> None:
        """Take one answer and credit each of its partitions."""
        try:
            response = lane.connection.receive()
        except RetryableError:
            self._client.drop(lane.connection)
            raise
        asked = lane.requests.popleft()
        answers = {
            TopicPartition(topic.name, answer.index): answer
            for topic in response.responses
            for answer in topic.partition_responses
        }
        for place, queue in asked.items():
            answer = answers.get(place)
            if answer is None:
                raise RetryableError(f"the answer to a produce request leaves out {place}")
            queue.sent -= 1
            if queue.blocked is not None:
                # an earlier batch failed; this one comes again after it
                if answer.error_code == ErrorCode.NONE:
                    raise BrokerError(
                        f"produce to {place}: a batch was stored after the one before it was refused",
                        error=ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                    )
                continue
            self._credit(queue, answer, offsets)

    def _credit(self, queue: _Queue, answer: messages.PartitionProduceResponse, offsets: list[int]) -> None:
        error = ErrorCode.of(answer.error_code)
        if error == ErrorCode.NONE:
            position, _ = queue.batches.popleft()
            offsets[position] = answer.base_offset
            self._acknowledged.add(queue.place)
            return
        if error in _FENCED:
            raise fenced(f"producer id {self.producer_id}")
        detail = f" ({answer.error_message})" if answer.error_message else ""
        if error.retriable and error != ErrorCode.CORRUPT_MESSAGE:
            queue.blocked = RetryableError(f"produce to {queue.place}: {error.name}{detail}", error=error)
        else:
            raise BrokerError(
                f"produce to {queue.place}: the broker answered {error.name}{detail}", error=error
            )


def fenced(who: str) -> FencedError:
    """The error for a producer whose epoch is no longer the newest."""
    return FencedError(
        f"{who} has been taken over by a newer producer",
        fix="stop this instance: another one runs with the same id",
    )
