"""Kafka's table of who may ask what: one row for each question, with the rules that it needs.

A row is a request about the resources `names`, and the operations that together are necessary and enough.  What is
refused is told with the error of the resource whose operation is missing; `hidden`: left out instead.
Source: kafka.server.KafkaApis, ControllerApis, AclApis (4.3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fixtures.wire import batch

from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.record import Record, encode_batch
from tailrace.security.acls import CLUSTER_NAME, Operation, ResourceType

TOPIC, GROUP, CLUSTER = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.CLUSTER
TXN = ResourceType.TRANSACTIONAL_ID
Need = tuple[ResourceType, Operation]
Make = Callable[[Sequence[str], "Target"], Any]


@dataclass(frozen=True)
class Target:
    """What a request is made for: its version, ids of topics by name, and the producer that holds the ids."""

    version: int
    topic_ids: dict[str, bytes]
    producer_id: int = 0
    producer_epoch: int = 0


@dataclass(frozen=True)
class Row:
    """`many`: one request asks for several names, and each is answered for itself; `versions`: only these."""

    api: str
    make: Make
    needs: tuple[Need, ...] = ()
    hidden: bool = False
    many: bool = False
    about: str = ""
    first: int = 0
    last: int = 99
    silent_until: int = -1  # up to this version there is no field for an error, and nothing is told
    enough: tuple[Operation, ...] = ()  # each of them does as well as the first need's operation
    refused_as: ErrorCode | None = None  # where it is not the error of the resource's type

    def __str__(self) -> str:
        return f"{self.api}{'-' if self.about else ''}{self.about}"


def resource(need: Need, name: str) -> str:
    """The name of what a need is about."""
    return CLUSTER_NAME if need[0] is CLUSTER else name


def _message(name: str) -> Any:
    """A message of an API that this broker may not serve yet."""
    return vars(m)[name]


def _id(target: Target, name: str, first_with_ids: int) -> bytes:
    return target.topic_ids[name] if target.version >= first_with_ids else bytes(16)


def _produce(names: Sequence[str], target: Target) -> m.ProduceRequest:
    data = [
        m.TopicProduceData(n, _id(target, n, 13), [m.PartitionProduceData(0, batch(b"x"))]) for n in names
    ]
    return m.ProduceRequest(None, -1, 1000, data)


def _produce_in_transaction(names: Sequence[str], target: Target) -> m.ProduceRequest:
    records = encode_batch(
        [Record(None, b"x", 1)], producer_id=target.producer_id, producer_epoch=target.producer_epoch,
        base_sequence=0, transactional=True,
    )  # fmt: skip
    data = [
        m.TopicProduceData(n, _id(target, n, 13), [m.PartitionProduceData(0, bytes(records))]) for n in names
    ]
    return m.ProduceRequest(names[0], -1, 1000, data)


def _fetch(names: Sequence[str], target: Target) -> m.FetchRequest:
    wanted = [
        m.FetchTopic(n, _id(target, n, 13), [m.FetchPartition(0, partition_max_bytes=1000)]) for n in names
    ]
    return m.FetchRequest(max_wait_ms=0, max_bytes=1000, topics=wanted)


def _metadata_by_id(names: Sequence[str], target: Target) -> m.MetadataRequest:
    return m.MetadataRequest([m.MetadataRequestTopic(target.topic_ids[n], None) for n in names])


def _metadata(names: Sequence[str], target: Target) -> m.MetadataRequest:
    return m.MetadataRequest([m.MetadataRequestTopic(bytes(16), n) for n in names], False)


def _offset_commit(names: Sequence[str], target: Target) -> m.OffsetCommitRequest:
    parts = [m.OffsetCommitRequestPartition(0, 0, committed_metadata="")]
    return m.OffsetCommitRequest(
        names[0], topics=[m.OffsetCommitRequestTopic(n, _id(target, n, 10), parts) for n in names]
    )


def _offset_fetch(names: Sequence[str], target: Target) -> m.OffsetFetchRequest:
    return m.OffsetFetchRequest(
        names[0],
        [m.OffsetFetchRequestTopic(n, [0]) for n in names],
        [
            m.OffsetFetchRequestGroup(
                names[0], topics=[m.OffsetFetchRequestTopics(n, _id(target, n, 10), [0]) for n in names]
            )
        ],
    )


def _offset_fetch_all(names: Sequence[str], target: Target) -> m.OffsetFetchRequest:
    return m.OffsetFetchRequest(names[0], None, [m.OffsetFetchRequestGroup(names[0], topics=None)])


def _find(kind: int) -> Make:
    return lambda names, target: m.FindCoordinatorRequest(names[0], kind, list(names))


def _txn_offset_commit(names: Sequence[str], target: Target) -> m.TxnOffsetCommitRequest:
    parts = [m.TxnOffsetCommitRequestPartition(0, 0, committed_metadata="")]
    return m.TxnOffsetCommitRequest(
        names[0], names[0], target.producer_id, target.producer_epoch,
        topics=[m.TxnOffsetCommitRequestTopic(n, parts) for n in names],
    )  # fmt: skip


def _configs(kind: int, request: Any, resource: Any, *more: Any) -> Make:
    return lambda names, target: request(
        [resource(kind, "1" if kind in (_BROKER_CONFIG, _LOGGER_CONFIG) else n, *more) for n in names]
    )


def _write_txn_markers(names: Sequence[str], target: Target) -> m.WriteTxnMarkersRequest:
    topics = [m.WritableTxnMarkerTopic(n, [0]) for n in names]
    marker = m.WritableTxnMarker(target.producer_id, target.producer_epoch, False, topics)
    return m.WriteTxnMarkersRequest([marker])


_TOPIC_CONFIG, _BROKER_CONFIG, _LOGGER_CONFIG, _METRICS_CONFIG, _GROUP_CONFIG = 2, 4, 8, 16, 32
_ANY = 1
_ACL_FILTER = (_ANY, None, _ANY, None, None, _ANY, _ANY)
_ACL = (TOPIC, "unused", 3, "User:unused", "*", Operation.READ, 3)


def _cluster(api: str, operation: Operation, make: Make, **options: Any) -> Row:
    return Row(api, make, ((CLUSTER, operation),), **options)


O = Operation  # noqa: E741 - the table is read more easily
ROWS: tuple[Row, ...] = (
    Row("PRODUCE", _produce, ((TOPIC, O.WRITE),), many=True, first=3),
    Row("PRODUCE", _produce_in_transaction, ((TXN, O.WRITE), (TOPIC, O.WRITE)), about="transaction", first=3),
    Row("FETCH", _fetch, ((TOPIC, O.READ),), many=True),
    Row("LIST_OFFSETS", lambda names, t: m.ListOffsetsRequest(topics=[
        m.ListOffsetsTopic(n, [m.ListOffsetsPartition(0, timestamp=-1)]) for n in names]),
        ((TOPIC, O.DESCRIBE),), many=True),
    Row("METADATA", _metadata, ((TOPIC, O.DESCRIBE),), many=True, about="by name"),
    Row("METADATA", _metadata_by_id, ((TOPIC, O.DESCRIBE),), about="by id", first=12,
        refused_as=ErrorCode.UNKNOWN_TOPIC_ID),
    Row("METADATA", lambda names, t: m.MetadataRequest([] if t.version == 0 else None),
        ((TOPIC, O.DESCRIBE),), hidden=True, about="all"),
    Row("OFFSET_COMMIT", _offset_commit, ((GROUP, O.READ), (TOPIC, O.READ))),
    Row("OFFSET_FETCH", _offset_fetch, ((GROUP, O.DESCRIBE), (TOPIC, O.DESCRIBE))),
    Row("OFFSET_FETCH", _offset_fetch_all, ((GROUP, O.DESCRIBE),), about="all", first=2),
    Row("FIND_COORDINATOR", _find(0), ((GROUP, O.DESCRIBE),), about="group"),
    Row("FIND_COORDINATOR", _find(0), ((GROUP, O.DESCRIBE),), about="groups", many=True, first=4),
    Row("FIND_COORDINATOR", _find(1), ((TXN, O.DESCRIBE),), about="transaction", first=1),
    Row("JOIN_GROUP", lambda names, t: m.JoinGroupRequest(names[0], 10_000, 10_000, "", None, "consumer", [
        m.JoinGroupRequestProtocol("range", b"")]), ((GROUP, O.READ),)),
    Row("SYNC_GROUP", lambda names, t: m.SyncGroupRequest(names[0]), ((GROUP, O.READ),)),
    Row("HEARTBEAT", lambda names, t: m.HeartbeatRequest(names[0]), ((GROUP, O.READ),)),
    Row("LEAVE_GROUP", lambda names, t: m.LeaveGroupRequest(names[0], "nobody", [
        m.LeaveGroupMember("nobody")]), ((GROUP, O.READ),)),
    Row("DESCRIBE_GROUPS", lambda names, t: m.DescribeGroupsRequest(list(names)), ((GROUP, O.DESCRIBE),), many=True),
    Row("LIST_GROUPS", lambda names, t: m.ListGroupsRequest(), ((GROUP, O.DESCRIBE),), hidden=True),
    Row("DELETE_GROUPS", lambda names, t: m.DeleteGroupsRequest(list(names)), ((GROUP, O.DELETE),), many=True),
    Row("CREATE_TOPICS", lambda names, t: m.CreateTopicsRequest([
        m.CreatableTopic(n, 1, 1) for n in names]), ((TOPIC, O.CREATE),), many=True),
    _cluster("CREATE_TOPICS", O.CREATE, lambda names, t: m.CreateTopicsRequest([
        m.CreatableTopic(n, 1, 1) for n in names]), about="by the cluster", enough=(O.WRITE,),
             refused_as=ErrorCode.TOPIC_AUTHORIZATION_FAILED),
    Row("DELETE_TOPICS", lambda names, t: m.DeleteTopicsRequest(
        [m.DeleteTopicState(n) for n in names], list(names)), ((TOPIC, O.DELETE),), many=True),
    Row("DELETE_TOPICS", lambda names, t: m.DeleteTopicsRequest([
        m.DeleteTopicState(None, t.topic_ids[n]) for n in names]), ((TOPIC, O.DELETE),), about="by id", first=6),
    Row("DELETE_RECORDS", lambda names, t: m.DeleteRecordsRequest([
        m.DeleteRecordsTopic(n, [m.DeleteRecordsPartition(0, 0)]) for n in names]), ((TOPIC, O.DELETE),), many=True),
    Row("INIT_PRODUCER_ID", lambda names, t: m.InitProducerIdRequest(names[0], 10_000), ((TXN, O.WRITE),)),
    _cluster("INIT_PRODUCER_ID", O.IDEMPOTENT_WRITE, lambda names, t: m.InitProducerIdRequest(None, 0),
             about="idempotence", enough=(O.WRITE,)),
    Row("INIT_PRODUCER_ID", lambda names, t: m.InitProducerIdRequest(None, 0), ((TOPIC, O.WRITE),),
        about="idempotence by a topic", refused_as=ErrorCode.CLUSTER_AUTHORIZATION_FAILED),
    Row("OFFSET_FOR_LEADER_EPOCH", lambda names, t: m.OffsetForLeaderEpochRequest(topics=[
        m.OffsetForLeaderTopic(n, [m.OffsetForLeaderPartition(0, -1, 0)]) for n in names]),
        ((TOPIC, O.DESCRIBE),), many=True),
    Row("ADD_PARTITIONS_TO_TXN", lambda names, t: m.AddPartitionsToTxnRequest(
        [], names[0], t.producer_id, t.producer_epoch, [m.AddPartitionsToTxnTopic(n, [0]) for n in names]),
        ((TXN, O.WRITE), (TOPIC, O.WRITE))),
    Row("ADD_OFFSETS_TO_TXN", lambda names, t: m.AddOffsetsToTxnRequest(
        names[0], t.producer_id, t.producer_epoch, names[0]), ((TXN, O.WRITE), (GROUP, O.READ))),
    Row("END_TXN", lambda names, t: m.EndTxnRequest(names[0], t.producer_id, t.producer_epoch, True),
        ((TXN, O.WRITE),)),
    _cluster("WRITE_TXN_MARKERS", O.CLUSTER_ACTION, _write_txn_markers, enough=(O.ALTER,)),
    _cluster("WRITE_TXN_MARKERS", O.ALTER, _write_txn_markers, about="by an operator", enough=(O.CLUSTER_ACTION,)),
    Row("TXN_OFFSET_COMMIT", _txn_offset_commit, ((TXN, O.WRITE), (GROUP, O.READ), (TOPIC, O.READ))),
    _cluster("DESCRIBE_ACLS", O.DESCRIBE, lambda names, t: m.DescribeAclsRequest(*_ACL_FILTER)),
    _cluster("CREATE_ACLS", O.ALTER, lambda names, t: m.CreateAclsRequest([m.AclCreation(*_ACL)])),
    _cluster("DELETE_ACLS", O.ALTER, lambda names, t: m.DeleteAclsRequest([
        m.DeleteAclsFilter(_ANY, None, _ANY, "User:unused", None, _ANY, _ANY)])),
    Row("DESCRIBE_CONFIGS", _configs(_TOPIC_CONFIG, m.DescribeConfigsRequest, m.DescribeConfigsResource),
        ((TOPIC, O.DESCRIBE_CONFIGS),), many=True),
    Row("DESCRIBE_CONFIGS", _configs(_GROUP_CONFIG, m.DescribeConfigsRequest, m.DescribeConfigsResource),
        ((GROUP, O.DESCRIBE_CONFIGS),), about="group"),
    _cluster("DESCRIBE_CONFIGS", O.DESCRIBE_CONFIGS,
             _configs(_BROKER_CONFIG, m.DescribeConfigsRequest, m.DescribeConfigsResource), about="broker"),
    _cluster("DESCRIBE_CONFIGS", O.DESCRIBE_CONFIGS,
             _configs(_LOGGER_CONFIG, m.DescribeConfigsRequest, m.DescribeConfigsResource), about="loggers"),
    _cluster("DESCRIBE_CONFIGS", O.DESCRIBE_CONFIGS,
             _configs(_METRICS_CONFIG, m.DescribeConfigsRequest, m.DescribeConfigsResource), about="client metrics"),
    Row("ALTER_CONFIGS", _configs(_TOPIC_CONFIG, m.AlterConfigsRequest, m.AlterConfigsResource, []),
        ((TOPIC, O.ALTER_CONFIGS),), many=True),
    _cluster("ALTER_CONFIGS", O.ALTER_CONFIGS,
             _configs(_BROKER_CONFIG, m.AlterConfigsRequest, m.AlterConfigsResource, []), about="broker"),
    Row("INCREMENTAL_ALTER_CONFIGS",
        _configs(_TOPIC_CONFIG, m.IncrementalAlterConfigsRequest, m.IncrementalAlterConfigsResource, []),
        ((TOPIC, O.ALTER_CONFIGS),), many=True),
    _cluster("INCREMENTAL_ALTER_CONFIGS", O.ALTER_CONFIGS,
             _configs(_BROKER_CONFIG, m.IncrementalAlterConfigsRequest, m.IncrementalAlterConfigsResource, []),
             about="broker"),
    _cluster("INCREMENTAL_ALTER_CONFIGS", O.ALTER_CONFIGS,
             _configs(_LOGGER_CONFIG, m.IncrementalAlterConfigsRequest, m.IncrementalAlterConfigsResource, []),
             about="loggers"),
    _cluster("ALTER_CONFIGS", O.ALTER_CONFIGS,
             _configs(_METRICS_CONFIG, m.AlterConfigsRequest, m.AlterConfigsResource, []), about="client metrics"),
    _cluster("INCREMENTAL_ALTER_CONFIGS", O.ALTER_CONFIGS,
             _configs(_METRICS_CONFIG, m.IncrementalAlterConfigsRequest, m.IncrementalAlterConfigsResource, []),
             about="client metrics"),
    Row("ALTER_CONFIGS", _configs(_GROUP_CONFIG, m.AlterConfigsRequest, m.AlterConfigsResource, []),
        ((GROUP, O.ALTER_CONFIGS),), about="group", many=True),
    Row("INCREMENTAL_ALTER_CONFIGS",
        _configs(_GROUP_CONFIG, m.IncrementalAlterConfigsRequest, m.IncrementalAlterConfigsResource, []),
        ((GROUP, O.ALTER_CONFIGS),), about="group", many=True),
    _cluster("ALTER_REPLICA_LOG_DIRS", O.ALTER, lambda names, t: m.AlterReplicaLogDirsRequest([
        m.AlterReplicaLogDir("/x", [m.AlterReplicaLogDirTopic(n, [0]) for n in names])])),
    _cluster("DESCRIBE_LOG_DIRS", O.DESCRIBE, lambda names, t: m.DescribeLogDirsRequest(None), silent_until=2),
    Row("CREATE_PARTITIONS", lambda names, t: m.CreatePartitionsRequest([
        m.CreatePartitionsTopic(n, 9, None) for n in names], 1000, True), ((TOPIC, O.ALTER),), many=True),
    _cluster("ELECT_LEADERS", O.ALTER, lambda names, t: m.ElectLeadersRequest(0, [
        m.ElectLeadersTopicPartitions(n, [0]) for n in names])),
    _cluster("ALTER_PARTITION_REASSIGNMENTS", O.ALTER, lambda names, t: m.AlterPartitionReassignmentsRequest(
        1000, True, [m.ReassignableTopic(n, [m.ReassignablePartition(0, [1])]) for n in names])),
    _cluster("LIST_PARTITION_REASSIGNMENTS", O.DESCRIBE, lambda names, t: m.ListPartitionReassignmentsRequest(1000, None)),
    Row("OFFSET_DELETE", lambda names, t: m.OffsetDeleteRequest(names[0], [
        m.OffsetDeleteRequestTopic(n, [m.OffsetDeleteRequestPartition(0)]) for n in names]),
        ((GROUP, O.DELETE), (TOPIC, O.READ))),
    _cluster("DESCRIBE_CLIENT_QUOTAS", O.DESCRIBE_CONFIGS, lambda names, t: m.DescribeClientQuotasRequest([], False)),
    _cluster("ALTER_CLIENT_QUOTAS", O.ALTER_CONFIGS, lambda names, t: m.AlterClientQuotasRequest([
        m.QuotaAlteration([m.QuotaEntity("user", names[0])], [m.QuotaOp("producer_byte_rate", 1e9, False)])], True)),
    _cluster("DESCRIBE_USER_SCRAM_CREDENTIALS", O.DESCRIBE,
             lambda names, t: m.DescribeUserScramCredentialsRequest([m.ScramUserName("admin")])),
    _cluster("ALTER_USER_SCRAM_CREDENTIALS", O.ALTER, lambda names, t: m.AlterUserScramCredentialsRequest([
        m.ScramCredentialDeletion("nobody", 1)], [])),
    _cluster("UPDATE_FEATURES", O.ALTER, lambda names, t: m.UpdateFeaturesRequest(1000, [
        m.FeatureUpdateKey("group.version", 1)])),
    _cluster("UNREGISTER_BROKER", O.ALTER, lambda names, t: m.UnregisterBrokerRequest(7)),
    _cluster("DESCRIBE_QUORUM", O.DESCRIBE, lambda names, t: m.DescribeQuorumRequest([
        m.DescribeQuorumRequestTopic("__cluster_metadata", [m.DescribeQuorumRequestPartition(0)])])),
    Row("DESCRIBE_PRODUCERS", lambda names, t: m.DescribeProducersRequest([
        m.DescribeProducersTopic(n, [0]) for n in names]), ((TOPIC, O.READ),), many=True),
    Row("DESCRIBE_TRANSACTIONS", lambda names, t: m.DescribeTransactionsRequest(list(names)),
        ((TXN, O.DESCRIBE),), many=True),
    Row("LIST_TRANSACTIONS", lambda names, t: m.ListTransactionsRequest(duration_filter=-1), ((TXN, O.DESCRIBE),),
        hidden=True),
    _cluster("LIST_CONFIG_RESOURCES", O.DESCRIBE_CONFIGS, lambda names, t: m.ListConfigResourcesRequest()),
    Row("DESCRIBE_TOPIC_PARTITIONS", lambda names, t: m.DescribeTopicPartitionsRequest([
        m.DescribeTopicPartitionsTopic(n) for n in names], 2000), ((TOPIC, O.DESCRIBE),), many=True),
    Row("DESCRIBE_TOPIC_PARTITIONS", lambda names, t: m.DescribeTopicPartitionsRequest([], 2000),
        ((TOPIC, O.DESCRIBE),), hidden=True, about="all"),
    Row("CONSUMER_GROUP_HEARTBEAT", lambda names, t: _message("ConsumerGroupHeartbeatRequest")(
        names[0], "a member", 0, rebalance_timeout_ms=1000, subscribed_topic_names=[names[0]], topic_partitions=[]),
        ((GROUP, O.READ), (TOPIC, O.DESCRIBE))),
    Row("CONSUMER_GROUP_DESCRIBE", lambda names, t: _message("ConsumerGroupDescribeRequest")(list(names)),
        ((GROUP, O.DESCRIBE),), many=True),
)  # fmt: skip

OPEN = frozenset({"API_VERSIONS", "SASL_HANDSHAKE", "SASL_AUTHENTICATE", "DESCRIBE_CLUSTER"})
"""What everybody who is connected may ask: how to log in, and where the broker is."""
