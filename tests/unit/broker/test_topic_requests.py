"""Topics, records and offsets as clients administer and read them, over the wire."""

from collections.abc import Callable

from tests.fixtures.wire import WireClient, batch, create, fetch_request, fetched, produce_request, produced

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import NULL_UUID, ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.record import Record, encode_batch


def creatable(name: str, partitions: int = 1, replicas: int = 1, **configs: str | None) -> m.CreatableTopic:
    entries = [m.CreatableTopicConfig(key.replace("_", "."), value) for key, value in configs.items()]
    return m.CreatableTopic(name, partitions, replicas, [], entries)


def created(
    wire: WireClient, *topics: m.CreatableTopic, validate_only: bool = False
) -> list[m.CreatableTopicResult]:
    found: list[m.CreatableTopicResult] = wire.ask(
        ApiKey.CREATE_TOPICS, m.CreateTopicsRequest(list(topics), validate_only=validate_only)
    ).topics
    return found


def test_records_are_produced_and_fetched_by_topic_id(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    topics = [
        m.TopicProduceData("", topic_id, [m.PartitionProduceData(0, batch(b"a"))]),
        m.TopicProduceData("", b"x" * 16, [m.PartitionProduceData(0, batch(b"b"))]),
    ]
    response = wire.ask(ApiKey.PRODUCE, m.ProduceRequest(None, -1, 1000, topics), 13)
    known, unknown = response.responses
    assert (known.topic_id, known.partition_responses[0].error_code) == (topic_id, 0)
    assert unknown.partition_responses[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
    for version in (13, 17, 18):
        assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id), version)) == [b"a"]


def test_every_produce_version_by_name_is_served(wire: WireClient) -> None:
    create(wire, "t")
    for offset, version in enumerate(range(3, 13)):
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a")), version)) == (0, offset)
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("no", batch(b"a")), version))[0] == 3


def test_refused_records_are_named_one_by_one(wire: WireClient) -> None:
    create(wire, "t", cleanup_policy="compact")
    sent = bytes(encode_batch([Record(b"k", b"v", 1), Record(None, b"v", 1), Record(None, b"v", 1)]))
    response = wire.ask(ApiKey.PRODUCE, produce_request("t", sent))
    (partition,) = response.responses[0].partition_responses
    assert partition.error_code == ErrorCode.INVALID_RECORD
    assert [error.batch_index for error in partition.record_errors] == [1, 2]
    assert "without a key" in partition.record_errors[0].batch_index_error_message
    assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", b"")))[0] == ErrorCode.INVALID_RECORD


def test_aborted_transactions_are_null_unless_only_committed_records_are_wanted(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    asked = fetch_request(topic_id)
    for level, expected in ((0, None), (1, [])):
        asked.isolation_level = level
        (partition,) = wire.ask(ApiKey.FETCH, asked).responses[0].partitions
        assert partition.aborted_transactions == expected


def test_partitions_are_answered_in_the_order_asked_and_share_the_limit(wire: WireClient) -> None:
    ids = [create(wire, name, 2) for name in ("b", "a")]
    for name in ("a", "b"):
        for partition in (0, 1):
            wire.ask(ApiKey.PRODUCE, produce_request(name, batch(b"x", size=1000), partition=partition))
    wanted = [
        m.FetchTopic("", i, [m.FetchPartition(p, partition_max_bytes=1 << 20) for p in (1, 0)]) for i in ids
    ]
    request = m.FetchRequest(min_bytes=1, max_bytes=2500, topics=wanted)
    answers = wire.ask(ApiKey.FETCH, request).responses
    assert [topic.topic_id for topic in answers] == ids
    assert [[p.partition_index for p in topic.partitions] for topic in answers] == [[1, 0], [1, 0]]
    assert [bool(p.records) for topic in answers for p in topic.partitions] == [True, True, False, False]


def test_a_topic_is_only_checked_when_that_is_asked(wire: WireClient) -> None:
    (checked,) = created(wire, creatable("t", -1, -1, retention_ms="5"), validate_only=True)
    assert (checked.error_code, checked.topic_id, checked.num_partitions) == (0, NULL_UUID, 1)
    assert wire.ask(ApiKey.METADATA, m.MetadataRequest([])).topics == []
    (made,) = created(wire, creatable("t", -1, -1, retention_ms="5"))
    assert made.topic_id != NULL_UUID
    for result in (checked, made):
        assert result.configs is not None
        configs = {entry.name: entry for entry in result.configs}
        assert (configs["retention.ms"].value, configs["retention.ms"].config_source) == ("5", 1)
        assert (configs["min.insync.replicas"].value, configs["min.insync.replicas"].read_only) == ("1", True)
        assert configs["cleanup.policy"].config_source == 5


def test_a_wrong_creation_says_what_is_wrong(wire: WireClient) -> None:
    results = created(
        wire,
        creatable("a.b"),
        creatable("a/b"),
        creatable("zero", 0),
        creatable("three", 1, 3),
        creatable("soon", retention_ms="soon"),
        creatable("odd", odd_config="1"),
        creatable("null", retention_ms=None),
        creatable("isr", min_insync_replicas="2"),
        creatable("twice"),
        creatable("twice"),
        m.CreatableTopic("both", 2, 1, [m.CreatableReplicaAssignment(0, [1])], []),
        m.CreatableTopic("far", -1, -1, [m.CreatableReplicaAssignment(0, [9])], []),
    )
    assert [result.error_code for result in results] == [
        ErrorCode.NONE,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.INVALID_PARTITIONS,
        ErrorCode.INVALID_REPLICATION_FACTOR,
        *[ErrorCode.INVALID_CONFIG] * 4,
        *[ErrorCode.INVALID_REQUEST] * 3,
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    ]
    assert "retention.ms=soon" in (results[4].error_message or "")
    assert "odd.config" in (results[5].error_message or "")
    assert "min.insync.replicas=2" in (results[7].error_message or "")
    (colliding,) = created(wire, creatable("a_b"))
    assert colliding.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_topics_are_deleted_by_name_or_id(wire: WireClient) -> None:
    by_id = create(wire, "a")
    create(wire, "b")
    asked = [
        m.DeleteTopicState(None, by_id),
        m.DeleteTopicState("b"),
        m.DeleteTopicState("missing"),
        m.DeleteTopicState(None, b"x" * 16),
        m.DeleteTopicState("__consumer_offsets"),
        m.DeleteTopicState("twice"),
        m.DeleteTopicState("twice"),
    ]
    responses = wire.ask(ApiKey.DELETE_TOPICS, m.DeleteTopicsRequest(asked)).responses
    assert [r.error_code for r in responses] == [
        0,
        0,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_REQUEST,
    ]
    assert (responses[0].name, responses[0].topic_id) == ("a", by_id)
    names = [topic.name for topic in wire.ask(ApiKey.METADATA, m.MetadataRequest(None)).topics]
    assert names == ["__consumer_offsets", "__transaction_state"]


def test_partitions_are_added_only_and_every_topic_is_answered(wire: WireClient) -> None:
    create(wire, "t", 2)
    new = m.CreatePartitionsAssignment([1])
    for topic, code in (
        (m.CreatePartitionsTopic("t", 3, None), 0),
        (m.CreatePartitionsTopic("t", 3, None), ErrorCode.INVALID_PARTITIONS),
        (m.CreatePartitionsTopic("t", 5, [new]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (m.CreatePartitionsTopic("t", 4, [new]), 0),
        (m.CreatePartitionsTopic("missing", 4, None), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ):
        response = wire.ask(ApiKey.CREATE_PARTITIONS, m.CreatePartitionsRequest([topic]))
        assert [(r.name, r.error_code) for r in response.results] == [(topic.name, code)]
    checked = m.CreatePartitionsRequest([m.CreatePartitionsTopic("t", 9, None)], validate_only=True)
    assert wire.ask(ApiKey.CREATE_PARTITIONS, checked).results[0].error_code == 0
    (topic,) = wire.ask(ApiKey.METADATA, m.MetadataRequest([m.MetadataRequestTopic(name="t")])).topics
    assert len(topic.partitions) == 4


def test_records_are_deleted_up_to_an_offset(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    create(wire, "compacted", cleanup_policy="compact")
    for value in (b"a", b"b", b"c"):
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(value)))

    def deleted(topic: str, offset: int) -> tuple[int, int]:
        wanted = m.DeleteRecordsTopic(topic, [m.DeleteRecordsPartition(0, offset)])
        response = wire.ask(ApiKey.DELETE_RECORDS, m.DeleteRecordsRequest([wanted]))
        (partition,) = response.topics[0].partitions
        return partition.error_code, partition.low_watermark

    assert deleted("t", 1) == (0, 1)
    assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, 1))) == [b"b", b"c"]
    assert deleted("t", 4) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
    assert deleted("t", -1) == (0, 3)
    assert deleted("compacted", 0) == (ErrorCode.POLICY_VIOLATION, -1)
    assert deleted("missing", 0) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
    assert deleted("__consumer_offsets", 0) == (ErrorCode.INVALID_TOPIC_EXCEPTION, -1)


def test_a_log_has_no_tiers(wire: WireClient) -> None:
    create(wire, "t")
    wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a", b"b")))

    def found(timestamp: int, version: int) -> tuple[int, int]:
        wanted = m.ListOffsetsTopic("t", [m.ListOffsetsPartition(0, timestamp=timestamp)])
        response = wire.ask(ApiKey.LIST_OFFSETS, m.ListOffsetsRequest(-1, 0, [wanted]), version)
        (partition,) = response.topics[0].partitions
        return partition.error_code, partition.offset

    assert found(-4, 8) == (0, 0)
    assert [found(-5, version) for version in (8, 9)] == [(ErrorCode.UNSUPPORTED_VERSION, -1), (0, -1)]
    assert [found(-6, version) for version in (10, 11)] == [(ErrorCode.UNSUPPORTED_VERSION, -1), (0, -1)]
    assert found(-7, 11) == (ErrorCode.UNSUPPORTED_VERSION, -1)


def test_an_epoch_that_a_client_was_told_is_known_though_nothing_was_written_in_it(
    broker: EmbeddedBroker,
) -> None:
    """Else a consumer that reads at the end takes a restart for a truncated log, and resets."""
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t")
        create(wire, "empty")
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a")))
    epochs = []
    for _ in range(3):
        with WireClient(broker.bootstrap) as wire:
            ask = epoch_end(wire)
            wanted = m.ListOffsetsTopic("t", [m.ListOffsetsPartition(0, timestamp=-1)])
            listed = wire.ask(ApiKey.LIST_OFFSETS, m.ListOffsetsRequest(-1, 0, [wanted])).topics[0]
            epochs.append(listed.partitions[0].leader_epoch)
            assert ask("t", epochs[-1]) == (epochs[-1], 1)
            assert ask("empty", epochs[-1]) == (epochs[-1], 0)
            for earlier in epochs:
                assert ask("t", earlier)[1] == 1
                assert ask("empty", earlier) == (earlier, 0)
            assert ask("t", epochs[-1] + 1) == (-1, -1)
        broker.kill()
        broker.restart()
    assert epochs == sorted(set(epochs))


def epoch_end(wire: WireClient) -> Callable[[str, int], tuple[int, int]]:
    def ask(topic: str, epoch: int) -> tuple[int, int]:
        wanted = m.OffsetForLeaderTopic(topic, [m.OffsetForLeaderPartition(0, leader_epoch=epoch)])
        response = wire.ask(ApiKey.OFFSET_FOR_LEADER_EPOCH, m.OffsetForLeaderEpochRequest(-1, [wanted]))
        (partition,) = response.topics[0].partitions
        assert partition.error_code == 0
        return partition.leader_epoch, partition.end_offset

    return ask


def test_the_size_of_a_log_is_that_of_its_files(broker: EmbeddedBroker, wire: WireClient) -> None:
    create(wire, "t", 2)
    for _ in range(5):
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=1000)))
    wanted = m.DescribableLogDirTopic("t", [0, 1, 9])
    (described,) = wire.ask(ApiKey.DESCRIBE_LOG_DIRS, m.DescribeLogDirsRequest([wanted])).results
    on_disk = {
        partition: sum(path.stat().st_size for path in broker.config.data_dir.glob(f"t-{partition}/*.log"))
        for partition in (0, 1)
    }
    (topic,) = described.topics
    assert {p.partition_index: p.partition_size for p in topic.partitions} == on_disk
    assert on_disk[0] > 5000 and on_disk[1] == 0
    assert 0 < described.usable_bytes <= described.total_bytes
    (everything,) = wire.ask(ApiKey.DESCRIBE_LOG_DIRS, m.DescribeLogDirsRequest(None)).results
    assert {t.name for t in everything.topics} == {"t", "__consumer_offsets", "__transaction_state"}


def test_a_client_software_name_of_the_wrong_form_is_refused(wire: WireClient) -> None:
    for name, version, code in (
        ("tailrace-test", "1.0", 0),
        ("", "1.0", ErrorCode.INVALID_REQUEST),
        ("a b", "1.0", ErrorCode.INVALID_REQUEST),
        ("name", "-1", ErrorCode.INVALID_REQUEST),
    ):
        for api_version in (3, 4):
            asked = m.ApiVersionsRequest(name, version)
            assert wire.ask(ApiKey.API_VERSIONS, asked, api_version).error_code == code


def test_the_cluster_is_one_broker_and_has_no_controller_endpoint(wire: WireClient) -> None:
    for endpoint_type, code in (
        (1, 0),
        (2, ErrorCode.MISMATCHED_ENDPOINT_TYPE),
        (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
    ):
        asked = m.DescribeClusterRequest(endpoint_type=endpoint_type)
        response = wire.ask(ApiKey.DESCRIBE_CLUSTER, asked)
        assert (response.error_code, len(response.brokers)) == (code, int(not code))
