"""A delayed EndTxn arrives inside the producer's next transaction (Jepsen's attack on Bufstream and Kafka).

`TAILRACE_END_TXN_ATTACKS=10000` for the long run, `TAILRACE_END_TXN_SEED` to repeat one.
"""

import os
from dataclasses import dataclass
from random import Random

import confluent_kafka as ck
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient, create, produce_request, produced

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.record import Record, encode_batch

ATTACKS = int(os.environ.get("TAILRACE_END_TXN_ATTACKS", "200"))
SEED = int(os.environ.get("TAILRACE_END_TXN_SEED", "1"))
PARTITIONS = 3


@dataclass
class Outcome:
    """What a client wanted of one transaction, and whether an answer told it that this went wrong."""

    values: list[bytes]
    commit: bool
    told: bool


class Producer:
    """A transactional producer that takes its own time over each request."""

    def __init__(self, wire: WireClient, name: str) -> None:
        self.name = name
        made = wire.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest(name, 60_000))
        assert made.error_code == 0
        self.id, self.epoch = made.producer_id, made.producer_epoch
        self._sequences = [0] * PARTITIONS

    def begin(self, wire: WireClient) -> bool:
        topics = [m.AddPartitionsToTxnTopic("t", list(range(PARTITIONS)))]
        request = m.AddPartitionsToTxnRequest([], self.name, self.id, self.epoch, topics)
        (answer,) = wire.ask(ApiKey.ADD_PARTITIONS_TO_TXN, request).results_by_topic_v3_and_below
        return not any(p.partition_error_code for p in answer.results_by_partition)

    def produce(self, wire: WireClient, partition: int, value: bytes) -> bool:
        records = encode_batch(
            [Record(None, value, 1)],
            producer_id=self.id,
            producer_epoch=self.epoch,
            base_sequence=self._sequences[partition],
            transactional=True,
        )
        self._sequences[partition] += 1
        request = produce_request("t", bytes(records), partition=partition)
        request.transactional_id = self.name
        return produced(wire.ask(ApiKey.PRODUCE, request, 11))[0] == 0

    def end_request(self, commit: bool) -> m.EndTxnRequest:
        return m.EndTxnRequest(self.name, self.id, self.epoch, commit)

    def end(self, wire: WireClient, request: m.EndTxnRequest) -> bool:
        return not wire.ask(ApiKey.END_TXN, request, 4).error_code


def attack(broker: EmbeddedBroker, number: int) -> list[Outcome]:
    rng = Random(f"{SEED}/{number}")
    with WireClient(broker.bootstrap) as old, WireClient(broker.bootstrap) as new:
        producer = Producer(old, f"tx-{number}")
        first = Outcome(
            [b"%d.1.%d" % (number, i) for i in range(rng.randint(1, 3))], rng.random() < 0.5, False
        )
        assert producer.begin(old)
        for value in first.values:
            assert producer.produce(old, rng.randrange(PARTITIONS), value)
        late = producer.end_request(first.commit)  # does not arrive; the client asks again elsewhere
        assert producer.end(new, late)
        second = Outcome(
            [b"%d.2.%d" % (number, i) for i in range(rng.randint(2, 6))], rng.random() < 0.5, False
        )
        arrives = rng.randint(0, len(second.values))
        assert producer.begin(new)
        for index, value in enumerate(second.values):
            if index == arrives:
                old.ask(ApiKey.END_TXN, late, 4)
            second.told |= not producer.produce(new, rng.randrange(PARTITIONS), value)
        if arrives == len(second.values):
            old.ask(ApiKey.END_TXN, late, 4)
        second.told |= not producer.end(new, producer.end_request(second.commit))
    return [first, second]


def committed(broker: EmbeddedBroker) -> set[bytes]:
    settings = {"bootstrap.servers": broker.bootstrap, "group.id": "r", "enable.partition.eof": True}
    consumer = ck.Consumer({**settings, "isolation.level": "read_committed"})
    consumer.assign([ck.TopicPartition("t", p, 0) for p in range(PARTITIONS)])
    values: set[bytes] = set()
    ends = 0
    while ends < PARTITIONS:
        message = consumer.poll(20)
        assert message is not None, "the reader is stuck"
        if message.error():
            ends += 1
        else:
            value = message.value()
            assert isinstance(value, bytes)
            values.add(value)
    consumer.close()
    return values


@pytest.mark.timeout(0)
def test_a_late_end_tears_no_classic_transaction_silently(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t", PARTITIONS)
    outcomes = [o for n in range(ATTACKS) for o in attack(broker, n)]
    read = committed(broker)
    assert any(outcome.told for outcome in outcomes)
    for outcome in outcomes:
        if not outcome.told:
            assert read & set(outcome.values) == (set(outcome.values) if outcome.commit else set()), outcome
