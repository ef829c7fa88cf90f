"""Fetching whole batches: positions, isolation, faults."""

import dataclasses
import time
from random import Random

import pytest
from confluent_kafka import Consumer, Producer
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fixtures.kafka_proxy import KafkaProxy
from tests.unit.broker.client.reading import batch_of, read_until_end

from tailrace.broker.client import (
    BrokerError,
    Client,
    FetchedPartition,
    Fetcher,
    IdempotentProducer,
    TopicPartition,
    TransactionalProducer,
)
from tailrace.broker.client.fetcher import without_aborted
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol.messages import (
    AbortedTransaction,
    FetchableTopicResponse,
    FetchPartitionResponse,
    FetchRequest,
    FetchResponse,
)
from tailrace.broker.records.batch import Marker, control_batch, set_base_offset
from tailrace.broker.records.errors import InvalidBatchError
from tailrace.broker.records.record import Record, decode_records, encode_batch

NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture
def place(topic: str) -> TopicPartition:
    return TopicPartition(topic, 0)


def only(fetched: list[FetchedPartition]) -> FetchedPartition:
    assert len(fetched) == 1
    return fetched[0]


def test_an_offset_inside_a_batch_brings_the_whole_batch(client: Client, place: TopicPartition) -> None:
    IdempotentProducer(client).send([(place, batch_of(b"a", b"b", b"c")), (place, batch_of(b"d"))])
    fetcher = Fetcher(client, {place: 2})
    fetched = only(fetcher.poll())
    assert (fetched.start_offset, fetched.next_offset, fetched.high_watermark) == (2, 4, 4)
    records = [record for batch in fetched.batches for record in decode_records(batch)]
    assert [record.offset for record in records] == [0, 1, 2, 3]
    assert fetcher.positions == {place: 4}


def test_a_partition_without_news_says_where_it_ends(client: Client, place: TopicPartition) -> None:
    fetched = only(Fetcher(client, {place: 0}).poll(max_wait_ms=0))
    assert fetched == FetchedPartition(place, [], 0, 0, 0, 0)


def test_positions_pass_over_what_is_dropped(client: Client, place: TopicPartition) -> None:
    producer = TransactionalProducer(client, f"tx-{place.topic}")
    producer.init()
    producer.begin()
    producer.send([(place, batch_of(b"aborted"))])
    producer.abort()
    fetched = only(Fetcher(client, {place: 0}).poll())
    assert (fetched.batches, fetched.next_offset) == ([], 2)


def test_an_open_transaction_holds_readers_at_its_first_record(client: Client, place: TopicPartition) -> None:
    IdempotentProducer(client).send([(place, batch_of(b"before"))])
    producer = TransactionalProducer(client, f"tx-{place.topic}")
    producer.init()
    producer.begin()
    producer.send([(place, batch_of(b"open"))])
    fetcher = Fetcher(client, {place: 0})
    fetched = only(fetcher.poll())
    assert (fetched.next_offset, fetched.last_stable_offset, fetched.high_watermark) == (1, 1, 2)
    producer.commit()
    assert only(fetcher.poll()).next_offset == 3


def test_small_limits_still_bring_every_batch_in_turn(client: Client, topic: str) -> None:
    places = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    sent = [[b"%d" % number * 500 for number in range(index, 20 + index)] for index in range(2)]
    IdempotentProducer(client).send(
        [(place, batch_of(value)) for place, batch in zip(places, sent, strict=True) for value in batch]
    )
    fetcher = Fetcher(client, dict.fromkeys(places, 0), max_bytes=1, max_partition_bytes=1)
    found: dict[TopicPartition, list[bytes | None]] = {place: [] for place in places}
    first_polls = []
    for _ in range(40):
        fetched = [entry for entry in fetcher.poll() if entry.batches]
        assert sum(len(entry.batches) for entry in fetched) == 1
        first_polls.append(fetched[0].partition)
        found[fetched[0].partition] += [record.value for record in decode_records(fetched[0].batches[0])]
    assert [found[place] for place in places] == sent
    assert set(first_polls[:2]) == set(places)


def test_an_offset_that_the_log_does_not_hold_is_named(client: Client, place: TopicPartition) -> None:
    with pytest.raises(BrokerError, match=f"{place}.* offset 99") as caught:
        Fetcher(client, {place: 99}).poll()
    assert caught.value.error == ErrorCode.OFFSET_OUT_OF_RANGE


def test_seek_and_remove_change_what_is_read(client: Client, topic: str) -> None:
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    IdempotentProducer(client).send([(first, batch_of(b"a")), (second, batch_of(b"b"))])
    fetcher = Fetcher(client, {first: 0})
    fetcher.poll()
    fetcher.seek(first, 0)
    assert only(fetcher.poll()).next_offset == 1
    fetcher.seek(second, 0)
    fetcher.remove(first)
    assert only(fetcher.poll()).partition == second
    fetcher.remove(second)
    assert fetcher.poll() == []


@pytest.mark.parametrize("what", ["request", "answer"])
def test_a_lost_connection_loses_no_batch(
    client: Client, topic: str, place: TopicPartition, proxy: KafkaProxy, what: str
) -> None:
    IdempotentProducer(client).send([(place, batch_of(b"%d" % number)) for number in range(6)])
    (proxy.lose_request if what == "request" else proxy.lose_answer)(ApiKey.FETCH)
    found = read_until_end(client, {place: 0})[place]
    assert found[-6:] == [b"%d" % number for number in range(6)]


def test_a_damaged_batch_is_not_handed_on(client: Client, place: TopicPartition, proxy: KafkaProxy) -> None:
    damaged = batch_of(b"value")
    damaged[-2] ^= 1

    def forge(request: FetchRequest) -> FetchResponse:
        answer = FetchPartitionResponse(partition_index=place.partition, high_watermark=1, records=damaged)
        return FetchResponse(responses=[FetchableTopicResponse(topic=place.topic, partitions=[answer])])

    proxy.forge(ApiKey.FETCH, forge)
    fetcher = Fetcher(client, {place: 0})
    with pytest.raises(InvalidBatchError, match=f"{place}, offset 0"):
        fetcher.poll()
    assert fetcher.positions == {place: 0}


def test_a_moved_leader_is_looked_up_again(client: Client, place: TopicPartition, proxy: KafkaProxy) -> None:
    IdempotentProducer(client).send([(place, batch_of(b"v"))])

    def forge(request: FetchRequest) -> FetchResponse:
        answer = FetchPartitionResponse(error_code=ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return FetchResponse(responses=[FetchableTopicResponse(topic=place.topic, partitions=[answer])])

    proxy.forge(ApiKey.FETCH, forge)
    assert only(Fetcher(client, {place: 0}).poll()).next_offset == 1


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_we_read_what_librdkafka_wrote(client: Client, codec: str) -> None:
    name = f"librdkafka-{codec}"
    producer = Producer({"bootstrap.servers": client.bootstrap, "compression.type": codec, "linger.ms": 50})
    for number in range(50):
        producer.produce(name, key=b"k", value=b"%d" % number * 20, partition=0)
    assert producer.flush(20) == 0
    place = TopicPartition(name, 0)
    assert read_until_end(client, {place: 0})[place] == [b"%d" % number * 20 for number in range(50)]


def test_librdkafka_reads_what_we_committed_and_not_what_we_aborted(
    client: Client, place: TopicPartition
) -> None:
    producer = TransactionalProducer(client, f"tx-{place.topic}")
    producer.init()
    for number in range(6):
        producer.begin()
        producer.send([(place, encode_batch([Record(b"k", b"%d" % number, NOW_MS, (("h", b"x"),))]))])
        if number % 2:
            producer.abort()
        else:
            producer.commit()
    consumer = Consumer(
        {
            "bootstrap.servers": client.bootstrap,
            "group.id": "librdkafka",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([place.topic])
    read = [message.value() for message in consumer.consume(3, timeout=20)]
    consumer.close()
    assert read == [b"0", b"2", b"4"]


@dataclasses.dataclass
class _Log:
    """A log with interleaved transactions, and what a reader must see of it."""

    batches: list[memoryview]
    aborted: list[AbortedTransaction]
    readable: list[bytes]


def _random_log(rng: Random) -> _Log:
    batches: list[memoryview] = []
    aborted: list[AbortedTransaction] = []
    outcome: list[tuple[bytes, int | None]] = []
    opened: dict[int, tuple[int, int]] = {}
    fate: dict[int, bool] = {}
    offset = 0
    for number in range(rng.randrange(30)):
        producer = rng.randrange(3)
        if producer in opened and rng.random() < 0.3:
            first, transaction = opened.pop(producer)
            commit = rng.random() < 0.5
            fate[transaction] = commit
            if not commit:
                aborted.append(AbortedTransaction(producer_id=producer, first_offset=first))
            batches.append(
                memoryview(control_batch(producer, 0, Marker(commit, 0), timestamp_ms=1, base_offset=offset))
            )
            offset += 1
            continue
        transactional = rng.random() < 0.8 or producer in opened
        if transactional and producer not in opened:
            opened[producer] = (offset, number)
        values = [b"%d-%d" % (number, index) for index in range(rng.choice([1, 3]))]
        batch = encode_batch(
            [Record(None, value, 1) for value in values],
            producer_id=producer,
            producer_epoch=0,
            base_sequence=0,
            transactional=transactional,
        )
        set_base_offset(batch, offset, 0)
        batches.append(memoryview(batch))
        outcome += [(value, opened[producer][1] if transactional else None) for value in values]
        offset += len(values)
    # transactions that are still open lie past the last stable offset in a real answer
    readable = [value for value, transaction in outcome if transaction is None or fate.get(transaction, True)]
    return _Log(batches, aborted, readable)


@given(seed=st.integers(min_value=0))
@settings(max_examples=200, deadline=None)
def test_readers_see_every_batch_but_aborted_and_control_ones(seed: int) -> None:
    log = _random_log(Random(seed))
    kept = without_aborted(log.batches, log.aborted)
    assert [record.value for batch in kept for record in decode_records(batch)] == log.readable
