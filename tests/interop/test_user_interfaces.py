"""What kafka-ui and Redpanda Console ask of a cluster, page by page, in the versions that they ask it in.

kafka-ui is a Java admin client: its calls at the versions of kafka-clients 3.9 (kafka-ui of Provectus and of kafbat) and
at the newest (kafbat on 4.x).  Console is franz-go: the newest common version of everything.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient, batch, begin, create, produce_request, produced

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m

TOPIC, BROKER = 2, 4
ANY, ALLOW, LITERAL, READ = 1, 3, 3, 3
JAVA_3_9 = {
    ApiKey.METADATA: 12,
    ApiKey.LIST_OFFSETS: 9,
    ApiKey.OFFSET_COMMIT: 9,
    ApiKey.OFFSET_FETCH: 9,
    ApiKey.DESCRIBE_GROUPS: 5,
    ApiKey.DESCRIBE_LOG_DIRS: 4,
    ApiKey.DESCRIBE_CLUSTER: 1,
}


@dataclass(frozen=True)
class Ask:
    """One request of a page."""

    page: str
    key: ApiKey
    request: Any


@pytest.fixture
def busy(broker_factory: BrokerFactory) -> EmbeddedBroker:
    """A broker with ACLs on, a topic with records, a group with offsets, an open transaction, a rule and a quota."""
    broker = broker_factory(authorizer_class_name="StandardAuthorizer", super_users="User:ANONYMOUS")
    with WireClient(broker.bootstrap) as wire:
        create(wire, "orders", 3)
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("orders", batch(b"a", b"b"))))[0] == 0
        create(wire, "payments")
        begin(wire, "payer", "payments")
        for ask in _asks_that_change(wire):
            if ask.page in ("group: set offsets", "acls: create", "quotas: set"):
                wire.ask(ask.key, ask.request)
    return broker


def _asks_that_look() -> list[Ask]:
    partitions = [m.ListOffsetsPartition(index, timestamp=-1) for index in range(3)]
    earliest = [m.ListOffsetsPartition(index, timestamp=-2) for index in range(3)]
    by_time = [m.ListOffsetsPartition(index, timestamp=0) for index in range(3)]
    groups = [m.OffsetFetchRequestGroup("readers", topics=None)]
    everything = m.DescribeConfigsResource(BROKER, "1", None)
    topic = m.DescribeConfigsResource(TOPIC, "orders", None)
    both = [m.MetadataRequestTopic(name="orders"), m.MetadataRequestTopic(name="payments")]
    return [
        Ask("brokers", ApiKey.DESCRIBE_CLUSTER, m.DescribeClusterRequest(True)),
        Ask("brokers", ApiKey.METADATA, m.MetadataRequest(None)),
        Ask("brokers: sizes", ApiKey.DESCRIBE_LOG_DIRS, m.DescribeLogDirsRequest(None)),
        Ask("broker: configs", ApiKey.DESCRIBE_CONFIGS, m.DescribeConfigsRequest([everything], True, True)),
        Ask("topics", ApiKey.METADATA, m.MetadataRequest(both, allow_auto_topic_creation=False)),
        Ask(
            "topics",
            ApiKey.DESCRIBE_TOPIC_PARTITIONS,
            m.DescribeTopicPartitionsRequest([m.DescribeTopicPartitionsTopic("orders")]),
        ),
        Ask("topic: configs", ApiKey.DESCRIBE_CONFIGS, m.DescribeConfigsRequest([topic], True, True)),
        *(
            Ask(
                "topic: offsets",
                ApiKey.LIST_OFFSETS,
                m.ListOffsetsRequest(-1, 0, [m.ListOffsetsTopic("orders", at)]),
            )
            for at in (partitions, earliest, by_time)
        ),
        Ask(
            "topic: producers",
            ApiKey.DESCRIBE_PRODUCERS,
            m.DescribeProducersRequest([m.DescribeProducersTopic("payments", [0])]),
        ),
        Ask("transactions", ApiKey.LIST_TRANSACTIONS, m.ListTransactionsRequest()),
        Ask("transactions", ApiKey.DESCRIBE_TRANSACTIONS, m.DescribeTransactionsRequest(["payer"])),
        Ask("groups", ApiKey.LIST_GROUPS, m.ListGroupsRequest()),
        Ask("groups", ApiKey.FIND_COORDINATOR, m.FindCoordinatorRequest(coordinator_keys=["readers"])),
        Ask("groups", ApiKey.DESCRIBE_GROUPS, m.DescribeGroupsRequest(["readers"], True)),
        Ask("group: lag", ApiKey.OFFSET_FETCH, m.OffsetFetchRequest(groups=groups)),
        Ask("acls", ApiKey.DESCRIBE_ACLS, m.DescribeAclsRequest(ANY, None, ANY, None, None, ANY, ANY)),
        Ask("quotas", ApiKey.DESCRIBE_CLIENT_QUOTAS, m.DescribeClientQuotasRequest()),
        Ask("users", ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, m.DescribeUserScramCredentialsRequest(None)),
        Ask("reassignments", ApiKey.LIST_PARTITION_REASSIGNMENTS, m.ListPartitionReassignmentsRequest()),
    ]


def _asks_that_change(wire: WireClient) -> list[Ask]:
    directory = wire.ask(ApiKey.DESCRIBE_LOG_DIRS, m.DescribeLogDirsRequest(None)).results[0].log_dir
    known = wire.ask(ApiKey.METADATA, m.MetadataRequest([m.MetadataRequestTopic(name="orders")])).topics
    committed = m.OffsetCommitRequestTopic(
        "orders", known[0].topic_id, partitions=[m.OffsetCommitRequestPartition(0, 1)]
    )
    alice = [m.QuotaEntity("user", "alice")]
    rule = (TOPIC, "orders", LITERAL, "User:alice", "*", READ, ALLOW)
    limit = m.QuotaOp("producer_byte_rate", 1024.0)
    salted = hashlib.pbkdf2_hmac("sha256", b"pw", b"salt", 4096)
    keep = m.IncrementalAlterableConfig("retention.ms", 0, "5000")
    placed = m.ReassignableTopic("orders", [m.ReassignablePartition(0, [1])])
    new = m.CreatableTopic("made", 2, 1, [], [m.CreatableTopicConfig("cleanup.policy", "compact")])
    gone = m.OffsetDeleteRequestTopic("orders", [m.OffsetDeleteRequestPartition(0)])
    return [
        Ask("topics: create", ApiKey.CREATE_TOPICS, m.CreateTopicsRequest([new])),
        Ask(
            "topic: partitions",
            ApiKey.CREATE_PARTITIONS,
            m.CreatePartitionsRequest([m.CreatePartitionsTopic("made", 3, None)]),
        ),
        Ask(
            "topic: edit",
            ApiKey.INCREMENTAL_ALTER_CONFIGS,
            m.IncrementalAlterConfigsRequest([m.IncrementalAlterConfigsResource(TOPIC, "made", [keep])]),
        ),
        Ask(
            "topic: edit",
            ApiKey.ALTER_CONFIGS,
            m.AlterConfigsRequest(
                [m.AlterConfigsResource(TOPIC, "made", [m.AlterableConfig("retention.ms", "6000")])]
            ),
        ),
        Ask(
            "broker: edit",
            ApiKey.INCREMENTAL_ALTER_CONFIGS,
            m.IncrementalAlterConfigsRequest(
                [
                    m.IncrementalAlterConfigsResource(
                        BROKER, "1", [m.IncrementalAlterableConfig("log.roll.ms", 0, "9999999")]
                    )
                ]
            ),
        ),
        Ask(
            "topic: clear",
            ApiKey.DELETE_RECORDS,
            m.DeleteRecordsRequest(
                [m.DeleteRecordsTopic("orders", [m.DeleteRecordsPartition(0, -1)])], 5_000
            ),
        ),
        Ask(
            "reassign",
            ApiKey.ALTER_PARTITION_REASSIGNMENTS,
            m.AlterPartitionReassignmentsRequest(topics=[placed]),
        ),
        Ask(
            "broker: move",
            ApiKey.ALTER_REPLICA_LOG_DIRS,
            m.AlterReplicaLogDirsRequest(
                [m.AlterReplicaLogDir(directory, [m.AlterReplicaLogDirTopic("orders", [0])])]
            ),
        ),
        Ask("group: set offsets", ApiKey.OFFSET_COMMIT, m.OffsetCommitRequest("readers", topics=[committed])),
        Ask("group: forget offsets", ApiKey.OFFSET_DELETE, m.OffsetDeleteRequest("readers", [gone])),
        Ask("group: delete", ApiKey.DELETE_GROUPS, m.DeleteGroupsRequest(["readers"])),
        Ask("acls: create", ApiKey.CREATE_ACLS, m.CreateAclsRequest([m.AclCreation(*rule)])),
        Ask("acls: delete", ApiKey.DELETE_ACLS, m.DeleteAclsRequest([m.DeleteAclsFilter(*rule)])),
        Ask(
            "quotas: set",
            ApiKey.ALTER_CLIENT_QUOTAS,
            m.AlterClientQuotasRequest([m.QuotaAlteration(alice, [limit])]),
        ),
        Ask(
            "users: create",
            ApiKey.ALTER_USER_SCRAM_CREDENTIALS,
            m.AlterUserScramCredentialsRequest(
                upsertions=[m.ScramCredentialUpsertion("bob", 1, 4096, b"salt", salted)]
            ),
        ),
        Ask(
            "users: delete",
            ApiKey.ALTER_USER_SCRAM_CREDENTIALS,
            m.AlterUserScramCredentialsRequest(deletions=[m.ScramCredentialDeletion("bob", 1)]),
        ),
        Ask(
            "topic: delete",
            ApiKey.DELETE_TOPICS,
            m.DeleteTopicsRequest([m.DeleteTopicState("made")], ["made"]),
        ),
    ]


def errors(answer: Any) -> Iterator[str]:
    """Every error code in an answer that is none of 0, with its place."""
    for name, value in ((field.name, getattr(answer, field.name)) for field in dataclasses.fields(answer)):
        if name.endswith("error_code") and value:
            yield f"{type(answer).__name__}.{name} = {value}"
        for part in value if isinstance(value, list) else [value]:
            if dataclasses.is_dataclass(part):
                yield from errors(part)


@pytest.mark.parametrize("versions", [pytest.param(JAVA_3_9, id="java-3.9"), pytest.param({}, id="newest")])
def test_every_request_of_kafka_ui_and_of_redpanda_console_is_answered_without_an_error(
    busy: EmbeddedBroker, versions: dict[ApiKey, int]
) -> None:
    with WireClient(busy.bootstrap) as wire:
        for ask in [*_asks_that_look(), *_asks_that_change(wire)]:
            answer = wire.ask(ask.key, ask.request, versions.get(ask.key))
            assert list(errors(answer)) == [], (ask.page, ask.key.name)


def test_the_pages_show_what_is_there(busy: EmbeddedBroker) -> None:
    with WireClient(busy.bootstrap) as wire:
        seen: dict[str, Any] = {ask.page: wire.ask(ask.key, ask.request) for ask in _asks_that_look()}
    (directory,) = seen["brokers: sizes"].results
    sizes = {topic.name: sum(p.partition_size for p in topic.partitions) for topic in directory.topics}
    assert sizes["orders"] >= 77  # one batch
    assert directory.total_bytes > directory.usable_bytes > 0
    (group,) = seen["group: lag"].groups
    assert [(p.partition_index, p.committed_offset) for t in group.topics for p in t.partitions] == [(0, 1)]
    (described,) = seen["groups"].groups
    assert (described.group_id, described.group_state) == ("readers", "Empty")
    (producers,) = seen["topic: producers"].topics[0].partitions
    assert [state.current_txn_start_offset for state in producers.active_producers] == [0]
    (transaction,) = seen["transactions"].transaction_states
    assert (transaction.transactional_id, transaction.transaction_state) == ("payer", "Ongoing")
    (rule,) = seen["acls"].resources
    assert [(acl.principal, acl.permission_type) for acl in rule.acls] == [("User:alice", ALLOW)]
    (quota,) = seen["quotas"].entries
    assert [(value.key, value.value) for value in quota.values] == [("producer_byte_rate", 1024.0)]


def test_kafka_ui_learns_a_version_that_turns_its_features_on(busy: EmbeddedBroker) -> None:
    asked = m.DescribeConfigsRequest([m.DescribeConfigsResource(BROKER, "1", None)])
    with WireClient(busy.bootstrap) as wire:
        (result,) = wire.ask(ApiKey.DESCRIBE_CONFIGS, asked).results
    configs = {entry.name: entry.value for entry in result.configs}
    assert float(configs["inter.broker.protocol.version"].partition("-")[0]) >= 2.6
    assert configs["delete.topic.enable"] == "true"


def test_console_is_offered_every_endpoint(busy: EmbeddedBroker) -> None:
    needed = {
        ApiKey.DESCRIBE_CONFIGS,
        ApiKey.DESCRIBE_GROUPS,
        ApiKey.LIST_GROUPS,
        ApiKey.DELETE_RECORDS,
        ApiKey.OFFSET_COMMIT,
        ApiKey.DELETE_GROUPS,
        ApiKey.OFFSET_DELETE,
        ApiKey.LIST_PARTITION_REASSIGNMENTS,
        ApiKey.INCREMENTAL_ALTER_CONFIGS,
        ApiKey.ALTER_PARTITION_REASSIGNMENTS,
        ApiKey.DESCRIBE_CLIENT_QUOTAS,
        ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS,
        ApiKey.ALTER_USER_SCRAM_CREDENTIALS,
    }
    with WireClient(busy.bootstrap) as wire:
        answer = wire.ask(ApiKey.API_VERSIONS, m.ApiVersionsRequest("console", "1"))
    assert needed <= {entry.api_key for entry in answer.api_keys}
