"""kafka-groups.sh, kafka-consumer-groups.sh and the application reset tool."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import confluent_kafka as ck
from tests.conformance.tool_cases.bench import START_MS, TIMEOUT_S, Bench, Case, expect

_TOOL = "consumer.group.ConsumerGroupCommand"


@contextmanager
def _member(bench: Bench, group: str, topic: str) -> Iterator[None]:
    """An active member of `group` that has its assignment."""
    config = {
        "bootstrap.servers": bench.bootstrap,
        "group.id": group,
        "client.id": "member",
        "auto.offset.reset": "earliest",
    }
    with closing(ck.Consumer(config)) as consumer:
        consumer.subscribe([topic])
        message = consumer.poll(TIMEOUT_S)
        assert message is not None and message.error() is None
        consumer.commit(asynchronous=False)
        yield


def list_groups(bench: Bench) -> None:
    """Of every type, by state and by type."""
    bench.create("grouped")
    bench.commit("idle", "grouped", 0)
    expect(bench.run("GroupsCommand", "--list"), r"^idle\s+Classic\s")
    expect(bench.run("GroupsCommand", "--list", "--group-type", "classic"), r"^idle\s+Classic\s")
    expect(bench.run(_TOOL, "--list"), "^idle$")
    expect(bench.run(_TOOL, "--list", "--state"), r"^idle\s+Empty\s*$")
    expect(bench.run(_TOOL, "--list", "--type", "classic"), r"^idle\s")
    assert "idle" not in bench.run(_TOOL, "--list", "--state", "stable")


def describe(bench: Bench) -> None:
    """Offsets and lag, members with what they hold, state."""
    bench.create("tailed")
    bench.write("tailed", 10)
    with _member(bench, "tailing", "tailed"):
        which = ("--describe", "--group", "tailing")
        offsets = bench.run(_TOOL, *which)
        expect(offsets, r"^tailing\s+tailed\s+0\s+1\s+10\s+9\s+member-\S+\s+/127.0.0.1\s+member")
        members = bench.run(_TOOL, *which, "--members", "--verbose")
        expect(members, r"^tailing\s+member-\S+\s+/127.0.0.1\s+member\s+1\s.*tailed[(:]0")
        state = bench.run(_TOOL, *which, "--state")
        expect(state, r"^tailing\s+127.0.0.1:\d+\s+\(1\)\s+range\s+Stable\s+1")
        refused = bench.run(_TOOL, "--delete", "--group", "tailing")
        expect(refused, "not empty|GroupNotEmptyException")


def describe_all(bench: Bench) -> None:
    """Groups without members have offsets too."""
    bench.create("left")
    bench.write("left", 10)
    bench.commit("leaver", "left", 4)
    expect(bench.run(_TOOL, "--describe", "--all-groups"), r"^leaver\s+left\s+0\s+4\s+10\s+6\s")


def reset(bench: Bench) -> None:
    """To the ends, to an offset, by a shift, to a time; and only shown where --execute is missing."""
    bench.create("reread")
    bench.write("reread", 10)
    bench.commit("rereader", "reread", 5)
    which = ("--reset-offsets", "--group", "rereader", "--topic", "reread")
    fifth = datetime.fromtimestamp((START_MS + 4) / 1000, UTC).isoformat(timespec="milliseconds")
    plans = {
        ("--to-earliest",): 0,
        ("--to-latest",): 10,
        ("--to-offset", "7"): 7,
        ("--shift-by", "-2"): 3,
        ("--to-datetime", fifth.replace("+00:00", "Z")): 4,
        ("--to-current",): 5,
    }
    for plan, offset in plans.items():
        told = bench.run(_TOOL, *which, *plan, "--dry-run")
        expect(told, rf"^rereader\s+reread\s+0\s+{offset}\b")
    bench.run(_TOOL, *which, "--to-offset", "7", "--execute")
    expect(bench.run(_TOOL, "--describe", "--group", "rereader"), r"reread\s+0\s+7\s+10\s+3\s")


def reset_from_file(bench: Bench) -> None:
    """What --export wrote is read again."""
    bench.create("restored")
    bench.write("restored", 10)
    bench.commit("restorer", "restored", 6)
    which = ("--reset-offsets", "--group", "restorer")
    plan = bench.run(_TOOL, *which, "--topic", "restored", "--to-current", "--export", "--dry-run")
    expect(plan, r'^"?restored"?,0,6$')
    path = bench.file("plan.csv", "restored,0,2\n")
    expect(bench.run(_TOOL, *which, "--from-file", path, "--execute"), r"restored\s+0\s+2\b")


def delete_offsets(bench: Bench) -> None:
    """Of one topic."""
    for topic in ("kept", "dropped"):
        bench.create(topic)
        bench.commit("dropper", topic, 0)
    deleted = bench.run(_TOOL, "--delete-offsets", "--group", "dropper", "--topic", "dropped")
    expect(deleted, r"dropped\s+0\s+Successful")
    left = bench.run(_TOOL, "--describe", "--group", "dropper")
    assert "kept" in left and "dropped" not in left, left


def delete(bench: Bench) -> None:
    """A whole group."""
    bench.create("ended")
    bench.commit("doomed", "ended", 0)
    deleted = bench.run(_TOOL, "--delete", "--group", "doomed")
    expect(deleted, "Deletion of requested consumer groups .*doomed.* was successful")
    assert "doomed" not in bench.run(_TOOL, "--list").splitlines()


def reset_application(bench: Bench) -> None:
    """A Kafka Streams application starts again: its offsets and its own topics."""
    bench.create("source")
    bench.write("source", 10)
    bench.create("app-store-changelog")
    bench.commit("app", "source", 8)
    told = bench.run("StreamsResetter", "--application-id", "app", "--input-topics", "source")
    expect(told, r"Reset-offsets for input topics \[source\]", "app-store-changelog")
    assert "app-store-changelog" not in bench.run("TopicCommand", "--list").splitlines()


CASES: tuple[Case, ...] = (
    list_groups,
    describe,
    describe_all,
    reset,
    reset_from_file,
    delete_offsets,
    delete,
    reset_application,
)
