"""OffsetCommit (8), OffsetFetch (9), OffsetDelete (47): a group's offsets."""

from collections.abc import Iterable

from tailrace.broker.coordinator.group import GroupState
from tailrace.broker.coordinator.schemas import OffsetKey, OffsetValue
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.protocol import NULL_UUID, ErrorCode
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
    OffsetFetchRequestGroup,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)

_FIRST_VERSION_WITH_GROUPS = 8
_FIRST_VERSION_WITH_EPOCHS = 9
_FIRST_VERSION_WITH_TOPIC_IDS = 10

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
    code = code or _check_member(context, request, now_ms)
    member_id, epoch = request.member_id, request.generation_id_or_member_epoch
    by_id = context.version >= _FIRST_VERSION_WITH_TOPIC_IDS
    offsets: dict[Place, OffsetValue] = {}
    errors: dict[tuple[str, bytes, int], ErrorCode] = {}
    places: dict[Place, tuple[str, bytes, int]] = {}
    for topic in request.topics:
        name = context.topic_name(topic.name, topic.topic_id)
        for part in topic.partitions:
            asked = (topic.name, topic.topic_id, part.partition_index)
            if name is None or (by_id and not name):
                errors[asked] = code or ErrorCode.UNKNOWN_TOPIC_ID
                continue
            place = (name, part.partition_index)
            errors[asked] = (
                code
                or check_place(context, place, part.committed_metadata)
                or check_ownership(context, request.group_id, member_id, epoch, place)
            )
            if errors[asked] is ErrorCode.NONE:
                places[place] = asked
                offsets[place] = OffsetValue(
                    part.committed_offset, part.committed_leader_epoch, part.committed_metadata or "", now_ms
                )
    if offsets:
        log.ensure(request.group_id, now_ms)
        try:
            await log.commit(request.group_id, offsets)
        except LogError as error:
            errors |= dict.fromkeys(places.values(), storage_error_of_offsets(error))
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                topic.name,
                topic.topic_id,
                [
                    OffsetCommitResponsePartition(
                        p.partition_index, errors[topic.name, topic.topic_id, p.partition_index]
                    )
                    for p in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _check_member(context: RequestContext, request: OffsetCommitRequest, now_ms: int) -> ErrorCode:
    """Whether these credentials may commit at all, told as this version can say it."""
    log, version = context.broker.group_log, context.version
    who = (
        request.group_id,
        request.member_id,
        request.group_instance_id,
        request.generation_id_or_member_epoch,
    )
    group = log.consumer_groups.get(request.group_id)
    if group is not None:
        code = log.consumer_groups.check_commit(*who, transactional=False)
        said = group.subscriptions.get(request.member_id)
        too_old = said is not None and said.classic is None and version < _FIRST_VERSION_WITH_EPOCHS
        return ErrorCode.UNSUPPORTED_VERSION if too_old else code
    code = log.groups.check_commit(*who, now_ms, transactional=False)
    unknown = code is ErrorCode.ILLEGAL_GENERATION and log.groups.get(request.group_id) is None
    return ErrorCode.GROUP_ID_NOT_FOUND if unknown and version >= _FIRST_VERSION_WITH_EPOCHS else code


def check_ownership(
    context: RequestContext, group_id: str, member_id: str, epoch: int, place: Place
) -> ErrorCode:
    """Whether a member of a consumer group may commit for this partition with the epoch that it names."""
    groups, topic = context.broker.group_log.consumer_groups, context.broker.topics.find(place[0])
    if topic is None or groups.get(group_id) is None:
        return ErrorCode.NONE
    return groups.check_place(group_id, member_id, epoch, (topic.topic_id.bytes, place[1]))


def offset_fetch(context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse:
    """Committed offsets, -1 where there is none; null topics: all of the group."""
    if context.version >= _FIRST_VERSION_WITH_GROUPS:
        return OffsetFetchResponse(groups=[_of_group(context, group, request) for group in request.groups])
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


def _of_group(
    context: RequestContext, group: OffsetFetchRequestGroup, request: OffsetFetchRequest
) -> OffsetFetchResponseGroup:
    groups = context.broker.group_log.consumer_groups
    if groups.get(group.group_id) is not None:
        code = groups.check_fetch(group.group_id, group.member_id, group.member_epoch)
        if code:
            return OffsetFetchResponseGroup(group.group_id, [], code)
    by_id = context.version >= _FIRST_VERSION_WITH_TOPIC_IDS
    wanted: list[tuple[str | None, bytes, list[int]]] = []
    if group.topics is not None:
        for topic in group.topics:
            name = context.topic_name(topic.name, topic.topic_id)
            wanted.append((name or None if by_id else name, topic.topic_id, topic.partition_indexes))
    else:
        for name, indexes in _all(context, group.group_id):
            found = context.broker.topics.find(name)
            if found is not None or not by_id:
                wanted.append((name, found.topic_id.bytes if found and by_id else NULL_UUID, indexes))
    return OffsetFetchResponseGroup(
        group.group_id,
        [
            OffsetFetchResponseTopics(
                name or "",
                topic_id,
                [
                    OffsetFetchResponsePartitions(*_row(context, group.group_id, name, index, request))
                    for index in indexes
                ],
            )
            for name, topic_id, indexes in wanted
        ],
    )


def _all(context: RequestContext, group_id: str) -> Iterable[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for name, index in sorted(context.broker.group_log.offsets.of_group(group_id)):
        topics.setdefault(name, []).append(index)
    return topics.items()


def _row(
    context: RequestContext, group_id: str, topic: str | None, partition: int, request: OffsetFetchRequest
) -> tuple[int, int, int, str, ErrorCode]:
    """One partition's answer; `topic` None: there is no topic with the id."""
    offsets = context.broker.group_log.offsets
    if topic is None:
        return partition, -1, -1, "", ErrorCode.UNKNOWN_TOPIC_ID
    if request.require_stable and offsets.is_unstable(group_id, topic, partition):
        return partition, -1, -1, "", ErrorCode.UNSTABLE_OFFSET_COMMIT
    found = offsets.get(group_id, topic, partition)
    if found is None:
        return partition, -1, -1, "", ErrorCode.NONE
    return partition, found.offset, found.leader_epoch, found.metadata, ErrorCode.NONE


async def offset_delete(context: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse:
    """Forget offsets of topics that no member is subscribed to."""
    log = context.broker.group_log
    group, consumer_group = log.groups.get(request.group_id), log.consumer_groups.get(request.group_id)
    if group is None and consumer_group is None:
        return OffsetDeleteResponse(ErrorCode.GROUP_ID_NOT_FOUND)
    if group and group.state is not GroupState.EMPTY and group.protocol_type != "consumer":
        return OffsetDeleteResponse(ErrorCode.NON_EMPTY_GROUP)
    read = consumer_group.subscribed_topics() if consumer_group else frozenset()
    present = frozenset(log.offsets.keys_of_group(request.group_id))
    keys: list[OffsetKey] = []
    topics: list[OffsetDeleteResponseTopic] = []
    for topic in request.topics:
        answers = []
        for part in topic.partitions:
            place = (topic.name, part.partition_index)
            code = check_place(context, place, None)
            subscribed = topic.name in read or (group is not None and group.is_subscribed(topic.name))
            if code is ErrorCode.NONE and subscribed:
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
