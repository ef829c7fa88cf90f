"""librdkafka (confluent-kafka) against the broker: produce, consume, groups, transactions, admin."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import confluent_kafka as ck
import confluent_kafka.admin
import pytest

from tailrace.broker.embedded import EmbeddedBroker

TIMEOUT_S = 30.0

api: Any = confluent_kafka.admin  # its names are not marked as exported, and some are not typed


@contextmanager
def consumer(broker: EmbeddedBroker, group: str, *topics: str, **config: Any) -> Iterator[ck.Consumer]:
    settings = {
        "bootstrap.servers": broker.bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "heartbeat.interval.ms": 200,
        **{key.replace("_", "."): value for key, value in config.items()},
    }
    made = ck.Consumer(settings)
    try:
        made.subscribe(list(topics))
        yield made
    finally:
        made.close()


def take(reader: ck.Consumer, count: int) -> list[ck.Message]:
    """The next `count` messages; AssertionError when they do not come."""
    messages: list[ck.Message] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(messages) < count:
        assert time.monotonic() < deadline, f"only {len(messages)} of {count} messages came"
        message = reader.poll(0.2)
        if message is not None:
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


def nothing_more(broker: EmbeddedBroker, reader: ck.Consumer, topic: str) -> bool:
    """Whether a record that is written now is the very next that the reader gets."""
    produce(broker, topic, b"end")
    return bool(take(reader, 1)[0].value() == b"end")


def produce(broker: EmbeddedBroker, topic: str, *values: bytes, **config: Any) -> None:
    settings = {key.replace("_", "."): value for key, value in config.items()}
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap, **settings})
    errors: list[ck.KafkaError] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.extend([error] if error else []))
    assert producer.flush(TIMEOUT_S) == 0
    assert errors == []


def transactional(broker: EmbeddedBroker, transactional_id: str) -> ck.Producer:
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": transactional_id})
    producer.init_transactions(TIMEOUT_S)
    return producer


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_travels_and_is_really_used(broker: EmbeddedBroker, codec: str) -> None:
    values = [b"%05d" % i * 100 for i in range(200)]
    produce(broker, "t", *values, compression_type=codec, linger_ms=100)
    with consumer(broker, "g", "t") as reader:
        assert [message.value() for message in take(reader, 200)] == values
    (segment,) = (broker.config.data_dir).rglob("t-0/*.log")
    assert (segment.stat().st_size < 50_000) is (codec != "none")


def test_keys_headers_timestamps_and_tombstones_come_back(broker: EmbeddedBroker) -> None:
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap})
    now_ms = int(time.time() * 1000) - 12_345
    headers: list[tuple[str, str | bytes | None]] = [("op", b"u"), ("op", b"\x00\xff"), ("none", None)]
    producer.produce("t", key=b"k", value=None, headers=headers, timestamp=now_ms)
    assert producer.flush(TIMEOUT_S) == 0
    with consumer(broker, "g", "t") as reader:
        (message,) = take(reader, 1)
    assert (message.key(), message.value(), message.headers()) == (b"k", None, headers)
    assert message.timestamp() == (ck.TIMESTAMP_CREATE_TIME, now_ms)


def test_a_new_consumer_of_the_group_goes_on_after_the_committed_offset(broker: EmbeddedBroker) -> None:
    produce(broker, "t", *(b"%d" % i for i in range(10)))
    with consumer(broker, "g", "t") as reader:
        reader.commit(message=take(reader, 4)[-1], asynchronous=False)
    broker.stop()
    broker.restart()
    with consumer(broker, "g", "t") as reader:
        assert [message.value() for message in take(reader, 6)] == [b"%d" % i for i in range(4, 10)]


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_partitions_move_when_consumers_come_and_go(broker: EmbeddedBroker, strategy: str) -> None:
    admin = api.AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([api.NewTopic("t", 4, 1)])["t"].result(TIMEOUT_S)
    settings = {"partition_assignment_strategy": strategy}

    def settle(readers: list[ck.Consumer], counts: list[int]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while [len(reader.assignment()) for reader in readers] != counts:
            assert time.monotonic() < deadline, [len(reader.assignment()) for reader in readers]
            for reader in readers:
                reader.poll(0.05)

    with consumer(broker, "g", "t", **settings) as first:
        settle([first], [4])
        with consumer(broker, "g", "t", **settings) as second:
            settle([first, second], [2, 2])
            owned = {p.partition for reader in (first, second) for p in reader.assignment()}
            assert owned == {0, 1, 2, 3}
        settle([first], [4])


def test_read_committed_sees_commits_at_once_and_aborts_never(broker: EmbeddedBroker) -> None:
    producer = transactional(broker, "tx")
    with consumer(broker, "g", "t") as reader:
        for number in range(6):
            producer.begin_transaction()
            producer.produce("t", b"%d" % number)
            if number % 2:
                producer.flush(TIMEOUT_S)  # an abort drops what was not sent yet
                producer.abort_transaction(TIMEOUT_S)
            else:
                producer.commit_transaction(TIMEOUT_S)
        assert [message.value() for message in take(reader, 3)] == [b"0", b"2", b"4"]
        assert nothing_more(broker, reader, "t")
    with consumer(broker, "h", "t", isolation_level="read_uncommitted") as reader:
        assert len(take(reader, 7)) == 7


def test_an_open_transaction_holds_back_what_comes_after_it(broker: EmbeddedBroker) -> None:
    producer = transactional(broker, "tx")
    producer.begin_transaction()
    producer.produce("t", b"open")
    producer.flush(TIMEOUT_S)
    produce(broker, "t", b"after")
    with consumer(broker, "g", "t") as reader:
        assert reader.poll(1.0) is None
        producer.commit_transaction(TIMEOUT_S)
        assert [message.value() for message in take(reader, 2)] == [b"open", b"after"]


def test_offsets_are_committed_with_the_transaction_or_not_at_all(broker: EmbeddedBroker) -> None:
    produce(broker, "in", *(b"%d" % i for i in range(6)))
    producer = transactional(broker, "tx")
    with consumer(broker, "g", "in") as reader:
        for commit in (True, False):
            messages = take(reader, 3)
            producer.begin_transaction()
            for message in messages:
                producer.produce("out", message.value())
            producer.send_offsets_to_transaction(
                reader.position(reader.assignment()), reader.consumer_group_metadata(), TIMEOUT_S
            )
            (producer.commit_transaction if commit else producer.abort_transaction)(TIMEOUT_S)
        (committed,) = reader.committed([ck.TopicPartition("in", 0)], TIMEOUT_S)
        assert committed.offset == 3
    with consumer(broker, "h", "out") as reader:
        assert [message.value() for message in take(reader, 3)] == [b"0", b"1", b"2"]
        assert nothing_more(broker, reader, "out")


def test_a_second_producer_of_the_same_id_fences_the_first(broker: EmbeddedBroker) -> None:
    first = transactional(broker, "tx")
    first.begin_transaction()
    first.produce("t", b"lost")
    first.flush(TIMEOUT_S)
    second = transactional(broker, "tx")
    second.begin_transaction()
    second.produce("t", b"kept")
    second.commit_transaction(TIMEOUT_S)
    with pytest.raises(ck.KafkaException) as caught:
        first.commit_transaction(TIMEOUT_S)
    assert caught.value.args[0].fatal()
    with consumer(broker, "g", "t") as reader:
        assert [message.value() for message in take(reader, 1)] == [b"kept"]
        assert nothing_more(broker, reader, "t")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"


def test_topics_are_made_grown_configured_cut_and_deleted(broker: EmbeddedBroker) -> None:
    admin = api.AdminClient({"bootstrap.servers": broker.bootstrap})
    topic = api.NewTopic("t", 1, 1, config={"cleanup.policy": "compact", "retention.ms": "1000"})
    admin.create_topics([topic])["t"].result(TIMEOUT_S)
    with pytest.raises(ck.KafkaException, match="TOPIC_ALREADY_EXISTS"):
        admin.create_topics([topic])["t"].result(TIMEOUT_S)
    admin.create_partitions([api.NewPartitions("t", 3)])["t"].result(TIMEOUT_S)
    assert len(admin.list_topics("t", TIMEOUT_S).topics["t"].partitions) == 3

    resource = api.ConfigResource(api.ResourceType.TOPIC, "t")
    resource.add_incremental_config(
        api.ConfigEntry("cleanup.policy", "delete", incremental_operation=api.AlterConfigOpType.APPEND)
    )
    resource.add_incremental_config(
        api.ConfigEntry("retention.ms", None, incremental_operation=api.AlterConfigOpType.DELETE)
    )
    resource.add_incremental_config(
        api.ConfigEntry("max.message.bytes", "2000", incremental_operation=api.AlterConfigOpType.SET)
    )
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)
    asked = api.ConfigResource(api.ResourceType.TOPIC, "t")
    configs = admin.describe_configs([asked])[asked].result(TIMEOUT_S)
    assert configs["cleanup.policy"].value == "compact,delete"
    assert configs["retention.ms"].value == str(7 * 24 * 3_600_000)
    assert configs["max.message.bytes"].value == "2000"
    assert not configs["max.message.bytes"].is_default
    with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE"):
        produce(broker, "t", b"x" * 3_000)

    admin.delete_topics(["t"])["t"].result(TIMEOUT_S)
    wait_until(lambda: "t" not in admin.list_topics(timeout=TIMEOUT_S).topics)


def test_records_are_deleted_up_to_an_offset(broker: EmbeddedBroker) -> None:
    admin = api.AdminClient({"bootstrap.servers": broker.bootstrap})
    produce(broker, "t", *(b"%d" % i for i in range(10)))
    cut = ck.TopicPartition("t", 0, 6)
    (result,) = admin.delete_records([cut]).values()
    assert result.result(TIMEOUT_S).low_watermark == 6
    where = ck.TopicPartition("t", 0)
    for spec, offset in ((api.OffsetSpec.earliest(), 6), (api.OffsetSpec.latest(), 10)):
        assert admin.list_offsets({where: spec})[where].result(TIMEOUT_S).offset == offset
    with consumer(broker, "g", "t") as reader:
        assert [message.value() for message in take(reader, 4)] == [b"6", b"7", b"8", b"9"]


def test_groups_are_listed_described_and_deleted(broker: EmbeddedBroker) -> None:
    admin = api.AdminClient({"bootstrap.servers": broker.bootstrap})
    produce(broker, "t", b"x")
    with consumer(broker, "g", "t", client_id="me") as reader:
        reader.commit(message=take(reader, 1)[0], asynchronous=False)
        described = admin.describe_consumer_groups(["g"])["g"].result(TIMEOUT_S)
        assert described.state == ck.ConsumerGroupState.STABLE
        (member,) = described.members
        assert (member.client_id, member.assignment.topic_partitions[0].topic) == ("me", "t")
        with pytest.raises(ck.KafkaException, match="NON_EMPTY_GROUP"):
            admin.delete_consumer_groups(["g"])["g"].result(TIMEOUT_S)
    listed = admin.list_consumer_groups().result(TIMEOUT_S).valid
    assert [(group.group_id, group.state) for group in listed] == [("g", ck.ConsumerGroupState.EMPTY)]
    admin.delete_consumer_groups(["g"])["g"].result(TIMEOUT_S)
    assert admin.list_consumer_groups().result(TIMEOUT_S).valid == []
    broker.kill()
    broker.restart()
    assert admin.list_consumer_groups().result(TIMEOUT_S).valid == []


def test_the_cluster_describes_itself(broker: EmbeddedBroker) -> None:
    admin = api.AdminClient({"bootstrap.servers": broker.bootstrap})
    cluster = admin.describe_cluster().result(TIMEOUT_S)
    assert [f"{node.host}:{node.port}" for node in cluster.nodes] == [broker.bootstrap]
    assert len(cluster.cluster_id) == 22
    asked = api.ConfigResource(api.ResourceType.BROKER, "1")
    configs = admin.describe_configs([asked])[asked].result(TIMEOUT_S)
    assert configs["num.partitions"].value == "1"
