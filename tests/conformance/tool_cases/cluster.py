"""kafka-cluster.sh, kafka-broker-api-versions.sh, kafka-features.sh, kafka-metadata-quorum.sh, and what moves replicas."""

import json

from tests.conformance.tool_cases.bench import Bench, Case, expect


def cluster_id(bench: Bench) -> None:
    """The cluster has an id."""
    expect(bench.call("ClusterTool", "cluster-id", *bench.server), r"Cluster ID: \S+")


def list_endpoints(bench: Bench) -> None:
    """The one broker, and where it is."""
    port = bench.bootstrap.rpartition(":")[2]
    told = bench.call("ClusterTool", "list-endpoints", *bench.server)
    expect(told, rf"^1\s+127.0.0.1\s+{port}\s+\S+\s+\S+\s+broker")


def unregister(bench: Bench) -> None:
    """Brokers that are not there cannot be taken off."""
    told = bench.call("ClusterTool", "unregister", *bench.server, "--id", "7", fails=True)
    expect(told, "Broker ID 7|BrokerIdNotRegistered")


def broker_api_versions(bench: Bench) -> None:
    """What is served, by name, and nothing unknown to Kafka."""
    told = bench.run("BrokerApiVersionsCommand")
    expect(told, r"\(id: 1 rack: null", r"Produce\(0\): 0 to 13", r"Fetch\(1\): 4 to 18")
    assert "UNKNOWN(" not in told


def features(bench: Bench) -> None:
    """Feature levels can be asked for."""
    bench.call("FeatureCommand", *bench.server, "describe")


def feature_levels(bench: Bench) -> None:
    """They can be raised."""
    told = bench.call("FeatureCommand", *bench.server, "upgrade", "--feature", "transaction.version=2")
    expect(told, "transaction.version was upgraded to 2")


def metadata_quorum(bench: Bench) -> None:
    """One voter that leads."""
    status = bench.call("MetadataQuorumCommand", *bench.server, "describe", "--status")
    expect(status, r"LeaderId:\s+1$", r"CurrentVoters:.*1")
    replication = bench.call("MetadataQuorumCommand", *bench.server, "describe", "--replication")
    expect(replication, r"^1\s+\S+\s+\d+\s+0\s.*Leader")


def leader_election(bench: Bench) -> None:
    """The preferred leader leads already."""
    bench.create("led")
    which = ("--election-type", "preferred", "--topic", "led", "--partition", "0")
    expect(bench.run("LeaderElectionCommand", *which), "Valid replica already elected for partitions led-0")
    bench.run("LeaderElectionCommand", "--election-type", "preferred", "--all-topic-partitions")


def reassign_partitions(bench: Bench) -> None:
    """Planned, carried out, verified; nothing is ever pending."""
    bench.create("moved")
    tool = "reassign.ReassignPartitionsCommand"
    topics = bench.file("topics.json", json.dumps({"topics": [{"topic": "moved"}], "version": 1}))
    planned = bench.run(tool, "--generate", "--topics-to-move-json-file", topics, "--broker-list", "1")
    expect(
        planned,
        "Proposed partition reassignment configuration",
        r'"topic":"moved","partition":0,"replicas":\[1\]',
    )
    plan = bench.file("plan.json", planned.strip().splitlines()[-1])
    expect(bench.run(tool, "--execute", "--reassignment-json-file", plan), "Successfully started")
    verified = bench.run(tool, "--verify", "--reassignment-json-file", plan)
    expect(verified, "Reassignment of partition moved-0 is completed")
    expect(bench.run(tool, "--list"), "No partition reassignments found")
    bench.run(tool, "--cancel", "--reassignment-json-file", plan)


CASES: tuple[Case, ...] = (
    cluster_id,
    list_endpoints,
    unregister,
    broker_api_versions,
    features,
    feature_levels,
    metadata_quorum,
    leader_election,
    reassign_partitions,
)
