"""What the benchmark's writer sends is what a broker stores and readers read."""

from collections.abc import Iterator

import confluent_kafka as ck
import pytest
from tests.benchmarks.broker.loads import fresh_topic
from tests.benchmarks.broker.plain_writer import Mode, PlainWriter, full_batch, value_of
from tests.interop.kafka_tools import KafkaTools

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.records.batch import finish_batch
from tailrace.broker.records.record import decode_records

LOADS = pytest.mark.parametrize(
    ("size", "batch_bytes", "per_batch"),
    [(1024, 16_384, 15), (1024, 1_000_000, 967), (100, 16_384, 148), (100, 1_000_000, 9_082)],
)
MODES = pytest.mark.parametrize("mode", Mode)
TRANSACTION_BYTES = 100_000


def write(broker: EmbeddedBroker, mode: Mode, count: int, size: int, batch_bytes: int) -> tuple[str, int]:
    """Write to a new topic; its name, and how many records are there."""
    topic = fresh_topic(broker.bootstrap)
    writer = PlainWriter(broker.bootstrap, topic, mode, transaction_bytes=TRANSACTION_BYTES)
    writer.prepare(count, size, batch_bytes)
    writer.write()
    writer.close()
    return topic, writer.records


def committed_values(broker: EmbeddedBroker, topic: str) -> Iterator[bytes | None]:
    """What librdkafka reads up to the end of the committed part."""
    reader = ck.Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "check.crcs": True,
        }
    )
    try:
        reader.assign([ck.TopicPartition(topic, 0, 0)])
        while (message := reader.poll(30.0)) is not None:
            error = message.error()
            if error is not None:
                assert error.code() == ck.KafkaError._PARTITION_EOF, error
                return
            yield message.value()
        raise AssertionError("neither a record nor the end came")
    finally:
        reader.close()


@LOADS
def test_a_batch_is_full_and_holds_what_it_says(size: int, batch_bytes: int, per_batch: int) -> None:
    batch, number = full_batch(size, batch_bytes)
    assert number == per_batch and batch_bytes - size - 20 < len(batch) <= batch_bytes
    finish_batch(batch, -1, -1, -1, transactional=False)
    records = decode_records(batch)
    assert [record.value for record in records] == [value_of(n, size) for n in range(per_batch)]
    assert [record.offset for record in records] == list(range(per_batch))
    assert {len(record.value or b"") for record in records} == {size}


@MODES
@LOADS
def test_a_client_reads_all_that_was_written(
    broker: EmbeddedBroker, mode: Mode, size: int, batch_bytes: int, per_batch: int
) -> None:
    topic, count = write(broker, mode, per_batch * 12, size, batch_bytes)
    assert count == per_batch * 12
    assert list(committed_values(broker, topic)) == [value_of(n, size) for n in range(per_batch)] * 12


def test_a_refused_batch_is_not_counted_as_written(broker: EmbeddedBroker) -> None:
    writer = PlainWriter(broker.bootstrap, fresh_topic(broker.bootstrap), Mode.IDEMPOTENT)
    writer.prepare(180, 1024, 16_384)
    writer.write()
    try:
        with pytest.raises(AssertionError, match=f"error_code={int(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER)}"):
            writer.write()  # its first sequences are too old to be known as sent again
    finally:
        writer.close()


@pytest.mark.java
@MODES
def test_kafkas_log_reader_finds_every_record_valid(
    broker: EmbeddedBroker, kafka_tools: KafkaTools, mode: Mode
) -> None:
    topic, count = write(broker, mode, 300, 1024, 16_384)
    broker.stop()  # which cuts the room off that a log is given ahead
    (segment,) = broker.config.data_dir.rglob(f"{topic}-0/*.log")
    dump = kafka_tools.run(
        "org.apache.kafka.tools.DumpLogSegments", "--files", str(segment), "--deep-iteration"
    )
    assert dump.count("| offset: ") == count + dump.count("endTxnMarker: COMMIT")
    batches = count // 15
    markers = -(-batches // (TRANSACTION_BYTES // (15 * 1024))) if mode is Mode.TRANSACTIONAL else 0
    assert dump.count("isvalid: true") == batches + markers and "isvalid: false" not in dump
    assert dump.count("endTxnMarker: COMMIT") == markers
    assert ("baseSequence: 285 lastSequence: 299" in dump) is (mode is not Mode.PLAIN)
