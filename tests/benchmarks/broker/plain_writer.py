"""A client that sends record batches built before the clock starts: what limits it is the broker.

librdkafka with idempotence spends twice the CPU of librdkafka without, and sends one request at a time; Java's
producer spends most of its first minutes in its compiler.

All batches of a run hold the same records.  Of each only the header differs, by its sequence and its checksum, so a
frame is a start of its own and the records and the end that all frames share.
"""

import enum
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from tests.fixtures.wire import WireClient, produce_request

from tailrace.broker.protocol import (
    ApiKey,
    Buffer,
    ErrorCode,
    decode_response,
    encode_request,
    encode_response,
)
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.batch import HEADER_BYTES, NO_PRODUCER, finish_batch
from tailrace.broker.records.columnar import BytesColumn
from tailrace.broker.records.columnar_build import build_batch

_VERSION = 11  # the last with the classic transaction protocol
_CORRELATION_ID = 1
_SIZE = struct.Struct(">i")
_ERROR = struct.Struct(">h")
_DEADLINE_S = 30
_PAUSE_S = 0.001
_LATEST, _TRANSACTION = -1, 1
_NOT_YET = frozenset(
    {
        ErrorCode.CONCURRENT_TRANSACTIONS,  # Kafka answers EndTxn before it writes the markers
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
)
_Frame = tuple[Buffer, Buffer, Buffer]


class Mode(enum.Enum):
    """How the broker is asked to take the batches."""

    PLAIN = "plain"
    IDEMPOTENT = "idempotent"
    TRANSACTIONAL = "transactional"


class PlainWriter:
    """One connection that writes to partition 0 of a topic, with acks=all and up to `in_flight` requests unanswered.

    Transactions end after `transaction_bytes` of records; what ends and begins them goes over another connection, as
    with other clients, while no request is in flight.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        mode: Mode = Mode.PLAIN,
        *,
        in_flight: int = 5,
        transactional_id: str = "plain",
        transaction_bytes: int = 10_240_000,
    ) -> None:
        host, _, port = bootstrap.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), _DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(None)  # a timeout of Python's costs a poll before every call
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", _DEADLINE_S, 0))
        self._control = WireClient(bootstrap)
        self._topic, self._in_flight, self._transaction_bytes = topic, in_flight, transaction_bytes
        self._transactional_id = transactional_id if mode is Mode.TRANSACTIONAL else None
        self._frames: list[list[_Frame]] = []  # of each transaction; all of them where there are none
        self._answers = memoryview(bytearray(1 << 16))
        self._filled = 0
        self._error_at = _place_of_error(topic)
        self.records = 0
        """How many records `write` will write, or wrote."""
        self._await_leader()
        self._producer = (NO_PRODUCER, -1) if mode is Mode.PLAIN else self._init_producer()

    def prepare(self, count: int, size: int, batch_bytes: int) -> None:
        """Make the frames of about `count` records of `size` bytes, in full batches of up to `batch_bytes`."""
        batch, per_batch = full_batch(size, batch_bytes)
        number = max(1, round(count / per_batch))
        self.records = number * per_batch
        frames = list(self._make_frames(batch, range(0, self.records, per_batch)))
        step = number
        if self._transactional_id is not None:
            step = max(1, self._transaction_bytes // (per_batch * size))
        self._frames = [frames[i : i + step] for i in range(0, number, step)]

    def write(self) -> None:
        """Send what was prepared, and see that the broker took it."""
        for frames in self._frames:
            if self._transactional_id is not None:
                self._begin(self._transactional_id)
            self._send(frames)
            if self._transactional_id is not None:
                self._commit(self._transactional_id)

    def close(self) -> None:
        """Close both connections."""
        self._socket.close()
        self._control.close()

    def _make_frames(self, batch: bytearray, sequences: Iterable[int]) -> Iterator[_Frame]:
        request = produce_request(self._topic, bytes(batch))
        request.transactional_id = self._transactional_id
        frame = b"".join(encode_request(ApiKey.PRODUCE, _VERSION, _CORRELATION_ID, "plain", request))
        start, end = frame.split(batch)
        records = memoryview(batch)[HEADER_BYTES:]
        idempotent = self._producer[0] != NO_PRODUCER
        transactional = self._transactional_id is not None
        for sequence in sequences:
            finish_batch(batch, *self._producer, sequence if idempotent else -1, transactional=transactional)
            yield start + batch[:HEADER_BYTES], records, end

    def _send(self, frames: list[_Frame]) -> None:
        waiting = 0
        for frame in frames:
            while waiting >= self._in_flight:
                waiting -= self._take_answers()
            sent = self._socket.sendmsg(frame)
            if sent < sum(map(len, frame)):
                self._socket.sendall(b"".join(frame)[sent:])
            waiting += 1
        while waiting:
            waiting -= self._take_answers()

    def _take_answers(self) -> int:
        """Wait for answers and check them; how many were whole."""
        got = self._socket.recv_into(self._answers[self._filled :])
        assert got, "the broker hung up"
        self._filled += got
        start = number = 0
        while self._filled - start >= _SIZE.size:
            end = start + _SIZE.size + _SIZE.unpack_from(self._answers, start)[0]
            if end > self._filled:
                break
            if _ERROR.unpack_from(self._answers, start + self._error_at)[0]:
                frame = self._answers[start + _SIZE.size : end]
                raise AssertionError(decode_response(ApiKey.PRODUCE, _VERSION, frame)[1])
            start = end
            number += 1
        rest = bytes(self._answers[start : self._filled])
        self._filled = len(rest)
        self._answers[: self._filled] = rest
        return number

    def _await_leader(self) -> None:
        """Kafka leads a partition some milliseconds after it said that it made it."""
        wanted = m.ListOffsetsTopic(self._topic, [m.ListOffsetsPartition(timestamp=_LATEST)])
        self._until_taken(
            ApiKey.LIST_OFFSETS,
            m.ListOffsetsRequest(replica_id=-1, topics=[wanted]),
            lambda answer: answer.topics[0].partitions[0].error_code,
        )

    def _init_producer(self) -> tuple[int, int]:
        """The id and the epoch to write with."""
        if self._transactional_id is not None:
            # Kafka makes the topic of transactions when it is first asked for a coordinator
            self._until_taken(
                ApiKey.FIND_COORDINATOR,
                m.FindCoordinatorRequest(key_type=_TRANSACTION, coordinator_keys=[self._transactional_id]),
                lambda answer: answer.coordinators[0].error_code,
            )
        answer = self._until_taken(
            ApiKey.INIT_PRODUCER_ID,
            m.InitProducerIdRequest(self._transactional_id, transaction_timeout_ms=60_000),
            lambda answer: answer.error_code,
        )
        return answer.producer_id, answer.producer_epoch

    def _begin(self, transactional_id: str) -> None:
        topics = [m.AddPartitionsToTxnTopic(self._topic, [0])]
        self._until_taken(
            ApiKey.ADD_PARTITIONS_TO_TXN,
            m.AddPartitionsToTxnRequest([], transactional_id, *self._producer, topics),
            lambda answer: (
                answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
            ),
        )

    def _commit(self, transactional_id: str) -> None:
        self._until_taken(
            ApiKey.END_TXN,
            m.EndTxnRequest(transactional_id, *self._producer, committed=True),
            lambda answer: answer.error_code,
        )

    def _until_taken(self, key: ApiKey, request: object, error_of: Callable[[Any], int]) -> Any:
        """The answer without an error; asks again while the broker says that it will soon be able to."""
        deadline = time.monotonic() + _DEADLINE_S
        while error := error_of(answer := self._control.ask(key, request)):
            assert error in _NOT_YET and time.monotonic() < deadline, answer
            time.sleep(_PAUSE_S)
        return answer


def value_of(number: int, size: int) -> bytes:
    """The value of record `number` of every batch."""
    return (b"%d" % number).ljust(size, b".")


def full_batch(size: int, batch_bytes: int) -> tuple[bytearray, int]:
    """A batch of up to `batch_bytes` of values of `size` bytes, without its checksum; how many they are."""
    number = batch_bytes // size + 1  # more than fit
    values = BytesColumn.from_strings([value_of(n, size) for n in range(number)])
    now_ms = np.full(number, time.time_ns() // 1_000_000, np.int64)
    return build_batch(None, values, None, now_ms, limit=batch_bytes)[0]


def _place_of_error(topic: str) -> int:
    """Where the error of its only partition stands in an answer, which is before all that may differ in length."""
    mark = 0x7E57
    partition = m.PartitionProduceResponse(error_code=mark)
    answer = m.ProduceResponse([m.TopicProduceResponse(topic, partition_responses=[partition])])
    frame = b"".join(encode_response(ApiKey.PRODUCE, _VERSION, _CORRELATION_ID, answer))
    return frame.index(_ERROR.pack(mark))
