"""The tools of share groups (KIP-932), of Streams groups (KIP-1071) and of KIP-848's consumer groups."""

import re

from tests.conformance.tool_cases.bench import Bench, Case, expect
from tests.interop.kafka_tools import events


def list_share_groups(bench: Bench) -> None:
    """There are none."""
    assert bench.run("consumer.group.ShareGroupCommand", "--list").strip() == ""


def list_streams_groups(bench: Bench) -> None:
    """There are none."""
    assert bench.run("streams.StreamsGroupCommand", "--list").strip() == ""


def console_share_consumer(bench: Bench) -> None:
    """Joins a share group."""
    bench.create("shared")
    which = ("--topic", "shared", "--max-messages", "1", "--timeout-ms", "3000")
    bench.run("consumer.ConsoleShareConsumer", *which, "--group", "sharers")
    expect(bench.run("GroupsCommand", "--list"), r"^sharers\s+Share\s")


def consumer_group_protocol(bench: Bench) -> None:
    """A group of KIP-848 reads every record."""
    bench.create("modern")
    bench.write("modern", 100)
    reading = (
        "--topic",
        "modern",
        "--max-messages",
        "100",
        "--group-id",
        "moderns",
        "--reset-policy",
        "earliest",
    )
    told = bench.run("VerifiableConsumer", *reading, "--group-protocol", "consumer", "--verbose")
    read = [event["value"] for event in events(iter(told.splitlines())) if event["name"] == "record_data"]
    assert len(read) == 100, told[-300:]
    listed = bench.run("GroupsCommand", "--list")
    assert re.search(r"^moderns\s+Consumer\s", listed, re.MULTILINE), listed
    expect(
        bench.run("consumer.group.ConsumerGroupCommand", "--describe", "--group", "moderns"),
        r"modern\s+0\s+100",
    )


CASES: tuple[Case, ...] = (
    list_share_groups,
    list_streams_groups,
    console_share_consumer,
    consumer_group_protocol,
)
