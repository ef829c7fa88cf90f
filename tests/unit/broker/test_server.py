"""The broker's sockets and handlers, request by request, against a real process."""

import asyncio
import errno
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.broker import BrokerFactory, WireClient

from tailrace.broker.config import BrokerConfig
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.handlers import HANDLERS
from tailrace.broker.log import StorageFailure
from tailrace.broker.log.sync import SyncRound
from tailrace.broker.protocol import (
    API_VERSIONS,
    NULL_UUID,
    ApiKey,
    ErrorCode,
    decode_request,
    encode_request,
)
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.batch import iterate_batches
from tailrace.broker.records.record import Record, decode_records, encode_batch
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.changes.status import read_status

READ_COMMITTED = 1


def batch(*values: bytes, size: int = 0) -> bytes:
    return bytes(encode_batch([Record(None, value.ljust(size), 1_000) for value in values]))


def create(wire: WireClient, name: str, partitions: int = 1, **configs: str) -> bytes:
    """Create a topic that keeps records of any age, and return its id."""
    configs.setdefault("retention_ms", "-1")
    topic = m.CreatableTopic(
        name,
        partitions,
        1,
        [],
        [m.CreatableTopicConfig(key.replace("_", "."), v) for key, v in configs.items()],
    )
    (made,) = wire.ask(ApiKey.CREATE_TOPICS, m.CreateTopicsRequest([topic])).topics
    assert (made.error_code, made.error_message) == (0, None)
    topic_id: bytes = made.topic_id
    return topic_id


def produce_request(topic: str, records: bytes, *, acks: int = -1, partition: int = 0) -> m.ProduceRequest:
    data = m.PartitionProduceData(partition, records)
    return m.ProduceRequest(None, acks, 30_000, [m.TopicProduceData(topic, partition_data=[data])])


def produced(response: m.ProduceResponse) -> tuple[int, int]:
    (topic,) = response.responses
    (partition,) = topic.partition_responses
    return partition.error_code, partition.base_offset


def fetch_request(
    topic_id: bytes, offset: int = 0, *, max_wait_ms: int = 0, min_bytes: int = 1, max_bytes: int = 1 << 20
) -> m.FetchRequest:
    wanted = m.FetchPartition(0, fetch_offset=offset, partition_max_bytes=max_bytes)
    return m.FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        topics=[m.FetchTopic(topic_id=topic_id, partitions=[wanted])],
    )


def fetched(response: m.FetchResponse) -> list[bytes | None]:
    (topic,) = response.responses
    (partition,) = topic.partitions
    assert partition.error_code == 0
    return [r.value for _, b in iterate_batches(partition.records or b"") for r in decode_records(b)]


def test_every_advertised_api_has_a_handler_and_no_other_is_advertised(wire: WireClient) -> None:
    response = wire.ask(ApiKey.API_VERSIONS, m.ApiVersionsRequest("test", "1"))
    advertised = {entry.api_key: (entry.min_version, entry.max_version) for entry in response.api_keys}
    assert advertised == {int(key): API_VERSIONS[key] for key in HANDLERS}
    assert advertised[ApiKey.PRODUCE][0] == 0  # librdkafka compresses only then
    assert response.finalized_features == []  # so that clients keep to the classic transaction protocol


def test_a_too_new_api_versions_request_is_answered_in_version_0(wire: WireClient) -> None:
    wire.send_bytes(struct.pack(">ihhih", 10, 18, 99, 7, -1))
    response = wire.receive(ApiKey.API_VERSIONS, 0)[1]
    assert response.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert len(response.api_keys) == len(HANDLERS)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(struct.pack(">i", -1), id="negative size"),
        pytest.param(struct.pack(">i", 2**31 - 1), id="larger than the limit"),
        pytest.param(struct.pack(">ihhih", 10, 3, 12, 1, -1), id="cut short"),
        pytest.param(struct.pack(">ihhih", 10, 4711, 0, 1, -1), id="unknown api"),
        pytest.param(struct.pack(">ihhih", 10, 0, 2, 1, -1), id="produce version 2"),
        pytest.param(struct.pack(">ihhih", 10, 17, 1, 1, -1), id="an api without handler"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
    ],
)
def test_a_frame_that_is_no_request_closes_its_connection_only(broker: EmbeddedBroker, raw: bytes) -> None:
    with WireClient(broker.bootstrap) as healthy, WireClient(broker.bootstrap) as broken:
        broken.send_bytes(raw)
        assert broken.is_closed_by_broker()
        assert healthy.ask(ApiKey.METADATA, m.MetadataRequest(None)).brokers


def test_a_request_may_arrive_byte_by_byte_and_many_at_once(wire: WireClient) -> None:
    raw = b"".join(
        b"".join(encode_request(ApiKey.METADATA, 12, number, "c", m.MetadataRequest([])))
        for number in range(3)
    )
    for byte in raw[:-40]:
        wire.send_bytes(bytes([byte]))
    wire.send_bytes(raw[-40:])
    assert [wire.receive(ApiKey.METADATA, 12)[0] for _ in range(3)] == [0, 1, 2]


def test_answers_leave_in_request_order_even_when_an_early_one_has_to_wait(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    waiting = wire.send(ApiKey.FETCH, fetch_request(topic_id, max_wait_ms=400))
    metadata = wire.send(ApiKey.METADATA, m.MetadataRequest([]))
    writes = [wire.send(ApiKey.PRODUCE, produce_request("t", batch(b"%d" % i))) for i in range(5)]
    assert wire.receive(ApiKey.FETCH)[0] == waiting
    assert wire.receive(ApiKey.METADATA)[0] == metadata
    answers = [wire.receive(ApiKey.PRODUCE) for _ in writes]
    assert [number for number, _ in answers] == writes
    assert [produced(answer) for _, answer in answers] == [(0, i) for i in range(5)]


def test_pipelined_produce_requests_keep_their_bytes(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    values = [b"%06d" % i * 2_000 for i in range(60)]
    for value in values:
        wire.send(ApiKey.PRODUCE, produce_request("t", batch(value)))
    for _ in values:
        assert produced(wire.receive(ApiKey.PRODUCE)[1])[0] == 0
    assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, max_bytes=1 << 24))) == values


def test_a_client_that_does_not_read_is_not_read_from(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(max_in_flight_bytes=1 << 16)
    with WireClient(broker.bootstrap) as wire:
        topic_id = create(wire, "t")
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=900_000)))
        for _ in range(40):
            wire.send(ApiKey.FETCH, fetch_request(topic_id))
        assert all(len(fetched(wire.receive(ApiKey.FETCH)[1])) == 1 for _ in range(40))


def test_acks_0_is_not_answered_and_an_error_under_it_hangs_up(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    wire.send(ApiKey.PRODUCE, produce_request("t", batch(b"a"), acks=0))
    assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, max_wait_ms=5_000))) == [b"a"]
    wire.send(ApiKey.PRODUCE, produce_request("missing", batch(b"a"), acks=0))
    assert wire.is_closed_by_broker()


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


def begin(
    wire: WireClient, transactional_id: str, topic: str, timeout_ms: int = 60_000
) -> m.InitProducerIdResponse:
    """Open a transaction with one record in partition 0 of `topic`."""
    made: m.InitProducerIdResponse = wire.ask(
        ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest(transactional_id, timeout_ms)
    )
    identity = (transactional_id, made.producer_id, made.producer_epoch)
    added = wire.ask(
        ApiKey.ADD_PARTITIONS_TO_TXN,
        m.AddPartitionsToTxnRequest([], *identity, [m.AddPartitionsToTxnTopic(topic, [0])]),
    )
    assert added.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code == 0
    records = encode_batch(
        [Record(None, b"in transaction", 1)],
        producer_id=made.producer_id,
        producer_epoch=made.producer_epoch,
        base_sequence=0,
        transactional=True,
    )
    request = produce_request(topic, bytes(records))
    request.transactional_id = transactional_id
    assert produced(wire.ask(ApiKey.PRODUCE, request)) == (0, 0)
    return made


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


def test_a_failed_fsync_ends_the_broker_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: SyncRound) -> None:
        raise OSError(errno.EIO, "Input/output error", "the log")

    async def story() -> None:
        server = BrokerServer(BrokerConfig(tmp_path))
        host, port = await server.start()
        serving = asyncio.create_task(server.run_until_stopped())
        with WireClient(f"{host}:{port}") as wire:
            await asyncio.to_thread(create, wire, "t")
            monkeypatch.setattr(SyncRound, "run", fail)
            wire.send(ApiKey.PRODUCE, produce_request("t", batch(b"a")))
            with pytest.raises(StorageFailure, match="Input/output error"):
                await serving
            with pytest.raises(ConnectionError):
                wire.receive_bytes()
        assert read_status(tmp_path)["broker"]["state"] == "failed"

    asyncio.run(story())


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


def test_an_idle_connection_is_closed(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(idle_timeout_s=1.0)
    with WireClient(broker.bootstrap) as wire:
        assert wire.is_closed_by_broker()


def test_a_request_above_the_limit_closes_the_connection(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(request_max_bytes=10_000)
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t")
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=9_000))))[0] == 0
        wire.send(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=10_000)))
        assert wire.is_closed_by_broker()


def test_the_advertised_address_is_told_to_clients(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(advertised_host="broker.example", advertised_port=1234, node_id=7)
    with WireClient(broker.bootstrap) as wire:
        (node,) = wire.ask(ApiKey.METADATA, m.MetadataRequest([])).brokers
        assert (node.node_id, node.host, node.port) == (7, "broker.example", 1234)
        (found,) = wire.ask(
            ApiKey.FIND_COORDINATOR, m.FindCoordinatorRequest(key_type=0, coordinator_keys=["g"])
        ).coordinators
        assert (found.node_id, found.host, found.port) == (7, "broker.example", 1234)


def test_sigterm_ends_cleanly_answers_what_waits_and_keeps_the_leader_epoch(broker: EmbeddedBroker) -> None:
    with WireClient(broker.bootstrap) as wire:
        topic_id = create(wire, "t")
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a")))
        wire.send(ApiKey.FETCH, fetch_request(topic_id, 1, max_wait_ms=60_000))
        assert broker.stop() == 0
        assert fetched(wire.receive(ApiKey.FETCH)[1]) == []
    epochs = []
    for end in (broker.stop, broker.kill, broker.kill):
        broker.restart()
        with WireClient(broker.bootstrap) as wire:
            topic = wire.ask(ApiKey.METADATA, m.MetadataRequest([m.MetadataRequestTopic(name="t")])).topics[0]
            epochs.append(topic.partitions[0].leader_epoch)
            assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id))) == [b"a"]
        end()
    assert epochs[0] == epochs[1] < epochs[2]


def test_a_taken_port_is_one_sentence_and_exit_code_1(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with pytest.raises(TailraceError, match=r"another process uses this port.*--listen") as caught:
        EmbeddedBroker(tmp_path / "second", port=broker.config.port).start()
    assert "exited with code 1" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_data_directory_has_one_broker(broker: EmbeddedBroker) -> None:
    with pytest.raises(TailraceError, match="exited with code") as caught:
        EmbeddedBroker(broker.config.data_dir).start()
    assert "Traceback" not in str(caught.value)


def test_a_listener_beyond_loopback_must_be_asked_for(tmp_path: Path) -> None:
    for host in ("192.0.2.1", "example.org", "2001:db8::1"):
        with pytest.raises(ConfigError, match="neither TLS nor authentication"):
            BrokerConfig(tmp_path, host=host)
        assert BrokerConfig(tmp_path, host=host, insecure=True).host == host
    with pytest.raises(ConfigError, match="advertised host"):
        BrokerConfig(tmp_path, host="0.0.0.0", insecure=True)
    assert BrokerConfig(tmp_path, host="0.0.0.0", insecure=True, advertised_host="here").insecure
    assert BrokerConfig(tmp_path, host="localhost").host == "localhost"


@pytest.mark.parametrize(
    "options", [{"port": 70_000}, {"default_partitions": 0}, {"group_min_session_timeout_ms": 10**9}]
)
def test_an_option_out_of_range_is_a_config_error(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        BrokerConfig(tmp_path, **options)  # type: ignore[arg-type]


def test_the_status_file_tells_what_goes_on(broker: EmbeddedBroker, wire: WireClient) -> None:
    create(wire, "t")
    wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a")))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status = read_status(broker.config.data_dir)["broker"]
        if status["produce_requests"]:
            break
    assert (status["state"], status["connections"], status["topics"]) == ("running", 1, 1)
    assert status["bytes_in"] > 0
    assert status["pid"] == broker.pid
    assert broker.stop() == 0
    assert read_status(broker.config.data_dir)["broker"]["state"] == "stopped"


def test_the_address_of_a_request_is_what_the_frame_says() -> None:
    raw = b"".join(encode_request(ApiKey.METADATA, 12, 5, "me", m.MetadataRequest([])))
    header, _ = decode_request(raw[4:])
    assert (header.correlation_id, header.client_id) == (5, "me")


def test_a_listener_takes_a_fixed_port(broker_factory: BrokerFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert broker_factory(port=port).bootstrap == f"127.0.0.1:{port}"
