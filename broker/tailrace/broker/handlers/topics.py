"""CreateTopics (19), DeleteTopics (20), CreatePartitions (37), ListPartitionReassignments (46)."""

from uuid import UUID

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.protocol import NULL_UUID, ErrorCode
from tailrace.broker.protocol.messages import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)

_BROKER_DEFAULT = -1
_ONE_REPLICA = (1, _BROKER_DEFAULT)
_FIRST_VERSION_WITH_DELETION_DISABLED = 3


def create_topics(context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse:
    """Each topic on its own: made and durable, or refused with a reason."""
    names = [topic.name for topic in request.topics]
    return CreateTopicsResponse(
        topics=[
            CreatableTopicResult(
                topic.name,
                error_code=ErrorCode.INVALID_REQUEST,
                error_message="the topic is named more than once in the request",
            )
            if names.count(topic.name) > 1
            else _create(context, topic, validate_only=request.validate_only)
            for topic in request.topics
        ]
    )


def _create(context: RequestContext, topic: CreatableTopic, *, validate_only: bool) -> CreatableTopicResult:
    config = context.broker.config
    partitions = (
        config.default_partitions if topic.num_partitions == _BROKER_DEFAULT else topic.num_partitions
    )
    code, why = ErrorCode.NONE, ""
    if topic.assignments:
        if topic.num_partitions != _BROKER_DEFAULT or topic.replication_factor != _BROKER_DEFAULT:
            code, why = (
                ErrorCode.INVALID_REQUEST,
                "an assignment and a number of partitions exclude each other",
            )
        elif any(a.broker_ids != [config.node_id] for a in topic.assignments) or sorted(
            a.partition_index for a in topic.assignments
        ) != list(range(len(topic.assignments))):
            code, why = (
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"every partition from 0 up must be on broker {config.node_id}",
            )
        partitions = len(topic.assignments)
    elif topic.replication_factor not in _ONE_REPLICA:
        code, why = ErrorCode.INVALID_REPLICATION_FACTOR, "there is one broker: the replication factor is 1"
    names = [entry.name for entry in topic.configs]
    if code is ErrorCode.NONE and len(names) != len(set(names)):
        code, why = ErrorCode.INVALID_REQUEST, "a config is named more than once"
    if code is not ErrorCode.NONE:
        return CreatableTopicResult(topic.name, error_code=code, error_message=why)
    configs = {entry.name: entry.value for entry in topic.configs}
    topics = context.broker.topics
    try:
        if validate_only:
            topics.check_create(topic.name, partitions, configs)
            topic_id = NULL_UUID
        else:
            topic_id = topics.create(topic.name, partitions, configs).topic_id.bytes
            context.broker.prepare_key_checks(topic.name)
        entries = [
            CreatableTopicConfigs(entry.name, entry.value, entry.read_only, entry.source)
            for entry in topics.preview_configs(configs)
        ]
    except LogError as error:
        return CreatableTopicResult(topic.name, error_code=error.code, error_message=str(error))
    return CreatableTopicResult(topic.name, topic_id, 0, None, 0, partitions, 1, entries)


async def delete_topics(context: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse:
    """Remove topics with their records and the offsets that groups committed for them."""
    asked = request.topics or [DeleteTopicState(name) for name in request.topic_names]
    return DeleteTopicsResponse(
        responses=[
            DeletableTopicResult(
                wanted.name,
                wanted.topic_id,
                ErrorCode.INVALID_REQUEST,
                "the topic is named more than once in the request",
            )
            if asked.count(wanted) > 1
            else await _delete(context, wanted)
            for wanted in asked
        ]
    )


async def _delete(context: RequestContext, wanted: DeleteTopicState) -> DeletableTopicResult:
    broker = context.broker
    name, topic_id = wanted.name, wanted.topic_id
    if not broker.config.delete_topic_enable:
        newer = context.version >= _FIRST_VERSION_WITH_DELETION_DISABLED
        code = ErrorCode.TOPIC_DELETION_DISABLED if newer else ErrorCode.INVALID_REQUEST
        return DeletableTopicResult(name, topic_id, code, "this broker does not delete topics")
    if name is not None and topic_id != NULL_UUID:
        return DeletableTopicResult(
            name, topic_id, ErrorCode.INVALID_REQUEST, "name a topic or its id, not both"
        )
    try:
        by_name = name is not None
        found = broker.topics.get(name) if name is not None else broker.topics.by_id(UUID(bytes=topic_id))
        name, topic_id = found.name, found.topic_id.bytes
        if found.internal:
            return DeletableTopicResult(
                name if by_name else None, topic_id, ErrorCode.INVALID_TOPIC_EXCEPTION, f"{name} is internal"
            )
        broker.topics.delete(name)
        await broker.group_log.forget_offsets(broker.group_log.offsets.keys_of_topics([name]))
    except LogError as error:
        return DeletableTopicResult(name, topic_id, error.code, str(error))
    return DeletableTopicResult(name, topic_id)


def create_partitions(context: RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse:
    """Grow topics; new partitions are empty and durable."""
    names = [topic.name for topic in request.topics]
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsTopicResult(
                topic.name,
                ErrorCode.INVALID_REQUEST,
                "the topic is named more than once in the request",
            )
            if names.count(topic.name) > 1
            else _grow(context, topic, validate_only=request.validate_only)
            for topic in request.topics
        ]
    )


def _grow(
    context: RequestContext, topic: CreatePartitionsTopic, *, validate_only: bool
) -> CreatePartitionsTopicResult:
    topics, node = context.broker.topics, context.broker.config.node_id
    try:
        found = topics.get(topic.name)
        if found.internal:
            return CreatePartitionsTopicResult(
                topic.name, ErrorCode.INVALID_TOPIC_EXCEPTION, f"{topic.name} is internal"
            )
        if topic.assignments is not None and (
            len(topic.assignments) != topic.count - found.partitions
            or any(a.broker_ids != [node] for a in topic.assignments)
        ):
            return CreatePartitionsTopicResult(
                topic.name,
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"every new partition needs one assignment, to broker {node}",
            )
        if validate_only:
            topics.check_add_partitions(topic.name, topic.count)
        else:
            topics.add_partitions(topic.name, topic.count)
    except LogError as error:
        return CreatePartitionsTopicResult(topic.name, error.code, str(error))
    return CreatePartitionsTopicResult(topic.name)


def list_partition_reassignments(
    context: RequestContext, request: ListPartitionReassignmentsRequest
) -> ListPartitionReassignmentsResponse:
    """None: there is nowhere to move a partition to."""
    return ListPartitionReassignmentsResponse(error_message=None)
