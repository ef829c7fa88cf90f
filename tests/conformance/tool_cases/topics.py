"""kafka-topics.sh."""

import re

from tests.conformance.tool_cases.bench import Bench, Case, expect

_TOOL = "TopicCommand"


def create(bench: Bench) -> None:
    """A topic is made once; --if-not-exists does not mind."""
    bench.create("made", 2, "cleanup.policy=compact")
    again = ("--create", "--topic", "made")
    expect(bench.run(_TOOL, *again, fails=True), "Topic 'made' already exists")
    bench.run(_TOOL, *again, "--if-not-exists")


def create_by_assignment(bench: Bench) -> None:
    """Replicas named one by one."""
    made = bench.run(_TOOL, "--create", "--topic", "assigned", "--replica-assignment", "1,1,1")
    expect(made, r"Created topic assigned\.")
    expect(bench.run(_TOOL, "--describe", "--topic", "assigned"), r"PartitionCount: 3\s+ReplicationFactor: 1")
    wrong = ("--create", "--topic", "elsewhere", "--replica-assignment", "7")
    bench.run(_TOOL, *wrong, fails=True)


def list_names(bench: Bench) -> None:
    """With and without the internal topics."""
    bench.create("listed")
    bench.commit("lister", "listed", 0)
    every = bench.run(_TOOL, "--list").splitlines()
    own = bench.run(_TOOL, "--list", "--exclude-internal").splitlines()
    assert "listed" in every and "__consumer_offsets" in every, every
    assert "listed" in own and "__consumer_offsets" not in own, own


def describe(bench: Bench) -> None:
    """By name, by id, and in pages."""
    bench.create("described", 3, "retention.ms=5000")
    told = bench.run(_TOOL, "--describe", "--topic", "described", "--partition-size-limit-per-response", "1")
    head = r"^Topic: described\s+TopicId: (\S+)\s+PartitionCount: 3\s+ReplicationFactor: 1\s+Configs: .*retention.ms=5000"
    expect(told, head, *(rf"Partition: {index}\s+Leader: 1\s+Replicas: 1\s+Isr: 1" for index in range(3)))
    found = re.search(head, told, re.MULTILINE)
    assert found is not None
    expect(bench.run(_TOOL, "--describe", "--topic-id", found[1]), r"Topic: described\s")


def describe_filtered(bench: Bench) -> None:
    """Only topics with overrides, only partitions in trouble."""
    bench.create("plain")
    bench.create("overridden", 1, "max.message.bytes=5000")
    overrides = bench.run(_TOOL, "--describe", "--topics-with-overrides")
    expect(overrides, "Topic: overridden")
    for trouble in (
        "--under-replicated-partitions",
        "--unavailable-partitions",
        "--under-min-isr-partitions",
    ):
        assert "Topic:" not in bench.run(_TOOL, "--describe", trouble)
    expect(bench.run(_TOOL, "--describe", "--at-min-isr-partitions", "--topic", "plain"), "Topic: plain")


def alter(bench: Bench) -> None:
    """Partitions are added and never taken away."""
    bench.create("grown", 2)
    bench.run(_TOOL, "--alter", "--topic", "grown", "--partitions", "5")
    expect(bench.run(_TOOL, "--describe", "--topic", "grown"), "PartitionCount: 5")
    bench.run(_TOOL, "--alter", "--topic", "grown", "--partitions", "4", fails=True)


def delete(bench: Bench) -> None:
    """By name; --if-exists does not mind."""
    bench.create("gone")
    bench.run(_TOOL, "--delete", "--topic", "gone")
    assert "gone" not in bench.run(_TOOL, "--list").splitlines()
    expect(bench.run(_TOOL, "--delete", "--topic", "gone", fails=True), "does not exist")
    bench.run(_TOOL, "--delete", "--topic", "gone", "--if-exists")


CASES: tuple[Case, ...] = (
    create,
    create_by_assignment,
    list_names,
    describe,
    describe_filtered,
    alter,
    delete,
)
