"""What tools of a cluster are told by a cluster of one, over the wire."""

from tests.fixtures.wire import WireClient, create

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m


def test_every_partition_has_its_preferred_leader(wire: WireClient) -> None:
    create(wire, "t", 2)
    asked = m.ElectLeadersRequest(0, [m.ElectLeadersTopicPartitions("t", [0, 1, 2])])
    (topic,) = wire.ask(ApiKey.ELECT_LEADERS, asked).replica_election_results
    assert [(p.partition_id, p.error_code) for p in topic.partition_result] == [
        (0, ErrorCode.ELECTION_NOT_NEEDED),
        (1, ErrorCode.ELECTION_NOT_NEEDED),
        (2, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    everything = m.ElectLeadersRequest(0, None)
    assert wire.ask(ApiKey.ELECT_LEADERS, everything).replica_election_results == []


def test_a_partition_may_only_be_kept_where_it_is(wire: WireClient, broker: EmbeddedBroker) -> None:
    create(wire, "t")
    here = str(broker.config.data_dir.absolute())
    (described,) = wire.ask(ApiKey.DESCRIBE_LOG_DIRS, m.DescribeLogDirsRequest(None)).results
    assert described.log_dir == here

    def move(path: str, partition: int = 0) -> int:
        topics = [m.AlterReplicaLogDirTopic("t", [partition])]
        request = m.AlterReplicaLogDirsRequest([m.AlterReplicaLogDir(path, topics)])
        (topic,) = wire.ask(ApiKey.ALTER_REPLICA_LOG_DIRS, request).results
        (result,) = topic.partitions
        code: int = result.error_code
        return code

    assert move(here) == ErrorCode.NONE
    assert move("/elsewhere") == ErrorCode.LOG_DIR_NOT_FOUND
    assert move(here, 1) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_partition_can_be_placed_on_the_one_broker_only(wire: WireClient, broker: EmbeddedBroker) -> None:
    create(wire, "t")
    node = broker.config.node_id

    def place(replicas: list[int] | None, partition: int = 0) -> int:
        topic = m.ReassignableTopic("t", [m.ReassignablePartition(partition, replicas)])
        answer = wire.ask(
            ApiKey.ALTER_PARTITION_REASSIGNMENTS, m.AlterPartitionReassignmentsRequest(topics=[topic])
        )
        code: int = answer.responses[0].partitions[0].error_code
        return code

    assert place([node]) == ErrorCode.NONE
    assert place([node, node + 1]) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert place(None) == ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
    assert place([node], 7) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_the_broker_is_the_only_voter_of_its_metadata(wire: WireClient, broker: EmbeddedBroker) -> None:
    def ask(topic: str) -> m.DescribeQuorumResponsePartition:
        partitions = [m.DescribeQuorumRequestPartition(0)]
        answer = wire.ask(
            ApiKey.DESCRIBE_QUORUM,
            m.DescribeQuorumRequest([m.DescribeQuorumRequestTopic(topic, partitions)]),
        )
        assert [node.node_id for node in answer.nodes] == [broker.config.node_id]
        found: m.DescribeQuorumResponsePartition = answer.topics[0].partitions[0]
        return found

    found = ask("__cluster_metadata")
    assert (found.error_code, found.leader_id) == (0, broker.config.node_id)
    assert [voter.replica_id for voter in found.current_voters] == [broker.config.node_id]
    assert ask("t").error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_resources_with_configs_are_listed_by_type(wire: WireClient, broker: EmbeddedBroker) -> None:
    create(wire, "t")
    topic, node, metrics = 2, 4, 16

    def listed(*types: int, version: int = 1) -> set[tuple[str, int]]:
        answer = wire.ask(ApiKey.LIST_CONFIG_RESOURCES, m.ListConfigResourcesRequest(list(types)), version)
        assert answer.error_code == 0
        return {(entry.resource_name, entry.resource_type) for entry in answer.config_resources}

    assert ("t", topic) in listed(topic, metrics)
    assert {kind for _, kind in listed(topic, metrics)} == {topic}
    assert {("t", topic), (str(broker.config.node_id), node)} <= listed()
    assert listed(version=0) == set()
    refused = wire.ask(ApiKey.LIST_CONFIG_RESOURCES, m.ListConfigResourcesRequest([99]))
    assert refused.error_code == ErrorCode.UNSUPPORTED_VERSION


def test_neither_this_broker_nor_one_that_is_not_there_can_be_unregistered(wire: WireClient) -> None:
    for broker, code in ((1, ErrorCode.INVALID_REQUEST), (7, ErrorCode.BROKER_ID_NOT_REGISTERED)):
        answer = wire.ask(ApiKey.UNREGISTER_BROKER, m.UnregisterBrokerRequest(broker))
        assert (answer.error_code, f"Broker ID {broker} is " in answer.error_message) == (code, True)
    assert [b.broker_id for b in wire.ask(ApiKey.DESCRIBE_CLUSTER, m.DescribeClusterRequest()).brokers] == [1]
