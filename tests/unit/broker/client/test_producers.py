"""Idempotent and transactional sends over faults, against a real broker."""

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.fixtures.kafka_proxy import KafkaProxy
from tests.unit.broker.client.reading import batch_of, read_until_end

from tailrace.broker.client import (
    BrokerError,
    Client,
    IdempotentProducer,
    NewTopic,
    TopicPartition,
    TransactionalProducer,
)
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol.messages import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from tailrace.changes import FencedError, TailraceError


@pytest.fixture
def places(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, 0), TopicPartition(topic, 1)]


@pytest.fixture
def producer(client: Client, topic: str) -> TransactionalProducer:
    producer = TransactionalProducer(client, f"tx-{topic}")
    producer.init()
    return producer


def values(client: Client, places: list[TopicPartition]) -> list[list[bytes]]:
    found = read_until_end(client, dict.fromkeys(places, 0))
    return [found[place] for place in places]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_base_offsets_come_back_in_the_order_sent(client: Client, places: list[TopicPartition]) -> None:
    producer = IdempotentProducer(client)
    first, second = places
    sent = [(first, batch_of(b"a", b"b")), (second, batch_of(b"c")), (first, batch_of(b"d"))]
    assert producer.send(sent) == [0, 0, 2]
    assert producer.send([(first, batch_of(b"e"))]) == [3]
    assert values(client, places) == [[b"a", b"b", b"d", b"e"], [b"c"]]


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_lost_produce_answer_is_stored_once(client: Client, proxy: KafkaProxy, after: int) -> None:
    name = f"lost-answer-{after}"
    client.create_topics([NewTopic(name, 1)])
    place = TopicPartition(name, 0)
    producer = IdempotentProducer(client)
    proxy.lose_answer(ApiKey.PRODUCE, after=after)
    proxy.lose_request(ApiKey.PRODUCE, after=after + 2)
    offsets = producer.send([(place, batch_of(value)) for value in numbered(12)])
    assert offsets == list(range(12))
    assert values(client, [place]) == [numbered(12)]


def test_batches_behind_a_refused_one_keep_their_order(
    client: Client, proxy: KafkaProxy, places: list[TopicPartition]
) -> None:
    def refuse(request: ProduceRequest) -> ProduceResponse:
        return ProduceResponse(
            responses=[
                TopicProduceResponse(
                    name=topic.name,
                    partition_responses=[
                        PartitionProduceResponse(
                            index=data.index, error_code=ErrorCode.NOT_ENOUGH_REPLICAS, base_offset=-1
                        )
                        for data in topic.partition_data
                    ],
                )
                for topic in request.topic_data
            ]
        )

    producer = IdempotentProducer(client)
    proxy.forge(ApiKey.PRODUCE, refuse)
    proxy.forge(ApiKey.PRODUCE, refuse, after=3)
    sent = [(places[number % 2], batch_of(b"%d" % number)) for number in range(20)]
    assert producer.send(sent) == [number // 2 for number in range(20)]
    assert values(client, places) == [numbered(20)[0::2], numbered(20)[1::2]]


def test_a_transaction_is_read_whole_after_its_commit(
    client: Client, producer: TransactionalProducer, places: list[TopicPartition]
) -> None:
    producer.begin()
    producer.send([(places[0], batch_of(b"a")), (places[1], batch_of(b"b"))])
    producer.send([(places[0], batch_of(b"c"))])
    assert values(client, places) == [[], []]
    producer.commit()
    assert values(client, places) == [[b"a", b"c"], [b"b"]]


def test_an_aborted_transaction_is_never_read(
    client: Client, producer: TransactionalProducer, places: list[TopicPartition]
) -> None:
    producer.begin()
    producer.send([(places[0], batch_of(b"aborted"))])
    producer.abort()
    producer.begin()
    producer.send([(places[0], batch_of(b"kept"))])
    producer.commit()
    assert values(client, places[:1]) == [[b"kept"]]
    uncommitted = read_until_end(client, {places[0]: 0}, isolation="read_uncommitted")
    assert uncommitted == {places[0]: [b"aborted", b"kept"]}


@pytest.mark.parametrize(
    "api_key",
    [ApiKey.INIT_PRODUCER_ID, ApiKey.ADD_PARTITIONS_TO_TXN, ApiKey.PRODUCE, ApiKey.END_TXN],
    ids=lambda api_key: api_key.name,
)
@pytest.mark.parametrize("what", ["request", "answer"])
def test_a_connection_lost_anywhere_in_a_transaction_changes_nothing(
    client: Client, proxy: KafkaProxy, api_key: ApiKey, what: str
) -> None:
    name = f"lost-{what}-{api_key.name.lower()}"
    client.create_topics([NewTopic(name, 1)])
    place = TopicPartition(name, 0)
    if what == "request":
        proxy.lose_request(api_key)
    else:
        proxy.lose_answer(api_key)
    producer = TransactionalProducer(client, name)
    producer.init()
    for number in range(2):
        producer.begin()
        assert producer.send([(place, batch_of(b"%d" % number))]) == [2 * number]
        producer.commit()
    assert values(client, [place]) == [[b"0", b"1"]]


def test_a_newer_producer_fences_the_older_one(
    client: Client, producer: TransactionalProducer, topic: str, places: list[TopicPartition]
) -> None:
    producer.begin()
    producer.send([(places[0], batch_of(b"old"))])
    newer = TransactionalProducer(client, f"tx-{topic}")
    newer.init()
    with pytest.raises(FencedError, match="taken over"):
        producer.send([(places[0], batch_of(b"old again"))])
    with pytest.raises(FencedError):
        producer.abort()
    newer.begin()
    newer.send([(places[0], batch_of(b"new"))])
    newer.commit()
    assert values(client, places[:1]) == [[b"new"]]


def test_a_commit_of_a_fenced_producer_is_refused(
    client: Client, producer: TransactionalProducer, topic: str, places: list[TopicPartition]
) -> None:
    producer.begin()
    producer.send([(places[0], batch_of(b"old"))])
    TransactionalProducer(client, f"tx-{topic}").init()
    with pytest.raises(FencedError):
        producer.commit()
    assert values(client, places[:1]) == [[]]


def test_a_refused_batch_leaves_the_producer_usable_after_abort(
    client: Client, producer: TransactionalProducer, places: list[TopicPartition]
) -> None:
    producer.begin()
    producer.send([(places[0], batch_of(b"before"))])
    with pytest.raises(BrokerError) as caught:
        producer.send([(places[0], batch_of(b"x" * 1_200_000)), (places[0], batch_of(b"behind"))])
    assert caught.value.error == ErrorCode.MESSAGE_TOO_LARGE
    with pytest.raises(RuntimeError, match="abort"):
        producer.commit()
    producer.abort()
    producer.begin()
    producer.send([(places[0], batch_of(b"after"))])
    producer.commit()
    assert values(client, places[:1]) == [[b"after"]]


def test_a_transaction_that_outlived_its_timeout_is_no_fencing(
    client: Client, places: list[TopicPartition], monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = TransactionalProducer(client, "slow", timeout_ms=1_000)
    producer.init()
    producer.begin()
    producer.send([(places[0], batch_of(b"slow"))])
    # what the broker does by itself once the timeout is over
    TransactionalProducer(client, "slow").init()
    monkeypatch.setattr(producer, "_opened_at", producer._opened_at - 2)
    with pytest.raises(TailraceError, match="longer than its timeout") as caught:
        producer.commit()
    assert not isinstance(caught.value, FencedError)


def test_offsets_are_committed_with_the_transaction(
    client: Client, producer: TransactionalProducer, places: list[TopicPartition]
) -> None:
    group = f"group-{places[0].topic}"
    producer.begin()
    producer.send_offsets(group, {places[0]: 7})
    producer.abort()
    assert client.committed_offsets(group) == {}
    producer.begin()
    producer.send_offsets(group, {places[0]: 8})
    producer.commit()
    assert client.committed_offsets(group) == {places[0]: 8}


def test_an_empty_transaction_costs_no_request(
    client: Client, producer: TransactionalProducer, proxy: KafkaProxy
) -> None:
    before = len(proxy.seen)
    producer.begin()
    producer.commit()
    producer.begin()
    producer.abort()
    assert len(proxy.seen) == before


def test_calls_out_of_turn_are_refused(client: Client) -> None:
    producer = TransactionalProducer(client, "turns")
    with pytest.raises(RuntimeError):
        producer.begin()
    producer.init()
    with pytest.raises(RuntimeError):
        producer.commit()
    producer.begin()
    with pytest.raises(RuntimeError):
        producer.begin()


def test_what_is_no_batch_is_refused_before_it_is_sent(client: Client, places: list[TopicPartition]) -> None:
    with pytest.raises(ValueError, match="not one whole record batch"):
        IdempotentProducer(client).send([(places[0], batch_of(b"a") + batch_of(b"b"))])


@pytest.mark.parametrize("seed", range(4))
def test_random_faults_neither_lose_nor_double_nor_reorder(
    client: Client, proxy: KafkaProxy, seed: int
) -> None:
    name = f"chaos-{seed}"
    client.create_topics([NewTopic(name, 2)])
    places = [TopicPartition(name, 0), TopicPartition(name, 1)]
    rng = Random(seed)
    producer = TransactionalProducer(client, name)
    producer.init()
    expected: list[list[bytes]] = [[], []]
    for number in range(15):
        for _ in range(rng.randrange(3)):
            api_key = rng.choice(
                [ApiKey.PRODUCE, ApiKey.PRODUCE, ApiKey.ADD_PARTITIONS_TO_TXN, ApiKey.END_TXN]
            )
            rng.choice([proxy.lose_request, proxy.lose_answer])(api_key, after=rng.randrange(4))
        producer.begin()
        sent: list[tuple[int, bytes]] = []
        for _ in range(rng.randrange(1, 4)):
            chosen = [rng.randrange(2) for _ in range(rng.randrange(1, 16))]
            piece = [(index, b"%d-%d" % (number, len(sent) + at)) for at, index in enumerate(chosen)]
            producer.send([(places[index], batch_of(value)) for index, value in piece])
            sent += piece
        if rng.random() < 0.3:
            producer.abort()
            continue
        producer.commit()
        for index, value in sent:
            expected[index].append(value)
    proxy.forget_faults()
    assert values(client, places) == expected


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path / "broker") as broker:
        yield broker


def test_transactions_survive_a_sigkill_of_the_broker(own_broker: EmbeddedBroker) -> None:
    place = TopicPartition("t", 0)
    with Client(own_broker.bootstrap, client_id="test", retry_for_s=60) as client:
        client.create_topics([NewTopic("t", 1)])
        producer = TransactionalProducer(client, "survivor")
        producer.init()
        committed: list[bytes] = []
        killed = threading.Event()

        def kill_and_restart() -> None:
            own_broker.kill()
            own_broker.start()
            killed.set()

        killer = threading.Thread(target=kill_and_restart)
        number = 0
        while not killed.is_set() or number < 40:
            if number == 20:
                killer.start()
            producer.begin()
            sent = [b"%d-%d" % (number, index) for index in range(5)]
            producer.send([(place, batch_of(value)) for value in sent])
            if number % 5 == 4:
                producer.abort()
            else:
                producer.commit()
                committed += sent
            number += 1
        killer.join()
        assert values(client, [place]) == [committed]
