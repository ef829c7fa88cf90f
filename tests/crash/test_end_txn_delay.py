"""A delayed EndTxn arrives inside the producer's next transaction (Jepsen's attack on Bufstream and Kafka).

With `transaction.version` 2 the same goes for records and offsets that come late.

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
from tailrace.broker.protocol import ApiKey, ErrorCode
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


class ClassicProducer:
    """A transactional producer that takes its own time over each request."""

    produce_version = 11
    end_version = 4

    def __init__(self, wire: WireClient, name: str) -> None:
        self.name = name
        made = wire.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest(name, 60_000))
        assert made.error_code == 0
        self.id, self.epoch = made.producer_id, made.producer_epoch
        self.sequences = [0] * PARTITIONS

    def begin(self, wire: WireClient) -> bool:
        """Whether the partitions are in the new transaction."""
        topics = [m.AddPartitionsToTxnTopic("t", list(range(PARTITIONS)))]
        request = m.AddPartitionsToTxnRequest([], self.name, self.id, self.epoch, topics)
        (answer,) = wire.ask(ApiKey.ADD_PARTITIONS_TO_TXN, request).results_by_topic_v3_and_below
        return not any(p.partition_error_code for p in answer.results_by_partition)

    def produce(self, wire: WireClient, partition: int, value: bytes) -> bool:
        """Whether the record was taken."""
        request = self.record_request(partition, value)
        return produced(wire.ask(ApiKey.PRODUCE, request, self.produce_version))[0] == 0

    def record_request(self, partition: int, value: bytes) -> m.ProduceRequest:
        """The next record of the open transaction, not sent yet."""
        records = encode_batch(
            [Record(None, value, 1)],
            producer_id=self.id,
            producer_epoch=self.epoch,
            base_sequence=self.sequences[partition],
            transactional=True,
        )
        self.sequences[partition] += 1
        request = produce_request("t", bytes(records), partition=partition)
        request.transactional_id = self.name
        return request

    def end_request(self, commit: bool) -> m.EndTxnRequest:
        """The end of the open transaction, not sent yet."""
        return m.EndTxnRequest(self.name, self.id, self.epoch, commit)

    def end(self, wire: WireClient, request: m.EndTxnRequest) -> bool:
        """Whether the broker says that it did so."""
        return not self.ask_end(wire, request).error_code

    def ask_end(self, wire: WireClient, request: m.EndTxnRequest) -> m.EndTxnResponse:
        """The broker's answer to an end that comes whenever it comes."""
        answer: m.EndTxnResponse = wire.ask(ApiKey.END_TXN, request, self.end_version)
        return answer


class BumpingProducer(ClassicProducer):
    """The same by the second protocol: partitions join with their records, each end raises the epoch."""

    produce_version = 12
    end_version = 5

    def begin(self, wire: WireClient) -> bool:
        """Costs no request."""
        return True

    def end(self, wire: WireClient, request: m.EndTxnRequest) -> bool:
        """Go on under the epoch that the answer names."""
        answer = self.ask_end(wire, request)
        if not answer.error_code:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch
            self.sequences = [0] * PARTITIONS
        return not answer.error_code

    def offset_request(self, group: str) -> m.TxnOffsetCommitRequest:
        """An offset of a group in the open transaction, not sent yet."""
        partitions = [m.TxnOffsetCommitRequestPartition(0, 1_000, committed_metadata="")]
        topics = [m.TxnOffsetCommitRequestTopic("t", partitions)]
        return m.TxnOffsetCommitRequest(self.name, group, self.id, self.epoch, topics=topics)


def attack(broker: EmbeddedBroker, number: int, kind: type[ClassicProducer]) -> list[Outcome]:
    rng = Random(f"{SEED}/{number}")
    with WireClient(broker.bootstrap) as old, WireClient(broker.bootstrap) as new:
        producer = kind(old, f"tx-{number}")
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
                producer.ask_end(old, late)
            second.told |= not producer.produce(new, rng.randrange(PARTITIONS), value)
        if arrives == len(second.values):
            producer.ask_end(old, late)
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


def outcomes_of(broker: EmbeddedBroker, kind: type[ClassicProducer]) -> list[Outcome]:
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t", PARTITIONS)
    return [outcome for number in range(ATTACKS) for outcome in attack(broker, number, kind)]


def torn(outcomes: list[Outcome], read: set[bytes]) -> list[Outcome]:
    """Those that are not in the log as their client wanted them."""
    return [o for o in outcomes if read & set(o.values) != (set(o.values) if o.commit else set())]


@pytest.mark.timeout(0)
def test_a_late_end_tears_no_classic_transaction_silently(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    outcomes = outcomes_of(broker, ClassicProducer)
    assert any(outcome.told for outcome in outcomes)
    assert torn([outcome for outcome in outcomes if not outcome.told], committed(broker)) == []


@pytest.mark.timeout(0)
def test_a_late_end_touches_no_transaction_of_version_2(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(transaction_version=2)
    outcomes = outcomes_of(broker, BumpingProducer)
    assert [outcome for outcome in outcomes if outcome.told] == []
    assert torn(outcomes, committed(broker)) == []


def attack_with_strays(broker: EmbeddedBroker, number: int) -> set[bytes]:
    """A record and an offset of a transaction come in the middle of the next one; what must be committed."""
    rng = Random(f"{SEED}/{number}")
    with WireClient(broker.bootstrap) as old, WireClient(broker.bootstrap) as new:
        producer = BumpingProducer(old, f"tx-{number}")
        first, second = {b"%d.1" % number}, {b"%d.2.%d" % (number, i) for i in range(rng.randint(2, 4))}
        assert producer.produce(old, 0, *first)
        record = producer.record_request(rng.randrange(PARTITIONS), b"%d.stray" % number)
        offset = producer.offset_request(f"group-{number}")
        commit = rng.random() < 0.5
        assert producer.end(new, producer.end_request(commit))
        arrive = rng.randint(0, len(second))
        for index, value in enumerate([*second, b""]):
            if index == arrive:
                refused = old.ask(ApiKey.PRODUCE, record, 12), old.ask(ApiKey.TXN_OFFSET_COMMIT, offset, 5)
                assert produced(refused[0])[0] == ErrorCode.INVALID_PRODUCER_EPOCH
                assert refused[1].topics[0].partitions[0].error_code == ErrorCode.INVALID_PRODUCER_EPOCH
            if value:
                assert producer.produce(new, rng.randrange(PARTITIONS), value)
        assert producer.end(new, producer.end_request(True))
        asked = m.OffsetFetchRequest(f"group-{number}", [m.OffsetFetchRequestTopic("t", [0])])
        (topic,) = new.ask(ApiKey.OFFSET_FETCH, asked, 7).topics
        assert topic.partitions[0].committed_offset == -1
    return second | (first if commit else set())


@pytest.mark.timeout(0)
def test_late_records_and_offsets_touch_no_transaction_of_version_2(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(transaction_version=2)
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t", PARTITIONS)
    expected = set().union(*(attack_with_strays(broker, number) for number in range(ATTACKS)))
    assert committed(broker) == expected
