"""WriteTxnMarkers over the wire: what `kafka-transactions.sh abort` does to a transaction that hangs (KIP-664)."""

from typing import Any

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient, batch, begin, create, fetch_request, fetched, produce_request

from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m

READ_COMMITTED = 1
Places = list[tuple[str, int, int]]


def marker(
    who: m.InitProducerIdResponse, *partitions: int, topic: str = "t", **fields: Any
) -> m.WritableTxnMarker:
    return m.WritableTxnMarker(
        **{"producer_id": who.producer_id, "producer_epoch": who.producer_epoch, **fields},
        topics=[m.WritableTxnMarkerTopic(topic, list(partitions))],
    )


def write(wire: WireClient, *markers: m.WritableTxnMarker, version: int | None = None) -> dict[int, Places]:
    """Topic, partition and error by producer."""
    answer = wire.ask(ApiKey.WRITE_TXN_MARKERS, m.WriteTxnMarkersRequest(list(markers)), version)
    return {
        result.producer_id: [
            (topic.name, part.partition_index, part.error_code)
            for topic in result.topics
            for part in topic.partitions
        ]
        for result in answer.markers
    }


def error_of(wire: WireClient, asked: m.WritableTxnMarker) -> ErrorCode:
    """Of a marker for one partition."""
    (((_, _, error),),) = write(wire, asked).values()
    return ErrorCode(error)


def read_committed(wire: WireClient, topic_id: bytes) -> tuple[list[bytes | None], list[int]]:
    """Values that a reader gets without any wait, and the producers whose records it has to drop."""
    asked = fetch_request(topic_id)
    asked.isolation_level = READ_COMMITTED
    response = wire.ask(ApiKey.FETCH, asked)
    aborted = response.responses[0].partitions[0].aborted_transactions or []
    return fetched(response), [entry.producer_id for entry in aborted]


def start_offset(wire: WireClient) -> int:
    """Where the open transaction of the only producer begins; -1: none is open."""
    asked = m.DescribeProducersRequest([m.DescribeProducersTopic("t", [0])])
    ((producer,),) = (
        part.active_producers for part in wire.ask(ApiKey.DESCRIBE_PRODUCERS, asked).topics[0].partitions
    )
    offset: int = producer.current_txn_start_offset
    return offset


@pytest.mark.parametrize("version", [1, 2])
def test_readers_are_let_past_an_aborted_transaction_as_soon_as_its_abort_is_answered(
    wire: WireClient, version: int
) -> None:
    topic_id = create(wire, "t")
    who = begin(wire, "tx", "t")
    wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"behind it")))
    assert read_committed(wire, topic_id) == ([], [])
    assert write(wire, marker(who, 0), version=version) == {who.producer_id: [("t", 0, 0)]}
    values, aborted = read_committed(wire, topic_id)  # only what is durable is shown: the marker is
    assert (values[:2], aborted) == ([b"in transaction", b"behind it"], [who.producer_id])
    assert start_offset(wire) == -1


def test_an_aborted_transaction_stays_aborted_over_a_kill(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    with WireClient(broker.bootstrap) as wire:
        topic_id = create(wire, "t")
        who = begin(wire, "tx", "t")
        assert error_of(wire, marker(who, 0)) is ErrorCode.NONE
    broker.kill()
    with WireClient(broker.start().bootstrap) as wire:
        assert start_offset(wire) == -1
        assert read_committed(wire, topic_id)[1] == [who.producer_id]


def test_a_marker_that_commits_makes_the_records_readable(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    who = begin(wire, "tx", "t")
    assert error_of(wire, marker(who, 0, transaction_result=True)) is ErrorCode.NONE
    values, aborted = read_committed(wire, topic_id)
    assert (values[0], aborted) == (b"in transaction", [])


def test_each_partition_is_answered_for_itself_and_producers_are_kept_apart(wire: WireClient) -> None:
    create(wire, "t", 2)
    who = begin(wire, "tx", "t")
    other = m.InitProducerIdResponse(producer_id=who.producer_id + 1, producer_epoch=0)
    nowhere = marker(who, 0, topic="nowhere")
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert write(wire, marker(who, 0, 1, 7), marker(other, 1), marker(other), nowhere) == {
        who.producer_id: [("nowhere", 0, unknown), ("t", 0, 0), ("t", 1, 0), ("t", 7, unknown)],
        other.producer_id: [("t", 1, 0)],
    }
    assert write(wire) == {}


def test_a_marker_of_an_older_epoch_or_of_an_older_coordinator_is_refused(wire: WireClient) -> None:
    create(wire, "t")
    begin(wire, "tx", "t")
    while (who := wire.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest("tx", 60_000))).error_code:
        assert who.error_code == ErrorCode.CONCURRENT_TRANSACTIONS  # the first one is being aborted
    epoch = who.producer_epoch
    assert error_of(wire, marker(who, 0, producer_epoch=epoch, coordinator_epoch=9)) is ErrorCode.NONE
    older = marker(who, 0, producer_epoch=epoch - 1, coordinator_epoch=9)
    assert error_of(wire, older) is ErrorCode.INVALID_PRODUCER_EPOCH
    fenced = marker(who, 0, producer_epoch=epoch, coordinator_epoch=8)
    assert error_of(wire, fenced) is ErrorCode.TRANSACTION_COORDINATOR_FENCED


def test_a_marker_of_transaction_version_2_has_to_raise_the_epoch(wire: WireClient) -> None:
    create(wire, "t")
    who = begin(wire, "tx", "t")
    same = marker(who, 0, transaction_version=2)
    assert error_of(wire, same) is ErrorCode.INVALID_PRODUCER_EPOCH
    raised = marker(who, 0, transaction_version=2, producer_epoch=who.producer_epoch + 1)
    assert error_of(wire, raised) is ErrorCode.NONE
    assert error_of(wire, raised) is ErrorCode.NONE  # a retry


@pytest.mark.parametrize("nobody", [{"producer_id": -1}, {"producer_epoch": -1}])
def test_a_marker_of_nobody_is_not_written(wire: WireClient, nobody: dict[str, Any]) -> None:
    create(wire, "t")
    who = begin(wire, "tx", "t")
    assert error_of(wire, marker(who, 0, **nobody)) is ErrorCode.UNKNOWN_SERVER_ERROR
    assert start_offset(wire) == 0


def test_the_offsets_of_an_aborted_transaction_are_dropped(wire: WireClient) -> None:
    create(wire, "t")
    who = begin(wire, "tx", "t")
    identity = (who.producer_id, who.producer_epoch)
    wire.ask(ApiKey.ADD_OFFSETS_TO_TXN, m.AddOffsetsToTxnRequest("tx", *identity, "g"))
    part = m.TxnOffsetCommitRequestPartition(0, 5, committed_metadata="")
    topics = [m.TxnOffsetCommitRequestTopic("t", [part])]
    sent = m.TxnOffsetCommitRequest("tx", "g", *identity, topics=topics)
    assert wire.ask(ApiKey.TXN_OFFSET_COMMIT, sent).topics[0].partitions[0].error_code == 0
    asked = m.OffsetFetchRequest(
        groups=[m.OffsetFetchRequestGroup("g", topics=[m.OffsetFetchRequestTopics("t", partition_indexes=[0])])],
        require_stable=True,
    )  # fmt: skip

    def told() -> tuple[int, int]:
        (found,) = wire.ask(ApiKey.OFFSET_FETCH, asked, 8).groups[0].topics[0].partitions
        return found.error_code, found.committed_offset

    assert told()[0] == ErrorCode.UNSTABLE_OFFSET_COMMIT
    described = wire.ask(ApiKey.DESCRIBE_TRANSACTIONS, m.DescribeTransactionsRequest(["tx"]))
    offsets, _ = described.transaction_states[0].topics
    assert offsets.topic == "__consumer_offsets"
    assert error_of(wire, marker(who, *offsets.partitions, topic=offsets.topic)) is ErrorCode.NONE
    assert told() == (0, -1)
