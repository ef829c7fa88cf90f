"""ListOffsets (2), OffsetForLeaderEpoch (23), DeleteRecords (21): where a log begins, ends, and is cut."""

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.handlers.fetch import check_leader_epoch, end_of_epoch
from tailrace.broker.log import LogError, PartitionLog
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
    EpochEndOffset,
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)

_LATEST = -1
_EARLIEST = -2
_MAX_TIMESTAMP = -3
_EARLIEST_LOCAL = -4
_LATEST_TIERED = -5
_EARLIEST_PENDING_UPLOAD = -6
# the version in which each special timestamp came
_SINCE = {_MAX_TIMESTAMP: 7, _EARLIEST_LOCAL: 8, _LATEST_TIERED: 9, _EARLIEST_PENDING_UPLOAD: 11}
_READ_COMMITTED = 1


def list_offsets(context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse:
    """One offset per partition; -1 where no record matches the timestamp."""
    return ListOffsetsResponse(
        topics=[
            ListOffsetsTopicResponse(
                topic.name,
                [
                    _list_offset(context, topic.name, wanted, request.isolation_level)
                    for wanted in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _list_offset(
    context: RequestContext, topic: str, wanted: ListOffsetsPartition, isolation_level: int
) -> ListOffsetsPartitionResponse:
    index, timestamp = wanted.partition_index, wanted.timestamp
    try:
        log = context.broker.topics.log(topic, index)
        error = check_leader_epoch(context, wanted.current_leader_epoch)
        if timestamp < _EARLIEST_PENDING_UPLOAD or context.version < _SINCE.get(timestamp, 0):
            error = ErrorCode.UNSUPPORTED_VERSION
        if error is not ErrorCode.NONE:
            return ListOffsetsPartitionResponse(index, error)
        upper = log.last_stable_offset if isolation_level == _READ_COMMITTED else log.high_watermark
        return _find(context, log, index, timestamp, upper)
    except LogError as error_of_log:
        return ListOffsetsPartitionResponse(index, error_of_log.code)


def _find(
    context: RequestContext, log: PartitionLog, index: int, timestamp: int, upper: int
) -> ListOffsetsPartitionResponse:
    epoch = context.broker.logs.leader_epoch
    if timestamp == _LATEST:
        return ListOffsetsPartitionResponse(index, 0, -1, upper, epoch)
    if timestamp in (_EARLIEST, _EARLIEST_LOCAL):
        first_epoch = next(iter(log.leader_epochs()), epoch)
        return ListOffsetsPartitionResponse(index, 0, -1, log.log_start_offset, first_epoch)
    if timestamp in (_LATEST_TIERED, _EARLIEST_PENDING_UPLOAD):
        return ListOffsetsPartitionResponse(index)  # nothing is tiered here
    found = (
        log.max_timestamp(upper)
        if timestamp == _MAX_TIMESTAMP
        else log.offset_for_timestamp(timestamp, upper)
    )
    if found is None:
        return ListOffsetsPartitionResponse(index)
    return ListOffsetsPartitionResponse(index, 0, found.timestamp_ms, found.offset, found.leader_epoch)


def offset_for_leader_epoch(
    context: RequestContext, request: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse:
    """Where the log of an epoch ended: how clients see that a tail was cut off (KIP-320)."""
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderTopicResult(
                topic.topic, [_epoch_end(context, topic.topic, wanted) for wanted in topic.partitions]
            )
            for topic in request.topics
        ]
    )


def _epoch_end(context: RequestContext, topic: str, wanted: OffsetForLeaderPartition) -> EpochEndOffset:
    try:
        log = context.broker.topics.log(topic, wanted.partition)
    except LogError as error:
        return EpochEndOffset(error.code, wanted.partition)
    stale = check_leader_epoch(context, wanted.current_leader_epoch)
    if stale is not ErrorCode.NONE:
        return EpochEndOffset(stale, wanted.partition)
    epoch, end = end_of_epoch(log, wanted.leader_epoch, context.broker.logs.leader_epoch)
    return EpochEndOffset(0, wanted.partition, epoch, end)


def delete_records(context: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse:
    """Move the start of logs up, durably; internal topics are the broker's own."""
    return DeleteRecordsResponse(
        topics=[
            DeleteRecordsTopicResult(
                topic.name,
                [
                    _delete_before(context, topic.name, wanted.partition_index, wanted.offset)
                    for wanted in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _delete_before(
    context: RequestContext, topic: str, partition: int, before: int
) -> DeleteRecordsPartitionResult:
    broker = context.broker
    try:
        found = broker.topics.get(topic)
        if found.internal:
            return DeleteRecordsPartitionResult(partition, -1, ErrorCode.INVALID_TOPIC_EXCEPTION)
        if not broker.topics.log(topic, partition).config.delete:
            return DeleteRecordsPartitionResult(partition, -1, ErrorCode.POLICY_VIOLATION)
        return DeleteRecordsPartitionResult(
            partition, broker.logs.delete_records(topic, partition, before), 0
        )
    except LogError as error:
        return DeleteRecordsPartitionResult(partition, -1, error.code)
