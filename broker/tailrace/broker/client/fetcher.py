"""Reading partitions from given offsets: whole record batches, without what was aborted."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tailrace.broker.client.client import ISOLATION_LEVELS, Client, Isolation
from tailrace.broker.client.connection import Connection
from tailrace.broker.client.errors import BrokerError, RetryableError, raise_for
from tailrace.broker.client.partition import TopicPartition
from tailrace.broker.protocol import ApiKey, ErrorCode, messages
from tailrace.broker.records.batch import has_valid_crc, iterate_batches, read_header, read_marker
from tailrace.broker.records.errors import InvalidBatchError

_CONSUMER = -1
_NO_SESSION, _SESSIONLESS_EPOCH = 0, -1


@dataclass(frozen=True, slots=True)
class FetchedPartition:
    """What one poll brought of one partition; a partition without news has no batches.

    batches             whole v2 batches in offset order, as they were produced (perhaps compressed); views of
                        the answer's memory, which lives as long as one of them is held.
    start_offset        the offset asked for: it may lie inside the first batch, whose earlier records are to be skipped.
    next_offset         where the next poll goes on; past `start_offset` even where every batch was dropped.
    high_watermark      offset after the last record that readers may see.
    last_stable_offset  offset of the first record of the oldest open transaction, else the high watermark.
    """

    partition: TopicPartition
    batches: list[memoryview]
    start_offset: int
    next_offset: int
    high_watermark: int
    last_stable_offset: int


class Fetcher:
    """Reads assigned partitions; the positions live here and in the caller's own state, never in the broker.

    Batches of a partition come in offset order, each once.  Control batches are dropped, and under
    read_committed so are the batches of aborted transactions; open ones are waited for.  CRCs are checked.
    A broker restart is waited out for the client's `retry_for_s`.  Not thread-safe.
    """

    def __init__(
        self,
        client: Client,
        positions: Mapping[TopicPartition, int],
        *,
        isolation: Isolation = "read_committed",
        max_wait_ms: int = 500,
        min_bytes: int = 1,
        max_bytes: int = 32 << 20,
        max_partition_bytes: int = 8 << 20,
    ) -> None:
        """positions: the offset to read first in each partition.

        max_wait_ms, min_bytes  a poll waits that long at most for that many bytes.
        max_bytes, max_partition_bytes  limits of one answer, in all and per partition; a single batch may exceed them.
        """
        self._client = client
        self._positions = dict(positions)
        self._isolation = ISOLATION_LEVELS[isolation]
        self._max_wait_ms = max_wait_ms
        self._min_bytes = min_bytes
        self._max_bytes = max_bytes
        self._max_partition_bytes = max_partition_bytes

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The offset that the next poll reads first, per partition."""
        return dict(self._positions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read from `offset` next; also adds a partition."""
        self._positions[partition] = offset

    def remove(self, partition: TopicPartition) -> None:
        """Read this partition no more."""
        self._positions.pop(partition, None)

    def poll(self, max_wait_ms: int | None = None) -> list[FetchedPartition]:
        """What is there now, waiting up to `max_wait_ms` for something; one entry per partition that answered.

        Raises BrokerError for an offset that the log does not hold, InvalidBatchError for a damaged batch,
        BrokerUnavailableError after `retry_for_s` without an answer.
        """
        if not self._positions:
            return []
        wait = self._max_wait_ms if max_wait_ms is None else max_wait_ms
        fetched = self._client.retrying("fetch", lambda: self._attempt(wait))
        for entry in fetched:
            self._positions[entry.partition] = entry.next_offset
            if entry.batches:
                # to the back of the queue, so that one busy partition cannot fill every answer
                self._positions[entry.partition] = self._positions.pop(entry.partition)
        return fetched

    def _attempt(self, max_wait_ms: int) -> list[FetchedPartition]:
        """Ask every leader at once; what some answered counts even where another failed."""
        fetched: list[FetchedPartition] = []
        failures: list[RetryableError] = []
        asked: list[Connection] = []
        try:
            for node, partitions in self._client.by_leader(self._positions).items():
                asked.append(self._client.connection(node))
                asked[-1].send(ApiKey.FETCH, self._request(partitions, max_wait_ms))
            for connection in asked:
                try:
                    response = connection.receive(wait_s=max_wait_ms / 1000)
                except RetryableError as error:
                    self._client.drop(connection)
                    failures.append(error)
                    continue
                raise_for(response.error_code, f"fetch from broker {connection.address}")
                self._accept(response, fetched, failures)
        except BaseException:
            # a connection that still owes an answer cannot be asked anything else
            for connection in asked:
                self._client.drop(connection)
            raise
        if failures and not fetched:
            raise failures[0]
        return fetched

    def _request(self, partitions: Sequence[TopicPartition], max_wait_ms: int) -> messages.FetchRequest:
        topics: list[messages.FetchTopic] = []
        for place in partitions:
            if not topics or topics[-1].topic != place.topic:
                topics.append(messages.FetchTopic(topic=place.topic))
            topics[-1].partitions.append(
                messages.FetchPartition(
                    partition=place.partition,
                    fetch_offset=self._positions[place],
                    partition_max_bytes=self._max_partition_bytes,
                )
            )
        return messages.FetchRequest(
            replica_id=_CONSUMER,
            max_wait_ms=max_wait_ms,
            min_bytes=self._min_bytes,
            max_bytes=self._max_bytes,
            isolation_level=self._isolation,
            session_id=_NO_SESSION,
            session_epoch=_SESSIONLESS_EPOCH,
            topics=topics,
        )

    def _accept(
        self,
        response: messages.FetchResponse,
        fetched: list[FetchedPartition],
        failures: list[RetryableError],
    ) -> None:
        for topic in response.responses:
            for answer in topic.partitions:
                place = TopicPartition(topic.topic, answer.partition_index)
                if answer.error_code == ErrorCode.NONE:
                    fetched.append(self._read(place, answer))
                    continue
                try:
                    self._refuse(place, answer.error_code)
                except RetryableError as error:
                    self._client.forget_leaders([place])
                    failures.append(error)

    def _read(self, place: TopicPartition, answer: messages.FetchPartitionResponse) -> FetchedPartition:
        position = self._positions[place]
        aborted = answer.aborted_transactions if self._isolation else None
        batches: list[memoryview] = []
        next_offset = position
        for header, batch in iterate_batches(answer.records or b""):
            if not has_valid_crc(batch):
                raise InvalidBatchError(
                    f"the record batch at {place}, offset {header.base_offset}, has a wrong checksum",
                    error=ErrorCode.CORRUPT_MESSAGE,
                    fix="check the broker's disk; nothing from this batch on was read",
                )
            next_offset = max(next_offset, header.last_offset + 1)
            if header.last_offset >= position:
                batches.append(batch)
        return FetchedPartition(
            partition=place,
            batches=list(without_aborted(batches, aborted or ())),
            start_offset=position,
            next_offset=next_offset,
            high_watermark=answer.high_watermark,
            last_stable_offset=answer.last_stable_offset,
        )

    def _refuse(self, place: TopicPartition, error_code: int) -> None:
        if error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            raise BrokerError(
                f"partition {place} no longer holds offset {self._positions[place]}, or not yet",
                error=ErrorCode.OFFSET_OUT_OF_RANGE,
                fix="compare with the partition's earliest and latest offset; was the topic deleted or cut by retention?",
            )
        raise_for(error_code, f"fetch {place} at offset {self._positions[place]}")


def without_aborted(
    batches: Iterable[memoryview], aborted: Sequence[messages.AbortedTransaction]
) -> Iterator[memoryview]:
    """The batches that hold readable records: no control batches, none of the aborted transactions.

    aborted  (producer id, first offset) of each aborted transaction that touches the batches, as a fetch answers
             it: a producer's batches are dropped from that offset on until its abort marker (KIP-98).
    """
    starts = deque(sorted(aborted, key=lambda transaction: transaction.first_offset))
    dropping: set[int] = set()
    for batch in batches:
        header = read_header(batch)
        while starts and starts[0].first_offset <= header.last_offset:
            dropping.add(starts.popleft().producer_id)
        if header.is_control:
            marker = read_marker(batch)
            if marker is not None and not marker.commit:
                dropping.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in dropping):
            yield batch
