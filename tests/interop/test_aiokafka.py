"""aiokafka against the broker: produce, consume, groups, transactions, admin."""

import asyncio
from collections.abc import Awaitable, Callable

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import ProducerFenced

from tailrace.broker.embedded import EmbeddedBroker

TIMEOUT_S = 30.0


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run one test's story, within a deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())


async def take(consumer: aiokafka.AIOKafkaConsumer, count: int) -> list[bytes]:
    async with asyncio.timeout(TIMEOUT_S):
        return [(await consumer.getone()).value for _ in range(count)]


def consumer(broker: EmbeddedBroker, *topics: str, **config: object) -> aiokafka.AIOKafkaConsumer:
    settings = {"group_id": "g", "auto_offset_reset": "earliest", "isolation_level": "read_committed"}
    return aiokafka.AIOKafkaConsumer(*topics, bootstrap_servers=broker.bootstrap, **{**settings, **config})


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_as_they_were_sent(broker: EmbeddedBroker, codec: str | None) -> None:
    async def story() -> None:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=broker.bootstrap, compression_type=codec, enable_idempotence=True
        ) as producer:
            for number in range(50):
                await producer.send("t", b"%d" % number * 50, b"key", headers=[("h", b"v")])
        async with consumer(broker, "t") as reader:
            assert await take(reader, 49) == [b"%d" % number * 50 for number in range(49)]
            last = await reader.getone()
            assert (last.key, last.headers) == (b"key", (("h", b"v"),))

    run(story)


def test_a_group_goes_on_after_its_committed_offset_and_shares_partitions(broker: EmbeddedBroker) -> None:
    async def story() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic("t", 1, 1)])
        await admin.create_partitions({"t": NewPartitions(2)})
        async with aiokafka.AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            for number in range(10):
                await producer.send_and_wait("t", b"%d" % number, partition=0)
        async with consumer(broker, "t", enable_auto_commit=False) as first:
            assert await take(first, 4) == [b"0", b"1", b"2", b"3"]
            await first.commit()
        async with (
            consumer(broker, "t", heartbeat_interval_ms=200) as first,
            consumer(broker, "t", heartbeat_interval_ms=200) as second,
        ):
            async with asyncio.timeout(TIMEOUT_S):
                while sorted(len(reader.assignment()) for reader in (first, second)) != [1, 1]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            (reader,) = [r for r in (first, second) if aiokafka.TopicPartition("t", 0) in r.assignment()]
            assert await take(reader, 6) == [b"%d" % number for number in range(4, 10)]
            described = await admin.describe_consumer_groups(["g"])
            assert described[0].groups[0][2] == "Stable"
        await admin.delete_topics(["t"])
        assert "t" not in await admin.list_topics()
        await admin.close()

    run(story)


def test_transactions_commit_and_abort_records_and_offsets(broker: EmbeddedBroker) -> None:
    async def story() -> None:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=broker.bootstrap, transactional_id="tx"
        ) as producer:
            for number in range(6):
                await producer.begin_transaction()
                await producer.send_and_wait("t", b"%d" % number)
                place = aiokafka.TopicPartition("source", 0)
                await producer.partitions_for("source")
                await producer.send_offsets_to_transaction({place: 100 + number}, "g")
                if number % 2:
                    await producer.abort_transaction()
                else:
                    await producer.commit_transaction()
            async with producer.transaction():
                await producer.send_and_wait("t", b"end")
        async with consumer(broker, "t") as reader:
            assert await take(reader, 4) == [b"0", b"2", b"4", b"end"]
            assert await reader.committed(place) == 104

    run(story)


def test_a_second_producer_of_the_same_id_fences_the_first(broker: EmbeddedBroker) -> None:
    async def story() -> None:
        first = aiokafka.AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="tx")
        await first.start()
        await first.begin_transaction()
        await first.send_and_wait("t", b"lost")
        async with (
            aiokafka.AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="tx") as second,
            second.transaction(),
        ):
            await second.send_and_wait("t", b"kept")
        with pytest.raises(ProducerFenced):
            await first.commit_transaction()
        await first.stop()
        async with consumer(broker, "t") as reader:
            assert await take(reader, 1) == [b"kept"]

    run(story)
