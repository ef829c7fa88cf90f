"""Which APIs there are, their versions on the wire, and which of them this broker serves.

`API_VERSIONS` is what ApiVersions answers.  It follows Apache Kafka 4.x, minimum and maximum, but for what
is spoken between brokers only (AddPartitionsToTxn 4+).  Produce is advertised from 0 although 0-2 are refused:
librdkafka switches its compression codecs off unless it sees 0 (KAFKA-18659).
"""

from dataclasses import dataclass
from enum import IntEnum

from tailrace.broker.protocol import messages as m
from tailrace.broker.protocol.fields import Versions


class ApiKey(IntEnum):
    """API keys by Kafka's names."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    WRITE_TXN_MARKERS = 27
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_ACLS = 29
    CREATE_ACLS = 30
    DELETE_ACLS = 31
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    ALTER_REPLICA_LOG_DIRS = 34
    DESCRIBE_LOG_DIRS = 35
    SASL_AUTHENTICATE = 36
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    ALTER_PARTITION_REASSIGNMENTS = 45
    LIST_PARTITION_REASSIGNMENTS = 46
    OFFSET_DELETE = 47
    DESCRIBE_CLIENT_QUOTAS = 48
    ALTER_CLIENT_QUOTAS = 49
    DESCRIBE_USER_SCRAM_CREDENTIALS = 50
    ALTER_USER_SCRAM_CREDENTIALS = 51
    DESCRIBE_QUORUM = 55
    UPDATE_FEATURES = 57
    DESCRIBE_CLUSTER = 60
    DESCRIBE_PRODUCERS = 61
    UNREGISTER_BROKER = 64
    DESCRIBE_TRANSACTIONS = 65
    LIST_TRANSACTIONS = 66
    CONSUMER_GROUP_HEARTBEAT = 68
    CONSUMER_GROUP_DESCRIBE = 69
    LIST_CONFIG_RESOURCES = 74
    DESCRIBE_TOPIC_PARTITIONS = 75


@dataclass(frozen=True, slots=True)
class Api:
    """One API: its messages, the versions that the codec speaks, the flexible and the served ones."""

    request: type
    response: type
    versions: Versions
    flexible: Versions
    served: Versions


def _api(request: type, response: type, versions: str, flexible: str, served: str = "") -> Api:
    spoken = Versions.parse(versions)
    return Api(
        request, response, spoken, Versions.parse(flexible), Versions.parse(served) if served else spoken
    )


APIS: dict[ApiKey, Api] = {
    ApiKey.PRODUCE: _api(m.ProduceRequest, m.ProduceResponse, "3-13", "9+"),
    ApiKey.FETCH: _api(m.FetchRequest, m.FetchResponse, "4-18", "12+"),
    ApiKey.LIST_OFFSETS: _api(m.ListOffsetsRequest, m.ListOffsetsResponse, "1-11", "6+"),
    ApiKey.METADATA: _api(m.MetadataRequest, m.MetadataResponse, "0-13", "9+"),
    ApiKey.OFFSET_COMMIT: _api(m.OffsetCommitRequest, m.OffsetCommitResponse, "2-10", "8+"),
    ApiKey.OFFSET_FETCH: _api(m.OffsetFetchRequest, m.OffsetFetchResponse, "1-10", "6+"),
    ApiKey.FIND_COORDINATOR: _api(m.FindCoordinatorRequest, m.FindCoordinatorResponse, "0-6", "3+"),
    ApiKey.JOIN_GROUP: _api(m.JoinGroupRequest, m.JoinGroupResponse, "0-9", "6+"),
    ApiKey.HEARTBEAT: _api(m.HeartbeatRequest, m.HeartbeatResponse, "0-4", "4+"),
    ApiKey.LEAVE_GROUP: _api(m.LeaveGroupRequest, m.LeaveGroupResponse, "0-5", "4+"),
    ApiKey.SYNC_GROUP: _api(m.SyncGroupRequest, m.SyncGroupResponse, "0-5", "4+"),
    ApiKey.DESCRIBE_GROUPS: _api(m.DescribeGroupsRequest, m.DescribeGroupsResponse, "0-6", "5+"),
    ApiKey.LIST_GROUPS: _api(m.ListGroupsRequest, m.ListGroupsResponse, "0-5", "3+"),
    ApiKey.SASL_HANDSHAKE: _api(m.SaslHandshakeRequest, m.SaslHandshakeResponse, "0-1", ""),
    ApiKey.API_VERSIONS: _api(m.ApiVersionsRequest, m.ApiVersionsResponse, "0-4", "3+"),
    ApiKey.CREATE_TOPICS: _api(m.CreateTopicsRequest, m.CreateTopicsResponse, "2-7", "5+"),
    ApiKey.DELETE_TOPICS: _api(m.DeleteTopicsRequest, m.DeleteTopicsResponse, "1-6", "4+"),
    ApiKey.DELETE_RECORDS: _api(m.DeleteRecordsRequest, m.DeleteRecordsResponse, "0-2", "2+"),
    ApiKey.INIT_PRODUCER_ID: _api(m.InitProducerIdRequest, m.InitProducerIdResponse, "0-5", "2+"),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: _api(
        m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse, "2-4", "4+"
    ),
    ApiKey.ADD_PARTITIONS_TO_TXN: _api(
        m.AddPartitionsToTxnRequest, m.AddPartitionsToTxnResponse, "0-5", "3+", served="0-3"
    ),
    ApiKey.ADD_OFFSETS_TO_TXN: _api(m.AddOffsetsToTxnRequest, m.AddOffsetsToTxnResponse, "0-4", "3+"),
    ApiKey.END_TXN: _api(m.EndTxnRequest, m.EndTxnResponse, "0-5", "3+"),
    ApiKey.WRITE_TXN_MARKERS: _api(m.WriteTxnMarkersRequest, m.WriteTxnMarkersResponse, "1-2", "1+"),
    ApiKey.TXN_OFFSET_COMMIT: _api(m.TxnOffsetCommitRequest, m.TxnOffsetCommitResponse, "0-5", "3+"),
    ApiKey.DESCRIBE_ACLS: _api(m.DescribeAclsRequest, m.DescribeAclsResponse, "1-3", "2+"),
    ApiKey.CREATE_ACLS: _api(m.CreateAclsRequest, m.CreateAclsResponse, "1-3", "2+"),
    ApiKey.DELETE_ACLS: _api(m.DeleteAclsRequest, m.DeleteAclsResponse, "1-3", "2+"),
    ApiKey.DESCRIBE_CONFIGS: _api(m.DescribeConfigsRequest, m.DescribeConfigsResponse, "1-4", "4+"),
    ApiKey.ALTER_CONFIGS: _api(m.AlterConfigsRequest, m.AlterConfigsResponse, "0-2", "2+"),
    ApiKey.ALTER_REPLICA_LOG_DIRS: _api(
        m.AlterReplicaLogDirsRequest, m.AlterReplicaLogDirsResponse, "1-2", "2+"
    ),
    ApiKey.DESCRIBE_LOG_DIRS: _api(m.DescribeLogDirsRequest, m.DescribeLogDirsResponse, "1-5", "2+"),
    ApiKey.SASL_AUTHENTICATE: _api(m.SaslAuthenticateRequest, m.SaslAuthenticateResponse, "0-2", "2+"),
    ApiKey.CREATE_PARTITIONS: _api(m.CreatePartitionsRequest, m.CreatePartitionsResponse, "0-3", "2+"),
    ApiKey.DELETE_GROUPS: _api(m.DeleteGroupsRequest, m.DeleteGroupsResponse, "0-2", "2+"),
    ApiKey.ELECT_LEADERS: _api(m.ElectLeadersRequest, m.ElectLeadersResponse, "0-2", "2+"),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: _api(
        m.IncrementalAlterConfigsRequest, m.IncrementalAlterConfigsResponse, "0-1", "1+"
    ),
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: _api(
        m.AlterPartitionReassignmentsRequest, m.AlterPartitionReassignmentsResponse, "0-1", "0+"
    ),
    ApiKey.LIST_PARTITION_REASSIGNMENTS: _api(
        m.ListPartitionReassignmentsRequest, m.ListPartitionReassignmentsResponse, "0", "0+"
    ),
    ApiKey.OFFSET_DELETE: _api(m.OffsetDeleteRequest, m.OffsetDeleteResponse, "0", ""),
    ApiKey.DESCRIBE_CLIENT_QUOTAS: _api(
        m.DescribeClientQuotasRequest, m.DescribeClientQuotasResponse, "0-1", "1+"
    ),
    ApiKey.ALTER_CLIENT_QUOTAS: _api(m.AlterClientQuotasRequest, m.AlterClientQuotasResponse, "0-1", "1+"),
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: _api(
        m.DescribeUserScramCredentialsRequest, m.DescribeUserScramCredentialsResponse, "0", "0+"
    ),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: _api(
        m.AlterUserScramCredentialsRequest, m.AlterUserScramCredentialsResponse, "0", "0+"
    ),
    ApiKey.DESCRIBE_QUORUM: _api(m.DescribeQuorumRequest, m.DescribeQuorumResponse, "0-2", "0+"),
    ApiKey.UPDATE_FEATURES: _api(m.UpdateFeaturesRequest, m.UpdateFeaturesResponse, "0-2", "0+"),
    ApiKey.DESCRIBE_CLUSTER: _api(m.DescribeClusterRequest, m.DescribeClusterResponse, "0-2", "0+"),
    ApiKey.DESCRIBE_PRODUCERS: _api(m.DescribeProducersRequest, m.DescribeProducersResponse, "0", "0+"),
    ApiKey.UNREGISTER_BROKER: _api(m.UnregisterBrokerRequest, m.UnregisterBrokerResponse, "0", "0+"),
    ApiKey.DESCRIBE_TRANSACTIONS: _api(
        m.DescribeTransactionsRequest, m.DescribeTransactionsResponse, "0", "0+"
    ),
    ApiKey.LIST_TRANSACTIONS: _api(m.ListTransactionsRequest, m.ListTransactionsResponse, "0-2", "0+"),
    ApiKey.CONSUMER_GROUP_HEARTBEAT: _api(
        m.ConsumerGroupHeartbeatRequest, m.ConsumerGroupHeartbeatResponse, "0-1", "0+"
    ),
    ApiKey.CONSUMER_GROUP_DESCRIBE: _api(
        m.ConsumerGroupDescribeRequest, m.ConsumerGroupDescribeResponse, "0-1", "0+"
    ),
    ApiKey.LIST_CONFIG_RESOURCES: _api(
        m.ListConfigResourcesRequest, m.ListConfigResourcesResponse, "0-1", "0+"
    ),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: _api(
        m.DescribeTopicPartitionsRequest, m.DescribeTopicPartitionsResponse, "0", "0+"
    ),
}
"""Every API by key."""

API_VERSIONS: dict[ApiKey, tuple[int, int]] = {
    key: (api.served.first, api.served.last) for key, api in APIS.items()
} | {ApiKey.PRODUCE: (0, APIS[ApiKey.PRODUCE].served.last)}
"""What the broker advertises, (min, max) by key."""
