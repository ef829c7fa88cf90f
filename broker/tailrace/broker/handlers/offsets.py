"""OffsetCommit (8), OffsetFetch (9), OffsetDelete (47): a group's offsets."""

from collections.abc import Iterable

from tailrace.broker.coordinator.group import GroupState
from tailrace.broker.coordinator.schemas import OffsetKey, OffsetValue
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)

_FIRST_VERSION_WITH_GROUPS = 8
_FIRST_VERSION_WITH_EPOCHS = 9

Place = tuple[str, int]


def check_place(context: RequestContext, place: Place, metadata: str | None) -> ErrorCode:
    """Whether an offset may be committed for this partition."""
    topic = context.broker.topics.find(place[0])
    if topic is None or not 0 <= place[1] < topic.partitions:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if len((metadata or "").encode()) > context.broker.config.offset_metadata_max_bytes:
        return ErrorCode.OFFSET_METADATA_TOO_LARGE
    return ErrorCode.NONE


def storage_error_of_offsets(error: LogError) -> ErrorCode:
    """How a failed write of `__consumer_offsets` is told, as Kafka does: the client looks for us again."""
    if error.code in (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    if error.code is ErrorCode.MESSAGE_TOO_LARGE:
        return ErrorCode.INVALID_COMMIT_OFFSET_SIZE
    return error.code


async def offset_commit(context: RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse:
    """Durable when answered; partitions that do not exist are refused one by one."""
    log, now_ms = context.broker.group_log, context.broker.clock.now_ms()
    code = ErrorCode.NONE if request.group_id else ErrorCode.INVALID_GROUP_ID
    if code is ErrorCode.NONE:
        code = log.groups.check_commit(
            request.group_id,
            request.member_id,
            request.group_instance_id,
            request.generation_id_or_member_epoch,
            now_ms,
            transactional=False,
        )
    unknown = code is ErrorCode.ILLEGAL_GENERATION and log.groups.get(request.group_id) is None
    if unknown and context.version >= _FIRST_VERSION_WITH_EPOCHS:
        code = ErrorCode.GROUP_ID_NOT_FOUND
    offsets: dict[Place, OffsetValue] = {}
    errors: dict[Place, ErrorCode] = {}
    for topic in request.topics:
        for part in topic.partitions:
            place = (topic.name, part.partition_index)
            errors[place] = code or check_place(context, place, part.committed_metadata)
            if errors[place] is ErrorCode.NONE:
                offsets[place] = OffsetValue(
                    part.committed_offset, part.committed_leader_epoch, part.committed_metadata or "", now_ms
                )
    if offsets:
        log.groups.ensure(request.group_id, now_ms)
        try:
            await log.commit(request.group_id, offsets)
        except LogError as error:
            errors |= dict.fromkeys(offsets, storage_error_of_offsets(error))
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                topic.name,
                partitions=[
                    OffsetCommitResponsePartition(p.partition_index, errors[topic.name, p.partition_index])
                    for p in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def offset_fetch(context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse:
    """Committed offsets, -1 where there is none; null topics: all of the group."""
    if context.version >= _FIRST_VERSION_WITH_GROUPS:
        return OffsetFetchResponse(
            groups=[
                OffsetFetchResponseGroup(
                    group.group_id,
                    [
                        OffsetFetchResponseTopics(
                            name,
                            partitions=[
                                OffsetFetchResponsePartitions(
                                    *_row(context, group.group_id, name, index, request)
                                )
                                for index in indexes
                            ],
                        )
                        for name, indexes in (
                            _all(context, group.group_id)
                            if group.topics is None
                            else [(topic.name, topic.partition_indexes) for topic in group.topics]
                        )
                    ],
                )
                for group in request.groups
            ]
        )
    wanted = (
        _all(context, request.group_id)
        if request.topics is None
        else [(topic.name, topic.partition_indexes) for topic in request.topics]
    )
    return OffsetFetchResponse(
        topics=[
            OffsetFetchResponseTopic(
                name,
                [
                    OffsetFetchResponsePartition(*_row(context, request.group_id, name, index, request))
                    for index in indexes
                ],
            )
            for name, indexes in wanted
        ]
    )


def _all(context: RequestContext, group_id: str) -> Iterable[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for name, index in sorted(context.broker.group_log.offsets.of_group(group_id)):
        topics.setdefault(name, []).append(index)
    return topics.items()


def _row(
    context: RequestContext, group_id: str, topic: str, partition: int, request: OffsetFetchRequest
) -> tuple[int, int, int, str, ErrorCode]:
    offsets = context.broker.group_log.offsets
    if request.require_stable and offsets.is_unstable(group_id, topic, partition):
        return partition, -1, -1, "", ErrorCode.UNSTABLE_OFFSET_COMMIT
    found = offsets.get(group_id, topic, partition)
    if found is None:
        return partition, -1, -1, "", ErrorCode.NONE
    return partition, found.offset, found.leader_epoch, found.metadata, ErrorCode.NONE


async def offset_delete(context: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse:
    """Forget offsets of topics that no member is subscribed to."""
    log = context.broker.group_log
    group = log.groups.get(request.group_id)
    if group is None:
        return OffsetDeleteResponse(ErrorCode.GROUP_ID_NOT_FOUND)
    if group.state is not GroupState.EMPTY and group.protocol_type != "consumer":
        return OffsetDeleteResponse(ErrorCode.NON_EMPTY_GROUP)
    present = frozenset(log.offsets.keys_of_group(request.group_id))
    keys: list[OffsetKey] = []
    topics: list[OffsetDeleteResponseTopic] = []
    for topic in request.topics:
        answers = []
        for part in topic.partitions:
            place = (topic.name, part.partition_index)
            code = check_place(context, place, None)
            if code is ErrorCode.NONE and group.is_subscribed(topic.name):
                code = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
            elif code is ErrorCode.NONE and (key := OffsetKey(request.group_id, *place)) in present:
                keys.append(key)
            answers.append(OffsetDeleteResponsePartition(part.partition_index, code))
        topics.append(OffsetDeleteResponseTopic(topic.name, answers))
    try:
        await log.forget_offsets(keys)
    except LogError as error:
        return OffsetDeleteResponse(storage_error_of_offsets(error))
    return OffsetDeleteResponse(topics=topics)
