"""The consumer protocol (KIP-848) with librdkafka and the Java client: groups whose partitions the broker assigns."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import confluent_kafka.admin
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.interop.kafka_tools import KafkaTools

from tailrace.broker.embedded import EmbeddedBroker

TIMEOUT_S = 60.0
TOOLS = "org.apache.kafka.tools"
PARTITIONS = 4

api: Any = confluent_kafka.admin  # its names are not marked as exported, and some are not typed


@pytest.fixture
def quick_broker(broker_factory: BrokerFactory) -> EmbeddedBroker:
    """A broker whose members call three times a second."""
    return broker_factory(group_consumer_heartbeat_interval_ms=300)


@contextmanager
def consumer(
    broker: EmbeddedBroker, topic: str, protocol: str = "consumer", **config: str
) -> Iterator[ck.Consumer]:
    made = ck.Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "g",
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **{key.replace("_", "."): value for key, value in config.items()},
        }
    )
    try:
        made.subscribe([topic])
        yield made
    finally:
        made.close()


def make_topic(broker: EmbeddedBroker, name: str) -> None:
    admin = api.AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([api.NewTopic(name, PARTITIONS, 1)])[name].result(TIMEOUT_S)


def produce(broker: EmbeddedBroker, topic: str, numbers: range) -> set[bytes]:
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap})
    for number in numbers:
        producer.produce(topic, b"%d" % number, partition=number % PARTITIONS)
    assert producer.flush(TIMEOUT_S) == 0
    return {b"%d" % number for number in numbers}


def poll_until(
    readers: list[ck.Consumer], reached: Callable[[], bool], taken: list[bytes] | None = None
) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        assert time.monotonic() < deadline, [len(reader.assignment()) for reader in readers]
        for reader in readers:
            message = reader.poll(0.05)
            if message is not None and message.error() is None and taken is not None:
                taken.append(message.value() or b"")


def spread(readers: list[ck.Consumer], counts: list[int]) -> None:
    poll_until(readers, lambda: [len(reader.assignment()) for reader in readers] == counts)


def test_members_share_partitions_and_go_on_at_their_offsets_over_a_sigkill(
    quick_broker: EmbeddedBroker,
) -> None:
    make_topic(quick_broker, "t")
    before = produce(quick_broker, "t", range(100))
    with consumer(quick_broker, "t") as first, consumer(quick_broker, "t") as second:
        readers, taken = [first, second], list[bytes]()
        poll_until(readers, lambda: set(taken) == before, taken)
        spread(readers, [2, 2])
        for reader in readers:
            reader.commit(asynchronous=False)
        owned = [{place.partition for place in reader.assignment()} for reader in readers]
        quick_broker.kill()
        quick_broker.restart()
        after = produce(quick_broker, "t", range(100, 200))
        taken.clear()
        poll_until(readers, lambda: set(taken) == after, taken)
        assert [{place.partition for place in reader.assignment()} for reader in readers] == owned
        for reader in readers:
            reader.commit(asynchronous=False)
    with consumer(quick_broker, "t") as third:
        spread([third], [PARTITIONS])
        committed = third.committed(
            [ck.TopicPartition("t", number) for number in range(PARTITIONS)], TIMEOUT_S
        )
        assert [place.offset for place in committed] == [50] * PARTITIONS


def test_a_member_that_leaves_hands_its_partitions_over(quick_broker: EmbeddedBroker) -> None:
    make_topic(quick_broker, "t")
    with consumer(quick_broker, "t") as first:
        with consumer(quick_broker, "t", group_remote_assignor="range") as second:
            spread([first, second], [2, 2])
        spread([first], [PARTITIONS])


def test_a_pattern_subscribes_to_topics_that_come_later(quick_broker: EmbeddedBroker) -> None:
    make_topic(quick_broker, "orders.eu")
    make_topic(quick_broker, "reorders")
    with consumer(quick_broker, "^orders\\..*") as reader:
        spread([reader], [PARTITIONS])
        make_topic(quick_broker, "orders.us")
        spread([reader], [2 * PARTITIONS])
        assert {place.topic for place in reader.assignment()} == {"orders.eu", "orders.us"}


def test_a_static_member_that_restarts_finds_its_partitions(quick_broker: EmbeddedBroker) -> None:
    make_topic(quick_broker, "t")
    with consumer(quick_broker, "t") as other:
        with consumer(quick_broker, "t", group_instance_id="i") as static:
            spread([static, other], [2, 2])
            had = {place.partition for place in static.assignment()}
        with consumer(quick_broker, "t", group_instance_id="i") as static:
            spread([static, other], [2, 2])
            assert {place.partition for place in static.assignment()} == had


@pytest.mark.parametrize("protocols", [("classic", "consumer"), ("consumer", "classic")], ids="->".join)
def test_an_empty_group_changes_its_protocol_and_keeps_its_offsets(
    quick_broker: EmbeddedBroker, protocols: tuple[str, str]
) -> None:
    make_topic(quick_broker, "t")
    sent = produce(quick_broker, "t", range(40))
    taken: list[bytes] = []
    with consumer(quick_broker, "t", protocols[0]) as reader:
        poll_until([reader], lambda: set(taken) == sent, taken)
        reader.commit(asynchronous=False)
    assert kinds(quick_broker) == [("g", protocols[0], "EMPTY")]
    later = produce(quick_broker, "t", range(40, 80))
    taken.clear()
    with consumer(quick_broker, "t", protocols[1]) as reader:
        poll_until([reader], lambda: len(taken) == len(later), taken)
        assert set(taken) == later
        assert kinds(quick_broker) == [("g", protocols[1], "STABLE")]


def kinds(broker: EmbeddedBroker) -> list[tuple[str, str, str]]:
    """Id, type and state of every group."""
    admin = api.AdminClient({"bootstrap.servers": broker.bootstrap})
    listed = admin.list_consumer_groups().result(TIMEOUT_S)
    assert not listed.errors
    return [(group.group_id, group.type.name.lower(), group.state.name) for group in listed.valid]


@pytest.mark.java
@pytest.mark.slow
def test_kafkas_console_consumer_and_group_tool_see_such_a_group(
    quick_broker: EmbeddedBroker, kafka_tools: KafkaTools
) -> None:
    make_topic(quick_broker, "t")
    sent = produce(quick_broker, "t", range(40))
    server = ("--bootstrap-server", quick_broker.bootstrap)
    reading = ("--topic", "t", "--group", "g", "--from-beginning", "--max-messages", str(len(sent)))
    printed = kafka_tools.run(
        f"{TOOLS}.consumer.ConsoleConsumer",
        *(*server, *reading, "--command-property", "group.protocol=consumer"),
    )
    assert sent <= {line.encode() for line in printed.splitlines()}
    groups = (f"{TOOLS}.consumer.group.ConsumerGroupCommand", *server)
    assert "Consumer" in kafka_tools.run(*groups, "--list", "--type")
    with consumer(quick_broker, "t", group_instance_id="i") as reader:
        spread([reader], [PARTITIONS])
        members = kafka_tools.run(*groups, "--describe", "--group", "g", "--members", "--verbose")
        assert "t:0,1,2,3" in members.replace(" ", "")
        state = kafka_tools.run(*groups, "--describe", "--group", "g", "--state", "--verbose").split()
        assert {"uniform", "Stable"} <= set(state)
    described = kafka_tools.run(*groups, "--describe", "--group", "g")
    assert [line.split()[3:6] for line in described.splitlines() if line.startswith("g ")] == [
        ["10", "10", "0"]
    ] * PARTITIONS
    assert quick_broker.stop() == 0
    (path,) = quick_broker.config.data_dir.rglob("__consumer_offsets-0/*.log")
    dumped = dump(kafka_tools, path)
    for kind in (3, 4, 5, 6, 7, 8):
        assert f'"type":"{kind}"' in dumped


def dump(tools: KafkaTools, path: Path) -> str:
    """The records of a segment of `__consumer_offsets`, as Kafka's own reader understands them."""
    return tools.run(f"{TOOLS}.DumpLogSegments", "--files", str(path), "--offsets-decoder")
