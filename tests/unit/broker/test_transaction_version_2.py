"""`transaction.version` 2 over the wire (KIP-890): partitions join by themselves, every end raises the epoch."""

from collections.abc import Iterator

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient, create, produced

from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.batch import iterate_batches
from tailrace.broker.records.record import Record, decode_records, encode_batch

JOINS = 12
BY_ID = 13
READ_COMMITTED = 1


@pytest.fixture
def wire(broker_factory: BrokerFactory) -> Iterator[WireClient]:
    with WireClient(broker_factory(transaction_version=2).bootstrap) as client:
        yield client


def init(wire: WireClient) -> m.InitProducerIdResponse:
    made: m.InitProducerIdResponse = wire.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest("tx", 60_000))
    return made


def send(
    wire: WireClient, topic: m.TopicProduceData, who: m.EndTxnResponse, sequence: int, value: bytes
) -> None:
    """Without waiting for the answer."""
    records = encode_batch(
        [Record(None, value, 1)],
        producer_id=who.producer_id,
        producer_epoch=who.producer_epoch,
        base_sequence=sequence,
        transactional=True,
    )
    topic.partition_data = [m.PartitionProduceData(0, bytes(records))]
    version = JOINS if topic.name else BY_ID
    wire.send(ApiKey.PRODUCE, m.ProduceRequest("tx", -1, 30_000, [topic]), version)


def end(wire: WireClient, who: m.EndTxnResponse, *, commit: bool) -> m.EndTxnResponse:
    request = m.EndTxnRequest("tx", who.producer_id, who.producer_epoch, commit)
    answer: m.EndTxnResponse = wire.ask(ApiKey.END_TXN, request, 5)
    return answer


def committed(wire: WireClient, topic_id: bytes) -> list[bytes | None]:
    wanted = m.FetchPartition(0, partition_max_bytes=1 << 20)
    request = m.FetchRequest(
        isolation_level=READ_COMMITTED, topics=[m.FetchTopic(topic_id=topic_id, partitions=[wanted])]
    )
    (partition,) = wire.ask(ApiKey.FETCH, request).responses[0].partitions
    aborted = {entry.producer_id for entry in partition.aborted_transactions or []}
    seen: list[bytes | None] = []
    for header, batch in iterate_batches(partition.records or b""):
        if header.is_control:
            aborted.discard(header.producer_id)
        elif header.producer_id not in aborted:
            seen += [record.value for record in decode_records(batch)]
    return seen


@pytest.mark.parametrize("by_id", [False, True])
def test_pipelined_requests_join_the_transaction_in_their_order(wire: WireClient, by_id: bool) -> None:
    topic_id = create(wire, "t")
    named = m.TopicProduceData(topic_id=topic_id) if by_id else m.TopicProduceData("t")
    made = init(wire)
    who = m.EndTxnResponse(producer_id=made.producer_id, producer_epoch=made.producer_epoch)
    version = BY_ID if by_id else JOINS
    for number in range(20):
        send(wire, named, who, number, b"%d" % number)
    for number in range(20):
        assert produced(wire.receive(ApiKey.PRODUCE, version)[1]) == (0, number)
    assert committed(wire, topic_id) == []
    after = end(wire, who, commit=True)
    assert (after.error_code, after.producer_epoch) == (0, who.producer_epoch + 1)
    assert committed(wire, topic_id) == [b"%d" % number for number in range(20)]


def test_a_record_that_comes_after_the_end_is_refused_and_never_in_the_next_transaction(
    wire: WireClient,
) -> None:
    topic_id = create(wire, "t")
    made = init(wire)
    first = m.EndTxnResponse(producer_id=made.producer_id, producer_epoch=made.producer_epoch)
    send(wire, m.TopicProduceData("t"), first, 0, b"aborted")
    assert produced(wire.receive(ApiKey.PRODUCE, JOINS)[1]) == (0, 0)
    second = end(wire, first, commit=False)
    send(wire, m.TopicProduceData("t"), first, 1, b"late")
    assert produced(wire.receive(ApiKey.PRODUCE, JOINS)[1])[0] == ErrorCode.INVALID_PRODUCER_EPOCH
    send(wire, m.TopicProduceData("t"), second, 0, b"next")
    assert produced(wire.receive(ApiKey.PRODUCE, JOINS)[1])[0] == 0
    assert end(wire, second, commit=True).error_code == 0
    assert committed(wire, topic_id) == [b"next"]


def test_level_2_is_told_to_clients_and_level_0_is_not(broker_factory: BrokerFactory) -> None:
    for level, told in ((0, []), (2, [("transaction.version", 2)])):
        with WireClient(broker_factory(f"level-{level}", transaction_version=level).bootstrap) as wire:
            asked = m.ApiVersionsRequest(client_software_name="wire", client_software_version="1")
            features = wire.ask(ApiKey.API_VERSIONS, asked, 4).finalized_features
            assert [
                (f.name, f.max_version_level) for f in features if f.name == "transaction.version"
            ] == told


def test_an_end_that_raises_the_epoch_needs_level_2(broker_factory: BrokerFactory) -> None:
    with WireClient(broker_factory(transaction_version=0).bootstrap) as wire:
        made = init(wire)
        who = m.EndTxnResponse(producer_id=made.producer_id, producer_epoch=made.producer_epoch)
        assert end(wire, who, commit=False).error_code == ErrorCode.UNSUPPORTED_VERSION
