"""Fetches of more than a broker reads at once: what a client gets, slow as it may be."""

import ssl
import struct
from pathlib import Path

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates
from tests.fixtures.wire import WireClient, batch, create, produce_request, produced

from tailrace.broker.broker import Broker
from tailrace.broker.config import BrokerConfig
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.handlers import RequestContext
from tailrace.broker.handlers.fetch import fetch
from tailrace.broker.log.disk import LocalDisk
from tailrace.broker.log.partition import sync_all
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.batch import iterate_batches
from tailrace.broker.records.record import decode_records

PARTITIONS = 40
MIB = 1 << 20


def filled(wire: WireClient) -> bytes:
    """A topic with partitions of 400 KB each in two batches."""
    made = create(wire, "t", PARTITIONS)
    for partition in range(PARTITIONS):
        for half in (b"first", b"second"):
            records = batch(b"%s of %d" % (half, partition), size=200_000)
            assert (
                produced(wire.ask(ApiKey.PRODUCE, produce_request("t", records, partition=partition)))[0] == 0
            )
    return made


@pytest.fixture
def topic_id(wire: WireClient) -> bytes:
    return filled(wire)


def of_all(topic_id: bytes, *, isolation_level: int = 0) -> m.FetchRequest:
    partitions = [m.FetchPartition(p, partition_max_bytes=MIB) for p in range(PARTITIONS)]
    return m.FetchRequest(
        max_bytes=50 * MIB,
        isolation_level=isolation_level,
        topics=[m.FetchTopic(topic_id=topic_id, partitions=partitions)],
    )


def check_whole(answer: m.FetchResponse) -> None:
    (topic,) = answer.responses
    for partition in topic.partitions:
        assert (partition.error_code, partition.high_watermark) == (0, 2)
        values = [r.value for _, b in iterate_batches(partition.records or b"") for r in decode_records(b)]
        expected = [b"%s of %d" % (half, partition.partition_index) for half in (b"first", b"second")]
        assert [value and value.rstrip() for value in values] == expected
    assert len(topic.partitions) == PARTITIONS


@pytest.mark.parametrize("isolation_level", [0, 1])
def test_requests_behind_a_large_answer_are_answered_after_it(
    wire: WireClient, topic_id: bytes, isolation_level: int
) -> None:
    for _ in range(3):
        wire.send(ApiKey.FETCH, of_all(topic_id, isolation_level=isolation_level))
        wire.send(ApiKey.METADATA, m.MetadataRequest([]))
    for _ in range(3):
        check_whole(wire.receive(ApiKey.FETCH)[1])
        assert wire.receive(ApiKey.METADATA)[1].brokers


def test_a_topic_that_is_deleted_meanwhile_arrives(
    broker: EmbeddedBroker, wire: WireClient, topic_id: bytes
) -> None:
    wire.send(ApiKey.FETCH, of_all(topic_id))
    (size,) = struct.unpack(">i", wire.receive_exactly(4))
    with WireClient(broker.bootstrap) as other:
        deletion = m.DeleteTopicsRequest([m.DeleteTopicState(topic_id=topic_id)])
        assert other.ask(ApiKey.DELETE_TOPICS, deletion).responses[0].error_code == 0
    rest = wire.receive_exactly(size)
    assert size > PARTITIONS * 400_000 and rest.count(b"second of ") == PARTITIONS


def test_damage_beyond_what_is_read_at_once_hangs_up_and_is_told_to_who_comes_again(
    broker: EmbeddedBroker, wire: WireClient, topic_id: bytes
) -> None:
    last = PARTITIONS - 1
    path = broker.config.data_dir / f"t-{last}" / f"{0:020d}.log"
    with path.open("r+b") as file:
        first = int.from_bytes(file.read(12)[8:], "big") + 12
        file.seek(first + 8)
        file.write(b"\x7f")  # a length of two gigabytes
    wire.send(ApiKey.FETCH, of_all(topic_id))
    with pytest.raises(ConnectionError):
        wire.receive(ApiKey.FETCH)
    assert "a request for what cannot be read" in broker.log_path.read_text()
    with WireClient(broker.bootstrap) as again:
        (topic,) = again.ask(ApiKey.FETCH, of_all(topic_id)).responses
        assert [p.error_code for p in topic.partitions] == [0] * last + [ErrorCode.KAFKA_STORAGE_ERROR]


def test_a_large_answer_goes_over_tls_as_well(
    broker_factory: BrokerFactory, certificates: Certificates
) -> None:
    broker = broker_factory(
        listeners=("SSL://127.0.0.1:0",), ssl_keystore_location=str(certificates.folder / "broker.pem")
    )
    with WireClient(broker.bootstrap) as wire:
        wire.begin_tls(ssl.create_default_context(cafile=certificates.authority))
        topic_id = filled(wire)
        for _ in range(2):
            check_whole(wire.ask(ApiKey.FETCH, of_all(topic_id)))


def test_what_does_not_fit_ends_the_answer_and_is_not_read_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(BrokerConfig(tmp_path))
    broker.topics.create("t", PARTITIONS, {})
    for partition in range(PARTITIONS):
        log = broker.logs.get("t", partition)
        log.append(batch(b"x", size=200_000), now_ms=1_000, leader_epoch=0)
        sync_all(log)
    read = [0]
    real = LocalDisk.read

    def counting(disk: LocalDisk, fd: int, size: int, at: int) -> bytes:
        data = real(disk, fd, size, at)
        read[0] += len(data)
        return data

    monkeypatch.setattr(LocalDisk, "read", counting)
    wanted = [m.FetchPartition(p, partition_max_bytes=MIB) for p in range(PARTITIONS)]
    asked = m.FetchRequest(max_bytes=300_000, topics=[m.FetchTopic("t", partitions=wanted)])
    context = RequestContext(broker, 12, "client", "/127.0.0.1")
    for taken in range(3):
        answer = fetch(context, asked)
        assert isinstance(answer, m.FetchResponse)
        sizes = [len(p.records or b"") for p in answer.responses[0].partitions]
        assert [size > 200_000 for size in sizes] == [p == taken for p in range(PARTITIONS)]
        assert sum(sizes) == sizes[taken]
        wanted[taken].fetch_offset = 1
    assert read[0] < 3 * 400_000
    for log in broker.logs.partitions():
        log.close()
