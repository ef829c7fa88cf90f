"""Metadata (3), DescribeCluster (60), DescribeTopicPartitions (75): one broker that leads everything."""

from uuid import UUID

from tailrace.broker.handlers.context import CloseConnection, RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.protocol import NULL_UUID, ErrorCode
from tailrace.broker.protocol.messages import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeTopicPartitionsCursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from tailrace.broker.topics import Topic

# bit masks of AclOperation; without an authorizer every client may do everything that Kafka lists
_TOPIC_OPERATIONS = sum(1 << operation for operation in (3, 4, 5, 6, 7, 8, 10, 11))
_CLUSTER_OPERATIONS = sum(1 << operation for operation in (5, 7, 8, 9, 10, 11, 12))
_NOT_ASKED = -(2**31)
_BROKERS, _CONTROLLERS = 1, 2
_MAX_PARTITIONS_PER_PAGE = 2000  # Kafka's max.request.partition.size.limit
_FIRST_VERSION_WITHOUT_NAME = 12  # an unknown topic id is answered without a name


def metadata(context: RequestContext, request: MetadataRequest) -> MetadataResponse:
    """Topics by name or id, or all; a topic that is asked for by name is created if that is allowed."""
    broker, config = context.broker, context.broker.config
    every = request.topics is None or (context.version == 0 and not request.topics)
    if every:
        topics = [_topic(context, topic, request) for topic in broker.topics.all()]
    else:
        topics = [_asked(context, wanted, request) for wanted in request.topics or ()]
    asked = request.include_cluster_authorized_operations
    return MetadataResponse(
        brokers=[MetadataResponseBroker(config.node_id, *context.address)],
        cluster_id=broker.topics.cluster_id,
        controller_id=config.node_id,
        topics=topics,
        cluster_authorized_operations=_CLUSTER_OPERATIONS if asked else _NOT_ASKED,
    )


def _asked(
    context: RequestContext, wanted: MetadataRequestTopic, request: MetadataRequest
) -> MetadataResponseTopic:
    topics, config = context.broker.topics, context.broker.config
    try:
        if wanted.topic_id != NULL_UUID:
            return _topic(context, topics.by_id(UUID(bytes=wanted.topic_id)), request)
        asked = wanted.name or ""
        found = topics.find(asked)
        if found is None and config.auto_create_topics and request.allow_auto_topic_creation:
            found = topics.create(asked, config.default_partitions, {})
            context.broker.prepare_key_checks(asked)
        return _topic(context, found or topics.get(asked), request)
    except LogError as error:
        name = wanted.name if context.version >= _FIRST_VERSION_WITHOUT_NAME else wanted.name or ""
        return MetadataResponseTopic(error.code, name, wanted.topic_id)


def _topic(context: RequestContext, topic: Topic, request: MetadataRequest) -> MetadataResponseTopic:
    node, epoch = context.broker.config.node_id, context.broker.logs.leader_epoch
    offline = context.broker.logs.offline()
    partitions = []
    for index in range(topic.partitions):
        lost = (topic.name, index) in offline
        partitions.append(
            MetadataResponsePartition(
                ErrorCode.LEADER_NOT_AVAILABLE if lost else 0,
                index,
                -1 if lost else node,
                epoch,
                [node],
                [] if lost else [node],
                [node] if lost else [],
            )
        )
    return MetadataResponseTopic(
        0,
        topic.name,
        topic.topic_id.bytes,
        topic.internal,
        partitions,
        _TOPIC_OPERATIONS if request.include_topic_authorized_operations else _NOT_ASKED,
    )


def describe_cluster(context: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse:
    """The one broker; controllers have no endpoint of their own here."""
    broker, node = context.broker, context.broker.config.node_id
    if request.endpoint_type != _BROKERS:
        known = request.endpoint_type == _CONTROLLERS
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE if known else ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message="this endpoint is a broker",
            endpoint_type=_BROKERS,
        )
    asked = request.include_cluster_authorized_operations
    return DescribeClusterResponse(
        cluster_id=broker.topics.cluster_id,
        controller_id=node,
        brokers=[DescribeClusterBroker(node, *context.address)],
        cluster_authorized_operations=_CLUSTER_OPERATIONS if asked else _NOT_ASKED,
    )


def describe_topic_partitions(
    context: RequestContext, request: DescribeTopicPartitionsRequest
) -> DescribeTopicPartitionsResponse:
    """Topics in the order of their names, at most `response_partition_limit` partitions a page (KIP-966)."""
    names = sorted({topic.name for topic in request.topics})
    start = ("", 0)
    if request.cursor is not None:
        if request.cursor.partition_index < 0:
            raise CloseConnection("a cursor of DescribeTopicPartitions names a negative partition")
        start = (request.cursor.topic_name, request.cursor.partition_index)
    if not names:
        names = [topic.name for topic in context.broker.topics.all()]
    response = DescribeTopicPartitionsResponse()
    left = max(1, min(request.response_partition_limit, _MAX_PARTITIONS_PER_PAGE))
    for name in sorted(name for name in names if name >= start[0]):
        found = context.broker.topics.find(name)
        if found is None:
            response.topics.append(
                DescribeTopicPartitionsResponseTopic(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, name)
            )
            continue
        first = start[1] if name == start[0] else 0
        if left == 0:
            response.next_cursor = DescribeTopicPartitionsCursor(name, first)
            return response
        end = min(found.partitions, first + left)
        response.topics.append(_described(context, found, first, end))
        left -= max(0, end - first)
        if end < found.partitions:
            response.next_cursor = DescribeTopicPartitionsCursor(name, end)
            return response
    return response


def _described(
    context: RequestContext, topic: Topic, first: int, end: int
) -> DescribeTopicPartitionsResponseTopic:
    whole = _topic(context, topic, MetadataRequest(include_topic_authorized_operations=True))
    return DescribeTopicPartitionsResponseTopic(
        0,
        topic.name,
        topic.topic_id.bytes,
        topic.internal,
        [
            DescribeTopicPartitionsResponsePartition(
                partition.error_code,
                partition.partition_index,
                partition.leader_id,
                partition.leader_epoch,
                partition.replica_nodes,
                partition.isr_nodes,
                [],
                [],
                partition.offline_replicas,
            )
            for partition in whole.partitions[first:end]
        ],
        _TOPIC_OPERATIONS,
    )
