"""Produce (0): append record batches, answer when they are as durable as `acks` asks."""

from collections.abc import Mapping
from dataclasses import dataclass

from tailrace.broker.handlers.context import CloseConnection, RequestContext
from tailrace.broker.log import LogError, PartitionLog
from tailrace.broker.log.validation import RecordsRefusedError
from tailrace.broker.log.when_durable import WhenDurable
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    BatchIndexAndErrorMessage,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from tailrace.broker.records.batch import HEADER_BYTES, read_header

_FIRST_VERSION_WITH_ABORTABLE = 11
_FIRST_VERSION_THAT_JOINS = 12
_FIRST_VERSION_WITH_IDS = 13

_Target = tuple[PartitionLog, int]


class _Refused(Exception):
    """One partition's records are not appended."""

    def __init__(self, code: ErrorCode, message: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def produce(context: RequestContext, request: ProduceRequest) -> object:
    """Append at once; answer when everything appended is fsynced, with acks=1 as with acks=all.

    An error in one partition says nothing about the others.  Since v12 partitions join the transaction of
    their batches by themselves (KIP-890): only then does the appending wait, for the coordinator.
    """
    context.broker.counters.produce_requests += 1
    if context.version >= _FIRST_VERSION_THAT_JOINS and request.transactional_id and request.acks:
        joining = _joining(context, request)
        if joining is not None and not joining.is_done(context):
            for topic in request.topic_data:
                for data in topic.partition_data:  # the buffer they lie in is reused while we wait
                    data.records = bytes(data.records or b"")
            return _join_and_append(context, request, joining)
    return _append_all(context, request, {})


@dataclass(frozen=True, slots=True)
class _Joining:
    """The partitions of one transactional request, and who writes to them."""

    transactional_id: str
    producer_id: int
    epoch: int
    partitions: frozenset[tuple[str, int]]

    def is_done(self, context: RequestContext) -> bool:
        return context.broker.transactions.has_joined(
            self.transactional_id, self.producer_id, self.epoch, self.partitions
        )


def _joining(context: RequestContext, request: ProduceRequest) -> _Joining | None:
    """None: nothing in the request is transactional, or nothing could be written."""
    partitions, producer = [], None
    for topic in request.topic_data:
        name = _name_of(context, topic)
        found = context.broker.topics.find(name) if name else None
        for data in topic.partition_data:
            batch = memoryview(data.records or b"")
            if found is None or not 0 <= data.index < found.partitions or len(batch) < HEADER_BYTES:
                continue
            header = read_header(batch)
            if header.is_transactional and context.may_write(found):
                partitions.append((found.name, data.index))
                producer = producer or (header.producer_id, header.producer_epoch)
    if producer is None or request.transactional_id is None:
        return None
    return _Joining(request.transactional_id, *producer, frozenset(partitions))


async def _join_and_append(
    context: RequestContext, request: ProduceRequest, joining: _Joining
) -> ProduceResponse:
    error = await context.broker.transactions.join(
        joining.transactional_id, joining.producer_id, joining.epoch, joining.partitions
    )
    refused = {} if error is ErrorCode.NONE else dict.fromkeys(joining.partitions, _of_join(error))
    # from here to the append nothing is awaited: batches of one producer stay in their order
    answer = _append_all(context, request, refused)
    assert answer is not None  # acks=0 does not come here
    return await answer


def _of_join(error: ErrorCode) -> ErrorCode:
    """As Kafka's AddPartitionsToTxnManager names it for producers."""
    if error is ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return ErrorCode.NOT_ENOUGH_REPLICAS if error is ErrorCode.COORDINATOR_NOT_AVAILABLE else error


def _append_all(
    context: RequestContext, request: ProduceRequest, refused: Mapping[tuple[str, int], ErrorCode]
) -> WhenDurable[ProduceResponse] | None:
    broker = context.broker
    appended: list[_Target] = []
    response = ProduceResponse(
        responses=[
            TopicProduceResponse(
                topic.name,
                topic.topic_id,
                [_append(context, request, name, data, refused, appended) for data in topic.partition_data],
            )
            for topic in request.topic_data
            for name in (_name_of(context, topic),)
        ]
    )
    if request.acks:
        return broker.flusher.when_durable(appended, response)
    broker.flusher.request([log for log, _ in appended])
    if any(p.error_code for topic in response.responses for p in topic.partition_responses):
        raise CloseConnection("records sent with acks=0 were refused")
    return None


def _name_of(context: RequestContext, topic: TopicProduceData) -> str | None:
    """The topic's name, None for an id that no topic has."""
    if context.version < _FIRST_VERSION_WITH_IDS:
        return topic.name
    return context.topic_name("", topic.topic_id) or None


def _append(
    context: RequestContext,
    request: ProduceRequest,
    topic: str | None,
    data: PartitionProduceData,
    refused: Mapping[tuple[str, int], ErrorCode],
    appended: list[_Target],
) -> PartitionProduceResponse:
    try:
        if topic is None:
            raise _Refused(ErrorCode.UNKNOWN_TOPIC_ID, "there is no topic with this id")
        if code := refused.get((topic, data.index)):
            raise _Refused(code, "the partition could not join the transaction")
        log = _writable(context, request, topic, data.index)
        batch = memoryview(data.records or b"")
        verified = _verify(context, request, (topic, data.index), batch)
        result = log.append(
            batch,
            now_ms=context.broker.clock.now_ms(),
            leader_epoch=context.broker.logs.leader_epoch,
            verified_transaction=verified,
        )
    except RecordsRefusedError as error:
        named = [BatchIndexAndErrorMessage(record, error.why) for record in error.records]
        return PartitionProduceResponse(
            data.index, error.code, -1, record_errors=named, error_message=error.what
        )
    except LogError as error:
        return PartitionProduceResponse(data.index, error.code, -1, error_message=error.what)
    except _Refused as error:
        return PartitionProduceResponse(data.index, error.code, -1, error_message=error.message)
    appended.append((log, result.last_offset + 1))
    return PartitionProduceResponse(
        data.index, 0, result.base_offset, result.log_append_time_ms, result.log_start_offset
    )


def _writable(context: RequestContext, request: ProduceRequest, topic: str, partition: int) -> PartitionLog:
    if request.acks not in (-1, 0, 1):
        raise _Refused(ErrorCode.INVALID_REQUIRED_ACKS)
    found = context.broker.topics.get(topic)
    if not context.may_write(found):
        raise _Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{topic} is written by the broker only")
    return context.broker.topics.log(topic, partition)


def _verify(
    context: RequestContext, request: ProduceRequest, partition: tuple[str, int], batch: memoryview
) -> bool:
    """Whether the batch belongs to an open transaction that has this partition (KIP-890, part 1)."""
    if request.transactional_id is None or len(batch) < HEADER_BYTES:
        return False  # `append` says what is wrong with it
    header = read_header(batch)
    if not header.is_transactional:
        return False
    error = context.broker.transactions.verify(
        request.transactional_id, header.producer_id, header.producer_epoch, partition
    )
    if error is ErrorCode.PRODUCER_FENCED:
        error = ErrorCode.INVALID_PRODUCER_EPOCH  # the data path's name for it
    elif error is ErrorCode.CONCURRENT_TRANSACTIONS:
        error = ErrorCode.NOT_ENOUGH_REPLICAS  # retriable: the transaction is just ending
    elif error is ErrorCode.INVALID_TXN_STATE and context.version >= _FIRST_VERSION_WITH_ABORTABLE:
        error = ErrorCode.TRANSACTION_ABORTABLE
    if error is not ErrorCode.NONE:
        raise _Refused(error, "the partition is not in an open transaction of this producer")
    return True
