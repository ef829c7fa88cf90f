"""What the broker answers to single requests, over the wire."""

import time
from typing import Any

from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import (
    WireClient,
    batch,
    begin,
    create,
    fetch_request,
    fetched,
    produce_request,
    produced,
)

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import (
    NULL_UUID,
    ApiKey,
    ErrorCode,
)
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.record import Record, encode_batch

READ_COMMITTED = 1


def test_one_refused_partition_does_not_hold_the_others(wire: WireClient) -> None:
    create(wire, "t", 3)
    broken = bytearray(batch(b"b"))
    broken[-1] ^= 1
    data = [
        m.PartitionProduceData(0, batch(b"a")),
        m.PartitionProduceData(1, bytes(broken)),
        m.PartitionProduceData(2, batch(b"c") + batch(b"d")),
        m.PartitionProduceData(3, batch(b"e")),
    ]
    topics = [
        m.TopicProduceData("t", partition_data=data),
        m.TopicProduceData("__consumer_offsets", partition_data=[m.PartitionProduceData(0, batch(b"x"))]),
    ]
    response = wire.ask(ApiKey.PRODUCE, m.ProduceRequest(None, -1, 1000, topics))
    assert [p.error_code for topic in response.responses for p in topic.partition_responses] == [
        ErrorCode.NONE,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.INVALID_RECORD,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
    ]


def test_a_transactional_batch_without_an_open_transaction_is_refused(wire: WireClient) -> None:
    create(wire, "t")
    made = wire.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest("tx", 60_000))
    records = bytes(
        encode_batch(
            [Record(None, b"x", 1)],
            producer_id=made.producer_id,
            producer_epoch=made.producer_epoch,
            base_sequence=0,
            transactional=True,
        )
    )
    request = produce_request("t", records)
    for transactional_id, version, code in (
        ("tx", 11, ErrorCode.TRANSACTION_ABORTABLE),
        ("tx", 10, ErrorCode.INVALID_TXN_STATE),
        ("other", 11, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (None, 11, ErrorCode.INVALID_TXN_STATE),
    ):
        request.transactional_id = transactional_id
        assert produced(wire.ask(ApiKey.PRODUCE, request, version))[0] == code


def test_an_abandoned_transaction_is_aborted_when_its_time_is_over(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    made = begin(wire, "tx", "t", timeout_ms=300)
    wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"after")))
    asked = fetch_request(topic_id, max_wait_ms=20_000)
    asked.isolation_level = READ_COMMITTED
    response = wire.ask(ApiKey.FETCH, asked)
    assert fetched(response)[:2] == [b"in transaction", b"after"]
    (aborted,) = response.responses[0].partitions[0].aborted_transactions
    assert (aborted.producer_id, aborted.first_offset) == (made.producer_id, 0)
    ended = m.EndTxnRequest("tx", made.producer_id, made.producer_epoch, committed=True)
    assert wire.ask(ApiKey.END_TXN, ended).error_code == ErrorCode.PRODUCER_FENCED
    assert wire.ask(ApiKey.END_TXN, ended, 1).error_code == ErrorCode.INVALID_PRODUCER_EPOCH


def test_open_transactions_and_their_producers_can_be_seen(wire: WireClient) -> None:
    create(wire, "t")
    made = begin(wire, "tx", "t")
    wire.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest("idle", 1_000))
    topics = [m.DescribeProducersTopic("t", [0, 1])]
    seen, missing = (
        wire.ask(ApiKey.DESCRIBE_PRODUCERS, m.DescribeProducersRequest(topics)).topics[0].partitions
    )
    (producer,) = seen.active_producers
    assert (producer.producer_id, producer.current_txn_start_offset, producer.last_sequence) == (
        made.producer_id,
        0,
        0,
    )
    assert missing.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    described = wire.ask(ApiKey.DESCRIBE_TRANSACTIONS, m.DescribeTransactionsRequest(["tx", "idle", "no"]))
    ongoing, idle, unknown = described.transaction_states
    assert (ongoing.transaction_state, ongoing.transaction_timeout_ms) == ("Ongoing", 60_000)
    assert [(topic.topic, topic.partitions) for topic in ongoing.topics] == [("t", [0])]
    assert (idle.transaction_state, idle.topics) == ("Empty", [])
    assert unknown.error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND

    def listed(**filters: Any) -> list[str]:
        response = wire.ask(ApiKey.LIST_TRANSACTIONS, m.ListTransactionsRequest(**filters))
        return sorted(entry.transactional_id for entry in response.transaction_states)

    assert listed() == ["idle", "tx"]
    assert listed(state_filters=["Ongoing"]) == ["tx"]
    assert listed(producer_id_filters=[made.producer_id]) == ["tx"]
    assert listed(transactional_id_pattern="i.*") == ["idle"]
    assert listed(duration_filter=10**9) == []


def test_a_waiting_fetch_is_answered_as_soon_as_there_is_data(
    broker: EmbeddedBroker, wire: WireClient
) -> None:
    topic_id = create(wire, "t")
    with WireClient(broker.bootstrap) as reader:
        reader.send(ApiKey.FETCH, fetch_request(topic_id, max_wait_ms=20_000))
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a")))
        started = time.monotonic()
        assert fetched(reader.receive(ApiKey.FETCH)[1]) == [b"a"]
        assert time.monotonic() - started < 10


def test_a_fetch_waits_for_min_bytes_and_no_longer_than_it_may(
    broker: EmbeddedBroker, wire: WireClient
) -> None:
    topic_id = create(wire, "t")
    with WireClient(broker.bootstrap) as reader:
        reader.send(ApiKey.FETCH, fetch_request(topic_id, max_wait_ms=20_000, min_bytes=2_000))
        for _ in range(2):
            wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a", size=1_000)))
        assert len(fetched(reader.receive(ApiKey.FETCH)[1])) == 2
        started = time.monotonic()
        asked = fetch_request(topic_id, max_wait_ms=200, min_bytes=1 << 20)
        assert len(fetched(reader.ask(ApiKey.FETCH, asked))) == 2
        assert 0.2 <= time.monotonic() - started < 10


def test_a_fetch_gets_at_least_one_batch_and_whole_batches_only(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    for values in ((b"a", b"b", b"c"), (b"d",), (b"e",)):
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(*values)))
    assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, 1, max_bytes=1))) == [b"a", b"b", b"c"]
    assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, 3, max_bytes=100))) == [b"d"]
    assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, 5))) == []


def test_fetch_errors_are_per_partition(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    asked = fetch_request(topic_id, 1, max_wait_ms=10_000)
    stranger = m.FetchTopic(topic_id=b"x" * 16, partitions=[m.FetchPartition(0, partition_max_bytes=100)])
    asked.topics.append(stranger)
    asked.topics[0].partitions.append(m.FetchPartition(9, partition_max_bytes=100))
    newer = m.FetchPartition(0, current_leader_epoch=99, partition_max_bytes=100)
    asked.topics[0].partitions.append(newer)
    response = wire.ask(ApiKey.FETCH, asked)
    assert [p.error_code for topic in response.responses for p in topic.partitions] == [
        ErrorCode.OFFSET_OUT_OF_RANGE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.UNKNOWN_TOPIC_ID,
    ]


def test_list_offsets_finds_beginning_end_time_and_greatest_time(wire: WireClient) -> None:
    create(wire, "t")
    for timestamp in (1_000, 3_000, 2_000):
        records = bytes(encode_batch([Record(None, b"x", timestamp), Record(None, b"y", timestamp + 1)]))
        wire.ask(ApiKey.PRODUCE, produce_request("t", records))

    def offset_of(timestamp: int, version: int = 11) -> tuple[int, int, int]:
        wanted = m.ListOffsetsTopic("t", [m.ListOffsetsPartition(0, timestamp=timestamp)])
        response = wire.ask(ApiKey.LIST_OFFSETS, m.ListOffsetsRequest(-1, 0, [wanted]), version)
        (partition,) = response.topics[0].partitions
        return partition.error_code, partition.offset, partition.timestamp

    assert [offset_of(t) for t in (-2, -1, -3)] == [(0, 0, -1), (0, 6, -1), (0, 3, 3_001)]
    assert offset_of(1_001) == (0, 1, 1_001)
    assert offset_of(1_002) == (0, 2, 3_000)
    assert offset_of(9_000) == (0, -1, -1)
    assert offset_of(-3, 6)[0] == ErrorCode.UNSUPPORTED_VERSION


def test_metadata_makes_topics_only_where_that_is_allowed(broker_factory: BrokerFactory) -> None:
    with WireClient(broker_factory("open", default_partitions=4).bootstrap) as wire:
        asked = m.MetadataRequest([m.MetadataRequestTopic(name="new")], allow_auto_topic_creation=False)
        (missing,) = wire.ask(ApiKey.METADATA, asked).topics
        assert missing.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        asked.allow_auto_topic_creation = True
        (made,) = wire.ask(ApiKey.METADATA, asked).topics
        assert (made.error_code, len(made.partitions)) == (0, 4)
        by_id = m.MetadataRequest([m.MetadataRequestTopic(made.topic_id, None)])
        assert wire.ask(ApiKey.METADATA, by_id).topics[0].name == "new"
        (bad,) = wire.ask(ApiKey.METADATA, m.MetadataRequest([m.MetadataRequestTopic(name="a/b")])).topics
        assert bad.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    with WireClient(broker_factory("closed", auto_create_topics=False).bootstrap) as wire:
        asked = m.MetadataRequest([m.MetadataRequestTopic(name="new")])
        assert wire.ask(ApiKey.METADATA, asked).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_metadata_lists_all_topics_or_none(wire: WireClient) -> None:
    create(wire, "t")
    everything = {topic.name: topic for topic in wire.ask(ApiKey.METADATA, m.MetadataRequest(None)).topics}
    assert set(everything) == {"t", "__consumer_offsets", "__transaction_state"}
    assert [everything[n].is_internal for n in ("t", "__consumer_offsets")] == [False, True]
    assert everything["t"].topic_id != NULL_UUID
    assert wire.ask(ApiKey.METADATA, m.MetadataRequest([])).topics == []
    assert len(wire.ask(ApiKey.METADATA, m.MetadataRequest([]), 0).topics) == 3


def test_topic_partitions_are_described_in_pages(wire: WireClient) -> None:
    for name in ("a", "b"):
        create(wire, name, 3)
    wanted = [m.DescribeTopicPartitionsTopic(name) for name in ("b", "a", "c")]
    seen: list[tuple[str, list[int], int]] = []
    cursor = None
    for _ in range(3):
        page = wire.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, m.DescribeTopicPartitionsRequest(wanted, 2, cursor))
        seen += [(t.name, [p.partition_index for p in t.partitions], t.error_code) for t in page.topics]
        cursor = page.next_cursor and m.DescribeTopicPartitionsCursor(
            page.next_cursor.topic_name, page.next_cursor.partition_index
        )
    assert seen == [
        ("a", [0, 1], 0),
        ("a", [2], 0),
        ("b", [0], 0),
        ("b", [1, 2], 0),
        ("c", [], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    assert cursor is None
