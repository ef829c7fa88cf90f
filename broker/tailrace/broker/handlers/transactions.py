"""InitProducerId (22), AddPartitionsToTxn (24), AddOffsetsToTxn (25), EndTxn (26), WriteTxnMarkers (27),
TxnOffsetCommit (28).
"""

import asyncio

from tailrace.broker.coordinator.internal_topic import CONSUMER_OFFSETS
from tailrace.broker.coordinator.schemas import OffsetValue, by_topic
from tailrace.broker.coordinator.transaction import EPOCH_BUMP_VERSION
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.handlers.offsets import Place, check_ownership, check_place, storage_error_of_offsets
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    AddOffsetsToTxnRequest,
    AddOffsetsToTxnResponse,
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopicResult,
    EndTxnRequest,
    EndTxnResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from tailrace.broker.records.batch import Marker

_FIRST_VERSION_WITH_BUMP = 5


def _in_version(context: RequestContext, error: ErrorCode, first_with_fenced: int) -> ErrorCode:
    """Clients before KIP-588 know the fencing of a producer by its older name."""
    if error is ErrorCode.PRODUCER_FENCED and context.version < first_with_fenced:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return error


async def init_producer_id(context: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse:
    """A producer id for idempotence, or the next epoch of a transactional id: older producers are out."""
    made = await context.broker.transactions.init_producer_id(
        request.transactional_id,
        request.transaction_timeout_ms,
        request.producer_id,
        request.producer_epoch,
    )
    return InitProducerIdResponse(0, _in_version(context, made.error, 4), made.producer_id, made.epoch)


async def add_partitions_to_txn(
    context: RequestContext, request: AddPartitionsToTxnRequest
) -> AddPartitionsToTxnResponse:
    """All partitions or none: one that does not exist refuses the others with OPERATION_NOT_ATTEMPTED."""
    asked = [(topic.name, index) for topic in request.v3_and_below_topics for index in topic.partitions]
    errors = {place: _writable(context, place) for place in asked}
    if any(errors.values()):
        errors = {place: error or ErrorCode.OPERATION_NOT_ATTEMPTED for place, error in errors.items()}
    else:
        error = await context.broker.transactions.add_partitions(
            request.v3_and_below_transactional_id,
            request.v3_and_below_producer_id,
            request.v3_and_below_producer_epoch,
            asked,
        )
        errors = dict.fromkeys(asked, _in_version(context, error, 2))
    return AddPartitionsToTxnResponse(
        results_by_topic_v3_and_below=[
            AddPartitionsToTxnTopicResult(
                topic.name,
                [AddPartitionsToTxnPartitionResult(i, errors[topic.name, i]) for i in topic.partitions],
            )
            for topic in request.v3_and_below_topics
        ]
    )


def _writable(context: RequestContext, place: Place) -> ErrorCode:
    topic = context.broker.topics.find(place[0])
    if topic is None or not 0 <= place[1] < topic.partitions:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return ErrorCode.NONE if context.may_write(topic) else ErrorCode.INVALID_TOPIC_EXCEPTION


async def add_offsets_to_txn(
    context: RequestContext, request: AddOffsetsToTxnRequest
) -> AddOffsetsToTxnResponse:
    """The group's partition of `__consumer_offsets` joins the transaction."""
    if not request.group_id:
        return AddOffsetsToTxnResponse(0, ErrorCode.INVALID_GROUP_ID)
    error = await context.broker.transactions.add_partitions(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        [(CONSUMER_OFFSETS, context.broker.group_log.partition_of(request.group_id))],
    )
    return AddOffsetsToTxnResponse(0, _in_version(context, error, 2))


async def end_txn(context: RequestContext, request: EndTxnRequest) -> EndTxnResponse:
    """Answered when the outcome and its markers are durable: a committed transaction is readable then.

    A bump of the epoch (KIP-890) is only kept in the state's log from feature level 2 on.
    """
    bump = context.version >= _FIRST_VERSION_WITH_BUMP
    if bump and context.broker.features.transaction_version() < EPOCH_BUMP_VERSION:
        return EndTxnResponse(0, ErrorCode.UNSUPPORTED_VERSION)
    ended = await context.broker.transactions.end(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        commit=request.committed,
        bump=bump,
    )
    return EndTxnResponse(0, _in_version(context, ended.error, 2), ended.producer_id, ended.epoch)


async def write_txn_markers(
    context: RequestContext, request: WriteTxnMarkersRequest
) -> WriteTxnMarkersResponse:
    """Markers that an operator wants (KIP-664), whatever the coordinator thinks; answered when durable.

    The coordinator is not told, as in Kafka: what it still holds open ends with a marker of its own.
    """
    results: dict[int, dict[Place, ErrorCode]] = {}
    written = await asyncio.gather(*(_write_marker(context, marker) for marker in request.markers))
    for marker, errors in zip(request.markers, written, strict=True):
        if errors:
            results.setdefault(marker.producer_id, {}).update(errors)
    return WriteTxnMarkersResponse([_marked(producer_id, errors) for producer_id, errors in results.items()])


async def _write_marker(context: RequestContext, asked: WritableTxnMarker) -> dict[Place, ErrorCode]:
    places = [(topic.name, index) for topic in asked.topics for index in topic.partition_indexes]
    if asked.producer_id < 0 or asked.producer_epoch < 0:
        return dict.fromkeys(places, ErrorCode.UNKNOWN_SERVER_ERROR)  # nobody; Kafka has no better word
    marker = Marker(asked.transaction_result, asked.coordinator_epoch)
    return await context.broker.markers.append(
        dict.fromkeys(places), asked.producer_id, asked.producer_epoch, marker, asked.transaction_version
    )


def _marked(producer_id: int, errors: dict[Place, ErrorCode]) -> WritableTxnMarkerResult:
    return WritableTxnMarkerResult(
        producer_id,
        [
            WritableTxnMarkerTopicResult(
                topic, [WritableTxnMarkerPartitionResult(index, errors[topic, index]) for index in indexes]
            )
            for topic, indexes in by_topic(errors).items()
        ],
    )


async def txn_offset_commit(
    context: RequestContext, request: TxnOffsetCommitRequest
) -> TxnOffsetCommitResponse:
    """Offsets that become committed with the transaction, or not at all."""
    log, now_ms = context.broker.group_log, context.broker.clock.now_ms()
    code = await _join(context, request) or _check(context, request, now_ms)
    offsets: dict[Place, OffsetValue] = {}
    errors: dict[Place, ErrorCode] = {}
    for topic in request.topics:
        for part in topic.partitions:
            place = (topic.name, part.partition_index)
            errors[place] = (
                code
                or check_place(context, place, part.committed_metadata)
                or _check_ownership(context, request, place)
            )
            if errors[place] is ErrorCode.NONE:
                offsets[place] = OffsetValue(
                    part.committed_offset, part.committed_leader_epoch, part.committed_metadata or "", now_ms
                )
    if offsets:
        log.ensure(request.group_id, now_ms)
        try:
            await log.commit_in_transaction(
                request.group_id, request.producer_id, request.producer_epoch, offsets
            )
        except LogError as error:
            errors |= dict.fromkeys(offsets, storage_error_of_offsets(error))
    return TxnOffsetCommitResponse(
        topics=[
            TxnOffsetCommitResponseTopic(
                topic.name,
                [
                    TxnOffsetCommitResponsePartition(p.partition_index, errors[topic.name, p.partition_index])
                    for p in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


async def _join(context: RequestContext, request: TxnOffsetCommitRequest) -> ErrorCode:
    """Since v5 the group's partition joins the transaction by itself, without AddOffsetsToTxn (KIP-890)."""
    if context.version < _FIRST_VERSION_WITH_BUMP or not request.group_id:
        return ErrorCode.NONE
    error = await context.broker.transactions.join(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        [(CONSUMER_OFFSETS, context.broker.group_log.partition_of(request.group_id))],
    )
    return ErrorCode.INVALID_PRODUCER_EPOCH if error is ErrorCode.PRODUCER_FENCED else error


def _check(context: RequestContext, request: TxnOffsetCommitRequest, now_ms: int) -> ErrorCode:
    """Whether the group's partition is in this producer's transaction, and the member is a current one."""
    if not request.group_id:
        return ErrorCode.INVALID_GROUP_ID
    log = context.broker.group_log
    error = context.broker.transactions.verify(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        (CONSUMER_OFFSETS, log.partition_of(request.group_id)),
    )
    if error is ErrorCode.PRODUCER_FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    if error is ErrorCode.CONCURRENT_TRANSACTIONS:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE  # retriable, and known to every client version
    if error is not ErrorCode.NONE:
        return error
    who = (request.group_id, request.member_id, request.group_instance_id, request.generation_id)
    if log.consumer_groups.get(request.group_id) is None:
        error = log.groups.check_commit(*who, now_ms, transactional=True)
    else:
        error = _without_stale(log.consumer_groups.check_commit(*who, transactional=True))
    if context.version < 3 and error is not ErrorCode.NONE:  # KIP-447 came with v3
        return ErrorCode.ILLEGAL_GENERATION
    return error


def _check_ownership(context: RequestContext, request: TxnOffsetCommitRequest, place: Place) -> ErrorCode:
    return _without_stale(
        check_ownership(context, request.group_id, request.member_id, request.generation_id, place)
    )


def _without_stale(error: ErrorCode) -> ErrorCode:
    """Producers know a stale member epoch by its older name."""
    return ErrorCode.ILLEGAL_GENERATION if error is ErrorCode.STALE_MEMBER_EPOCH else error
