"""ElectLeaders (43), AlterReplicaLogDirs (34), AlterPartitionReassignments (45), DescribeQuorum (55),
UpdateFeatures (57), UnregisterBroker (64), ListConfigResources (74).
"""

from tailrace.broker.protocol.fields import (
    array,
    boolean,
    int8,
    int16,
    int32,
    int64,
    message,
    string,
    uint16,
    uuid,
)


@message
class ElectLeadersTopicPartitions:
    topic: str = string()
    partitions: list[int] = array("int32")


@message
class ElectLeadersRequest:
    """election_type: 0 preferred, 1 unclean; topic_partitions null means all."""

    election_type: int = int8("1+")
    topic_partitions: list[ElectLeadersTopicPartitions] | None = array(
        ElectLeadersTopicPartitions, nullable="0+"
    )
    timeout_ms: int = int32(default=60000)


@message
class ElectLeadersPartitionResult:
    partition_id: int = int32()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")


@message
class ReplicaElectionResult:
    topic: str = string()
    partition_result: list[ElectLeadersPartitionResult] = array(ElectLeadersPartitionResult)


@message
class ElectLeadersResponse:
    """One error per partition."""

    throttle_time_ms: int = int32()
    error_code: int = int16("1+")
    replica_election_results: list[ReplicaElectionResult] = array(ReplicaElectionResult)


@message
class AlterReplicaLogDirTopic:
    name: str = string()
    partitions: list[int] = array("int32")


@message
class AlterReplicaLogDir:
    path: str = string()
    topics: list[AlterReplicaLogDirTopic] = array(AlterReplicaLogDirTopic)


@message
class AlterReplicaLogDirsRequest:
    """path: where the partitions are to be kept."""

    dirs: list[AlterReplicaLogDir] = array(AlterReplicaLogDir)


@message
class AlterReplicaLogDirPartitionResult:
    partition_index: int = int32()
    error_code: int = int16()


@message
class AlterReplicaLogDirTopicResult:
    topic_name: str = string()
    partitions: list[AlterReplicaLogDirPartitionResult] = array(AlterReplicaLogDirPartitionResult)


@message
class AlterReplicaLogDirsResponse:
    """One error per partition."""

    throttle_time_ms: int = int32()
    results: list[AlterReplicaLogDirTopicResult] = array(AlterReplicaLogDirTopicResult)


@message
class ReassignablePartition:
    """replicas null: cancel what is pending."""

    partition_index: int = int32()
    replicas: list[int] | None = array("int32", nullable="0+", null_default=True)


@message
class ReassignableTopic:
    name: str = string()
    partitions: list[ReassignablePartition] = array(ReassignablePartition)


@message
class AlterPartitionReassignmentsRequest:
    """Asked by `kafka-reassign-partitions`."""

    timeout_ms: int = int32(default=60000)
    allow_replication_factor_change: bool = boolean("1+", default=True)
    topics: list[ReassignableTopic] = array(ReassignableTopic)


@message
class ReassignablePartitionResponse:
    partition_index: int = int32()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")


@message
class ReassignableTopicResponse:
    name: str = string()
    partitions: list[ReassignablePartitionResponse] = array(ReassignablePartitionResponse)


@message
class AlterPartitionReassignmentsResponse:
    """One error per partition."""

    throttle_time_ms: int = int32()
    allow_replication_factor_change: bool = boolean("1+", default=True)
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")
    responses: list[ReassignableTopicResponse] = array(ReassignableTopicResponse)


@message
class DescribeQuorumRequestPartition:
    partition_index: int = int32()


@message
class DescribeQuorumRequestTopic:
    topic_name: str = string()
    partitions: list[DescribeQuorumRequestPartition] = array(DescribeQuorumRequestPartition)


@message
class DescribeQuorumRequest:
    """Kafka knows one such topic: `__cluster_metadata`."""

    topics: list[DescribeQuorumRequestTopic] = array(DescribeQuorumRequestTopic)


@message
class QuorumReplicaState:
    """Timestamps in milliseconds."""

    replica_id: int = int32()
    replica_directory_id: bytes = uuid("2+")
    log_end_offset: int = int64()
    last_fetch_timestamp: int = int64("1+", default=-1)
    last_caught_up_timestamp: int = int64("1+", default=-1)


@message
class DescribeQuorumResponsePartition:
    partition_index: int = int32()
    error_code: int = int16()
    error_message: str | None = string("2+", nullable="2+")
    leader_id: int = int32()
    leader_epoch: int = int32()
    high_watermark: int = int64()
    current_voters: list[QuorumReplicaState] = array(QuorumReplicaState)
    observers: list[QuorumReplicaState] = array(QuorumReplicaState)


@message
class DescribeQuorumResponseTopic:
    topic_name: str = string()
    partitions: list[DescribeQuorumResponsePartition] = array(DescribeQuorumResponsePartition)


@message
class QuorumListener:
    name: str = string("2+")
    host: str = string("2+")
    port: int = uint16("2+")


@message
class QuorumNode:
    node_id: int = int32("2+")
    listeners: list[QuorumListener] = array(QuorumListener, "2+")


@message
class DescribeQuorumResponse:
    """Who keeps the metadata."""

    error_code: int = int16()
    error_message: str | None = string("2+", nullable="2+")
    topics: list[DescribeQuorumResponseTopic] = array(DescribeQuorumResponseTopic)
    nodes: list[QuorumNode] = array(QuorumNode, "2+")


@message
class FeatureUpdateKey:
    """upgrade_type: 1 upgrade, 2 safe downgrade, 3 unsafe downgrade; before v1 either an upgrade or a safe one."""

    feature: str = string()
    max_version_level: int = int16()
    allow_downgrade: bool = boolean("0")
    upgrade_type: int = int8("1+", default=1)


@message
class UpdateFeaturesRequest:
    """Level 0 disables a feature."""

    timeout_ms: int = int32(default=60000)
    feature_updates: list[FeatureUpdateKey] = array(FeatureUpdateKey)
    validate_only: bool = boolean("1+")


@message
class UpdatableFeatureResult:
    feature: str = string()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")


@message
class UpdateFeaturesResponse:
    """From v2 on one error for all of them."""

    throttle_time_ms: int = int32()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+", default=None)
    results: list[UpdatableFeatureResult] = array(UpdatableFeatureResult, "0-1")


@message
class UnregisterBrokerRequest:
    """Asked by `kafka-cluster.sh unregister`."""

    broker_id: int = int32()


@message
class UnregisterBrokerResponse:
    """An error or none."""

    throttle_time_ms: int = int32()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+", default=None)


@message
class ListConfigResourcesRequest:
    """v0 asks for client metrics only; no types: all of them (KIP-1142)."""

    resource_types: list[int] = array("int8", "1+")


@message
class ConfigResource:
    resource_name: str = string()
    resource_type: int = int8("1+", default=16)


@message
class ListConfigResourcesResponse:
    """What has configs."""

    throttle_time_ms: int = int32()
    error_code: int = int16()
    config_resources: list[ConfigResource] = array(ConfigResource)
