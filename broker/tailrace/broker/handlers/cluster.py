"""What tools of a cluster ask: ElectLeaders (43), AlterReplicaLogDirs (34), AlterPartitionReassignments (45),
DescribeQuorum (55), UnregisterBroker (64), ListConfigResources (74).

One broker leads everything from one directory, so each is answered as Kafka answers where nothing is to be done.
"""

from collections.abc import Iterable
from pathlib import Path

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    AlterReplicaLogDir,
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
    ConfigResource,
    DescribeQuorumRequest,
    DescribeQuorumRequestPartition,
    DescribeQuorumResponse,
    DescribeQuorumResponsePartition,
    DescribeQuorumResponseTopic,
    ElectLeadersPartitionResult,
    ElectLeadersRequest,
    ElectLeadersResponse,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
    QuorumNode,
    QuorumReplicaState,
    ReassignablePartition,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
    ReplicaElectionResult,
    UnregisterBrokerRequest,
    UnregisterBrokerResponse,
)

_METADATA_TOPIC = "__cluster_metadata"
_TOPIC, _BROKER, _BROKER_LOGGER, _CLIENT_METRICS, _GROUP = 2, 4, 8, 16, 32
_CONFIG_RESOURCES = (_TOPIC, _BROKER, _BROKER_LOGGER, _CLIENT_METRICS, _GROUP)

# Kafka's own words, which its command line tools show
_NO_PARTITION = "This server does not host this topic-partition."


def elect_leaders(context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse:
    """ELECTION_NOT_NEEDED for each partition; null, which means all, lists only what an election changed."""
    asked = request.topic_partitions or ()
    return ElectLeadersResponse(
        replica_election_results=[
            ReplicaElectionResult(
                topic.topic, [_elected(context, topic.topic, index) for index in topic.partitions]
            )
            for topic in asked
        ]
    )


def _elected(context: RequestContext, topic: str, index: int) -> ElectLeadersPartitionResult:
    if not _exists(context, topic, index):
        return ElectLeadersPartitionResult(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, _NO_PARTITION)
    return ElectLeadersPartitionResult(
        index, ErrorCode.ELECTION_NOT_NEEDED, "Leader election not needed for topic partition."
    )


def alter_replica_log_dirs(
    context: RequestContext, request: AlterReplicaLogDirsRequest
) -> AlterReplicaLogDirsResponse:
    """A partition may be moved to where it is; there is no other directory."""
    results: dict[str, AlterReplicaLogDirTopicResult] = {}
    for directory in request.dirs:
        known = _is_data_dir(context, directory)
        for topic in directory.topics:
            found = results.setdefault(topic.name, AlterReplicaLogDirTopicResult(topic.name))
            for index in topic.partitions:
                error = ErrorCode.NONE if known else ErrorCode.LOG_DIR_NOT_FOUND
                if not _exists(context, topic.name, index):
                    error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                found.partitions.append(AlterReplicaLogDirPartitionResult(index, error))
    return AlterReplicaLogDirsResponse(results=list(results.values()))


def _is_data_dir(context: RequestContext, directory: AlterReplicaLogDir) -> bool:
    return Path(directory.path) == context.broker.config.data_dir.absolute()


def alter_partition_reassignments(
    context: RequestContext, request: AlterPartitionReassignmentsRequest
) -> AlterPartitionReassignmentsResponse:
    """A partition may be placed on this broker, where it is; nothing is ever pending."""
    return AlterPartitionReassignmentsResponse(
        allow_replication_factor_change=request.allow_replication_factor_change,
        error_message=None,
        responses=[
            ReassignableTopicResponse(
                topic.name, [_reassigned(context, topic.name, wanted) for wanted in topic.partitions]
            )
            for topic in request.topics
        ],
    )


def _reassigned(
    context: RequestContext, topic: str, wanted: ReassignablePartition
) -> ReassignablePartitionResponse:
    index, node = wanted.partition_index, context.broker.config.node_id
    if not _exists(context, topic, index):
        return ReassignablePartitionResponse(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, _NO_PARTITION)
    if wanted.replicas is None:
        return ReassignablePartitionResponse(index, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, None)
    if wanted.replicas != [node]:
        return ReassignablePartitionResponse(
            index, ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"the only broker is {node}"
        )
    return ReassignablePartitionResponse(index, ErrorCode.NONE, None)


def describe_quorum(context: RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse:
    """This broker is the only voter; its metadata is a database, so the log of metadata has no record."""
    return DescribeQuorumResponse(
        error_message=None,
        topics=[
            DescribeQuorumResponseTopic(
                topic.topic_name,
                [_quorum(context, topic.topic_name, partition) for partition in topic.partitions],
            )
            for topic in request.topics
        ],
        nodes=[QuorumNode(context.broker.config.node_id)],
    )


def _quorum(
    context: RequestContext, topic: str, partition: DescribeQuorumRequestPartition
) -> DescribeQuorumResponsePartition:
    index = partition.partition_index
    if (topic, index) != (_METADATA_TOPIC, 0):
        return DescribeQuorumResponsePartition(
            index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, _NO_PARTITION, leader_id=-1
        )
    node, now_ms = context.broker.config.node_id, context.broker.clock.now_ms()
    voter = QuorumReplicaState(node, last_fetch_timestamp=now_ms, last_caught_up_timestamp=now_ms)
    return DescribeQuorumResponsePartition(
        index,
        error_message=None,
        leader_id=node,
        leader_epoch=context.broker.logs.leader_epoch,
        current_voters=[voter],
    )


def unregister_broker(context: RequestContext, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse:
    """Refused for this broker too: Kafka takes a running one off, and a cluster of one is gone until its restart."""
    if request.broker_id == context.broker.config.node_id:
        text = f"Broker ID {request.broker_id} is the only broker and cannot be unregistered"
        return UnregisterBrokerResponse(0, ErrorCode.INVALID_REQUEST, text)
    text = f"Broker ID {request.broker_id} is not currently registered"
    return UnregisterBrokerResponse(0, ErrorCode.BROKER_ID_NOT_REGISTERED, text)


def list_config_resources(
    context: RequestContext, request: ListConfigResourcesRequest
) -> ListConfigResourcesResponse:
    """Topics and the broker, and what else has something set; version 0 asks for clients' metrics only."""
    every = _CONFIG_RESOURCES if context.version else (_CLIENT_METRICS,)
    asked = request.resource_types or every
    if not set(asked) <= set(_CONFIG_RESOURCES):
        return ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    found = [ConfigResource(name, kind) for kind in asked for name in _names(context, kind)]
    return ListConfigResourcesResponse(config_resources=found)


def _names(context: RequestContext, kind: int) -> Iterable[str]:
    if kind == _TOPIC:
        return [topic.name for topic in context.broker.topics.all()]
    if kind in (_BROKER, _BROKER_LOGGER):
        return [str(context.broker.config.node_id)]
    return context.broker.cluster_store.resources(kind)


def _exists(context: RequestContext, topic: str, index: int) -> bool:
    found = context.broker.topics.find(topic)
    return found is not None and 0 <= index < found.partitions
