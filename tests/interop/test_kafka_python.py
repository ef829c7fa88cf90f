"""kafka-python against the broker: produce, consume, groups, transactions, admin."""

import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tailrace.broker.embedded import EmbeddedBroker

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python reads its schemas the old way
    import kafka
    import kafka.admin
    import kafka.errors

pytestmark = [
    pytest.mark.usefixtures("collect_left_sockets"),
    pytest.mark.filterwarnings("ignore:read_text is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
TIMEOUT_S = 30.0


def take(reader: Any, count: int) -> list[bytes]:
    values: list[bytes] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(values) < count:
        assert time.monotonic() < deadline, f"only {len(values)} of {count} records came"
        for records in reader.poll(200).values():
            values += [record.value for record in records]
    return values


def consumer(broker: EmbeddedBroker, *topics: str, **config: Any) -> Any:
    settings = {"group_id": "g", "auto_offset_reset": "earliest", "isolation_level": "read_committed"}
    return kafka.KafkaConsumer(*topics, bootstrap_servers=broker.bootstrap, **{**settings, **config})


@pytest.fixture
def admin(broker: EmbeddedBroker) -> Iterator[Any]:
    with closing(kafka.admin.KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as client:
        yield client


@pytest.mark.parametrize("codec", [None, "gzip", "lz4", "zstd"])
def test_records_come_back_as_they_were_sent(broker: EmbeddedBroker, codec: str | None) -> None:
    with closing(kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, compression_type=codec)) as producer:
        for number in range(50):
            producer.send("t", b"%d" % number * 50)
        producer.flush(TIMEOUT_S)
    with closing(consumer(broker, "t")) as reader:
        assert take(reader, 50) == [b"%d" % number * 50 for number in range(50)]


def test_a_group_goes_on_after_its_committed_offset(broker: EmbeddedBroker) -> None:
    with closing(kafka.KafkaProducer(bootstrap_servers=broker.bootstrap)) as producer:
        for number in range(10):
            producer.send("t", b"%d" % number)
        producer.flush(TIMEOUT_S)
    with closing(consumer(broker, "t", enable_auto_commit=False, max_poll_records=4)) as reader:
        assert take(reader, 4) == [b"0", b"1", b"2", b"3"]
        reader.commit()
    broker.kill()
    broker.restart()
    with closing(consumer(broker, "t")) as reader:
        assert take(reader, 6) == [b"%d" % number for number in range(4, 10)]


def test_transactions_commit_and_abort(broker: EmbeddedBroker) -> None:
    with closing(kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="tx")) as producer:
        producer.init_transactions()
        for number in range(6):
            producer.begin_transaction()
            producer.send("t", b"%d" % number)
            producer.flush(TIMEOUT_S)
            if number % 2:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
    with closing(consumer(broker, "t")) as reader:
        assert take(reader, 3) == [b"0", b"2", b"4"]


def test_offsets_are_found_by_time(broker: EmbeddedBroker) -> None:
    start = int(time.time() * 1000)
    with closing(kafka.KafkaProducer(bootstrap_servers=broker.bootstrap)) as producer:
        for number in range(5):
            producer.send("t", b"x", timestamp_ms=start + 10 * number).get(TIMEOUT_S)
    place = kafka.TopicPartition("t", 0)
    with closing(consumer(broker)) as reader:
        found = reader.offsets_for_times({place: start + 15})[place]
        assert (found.offset, found.timestamp) == (2, start + 20)
        assert reader.offsets_for_times({place: start + 1000})[place] is None
        assert (reader.beginning_offsets([place])[place], reader.end_offsets([place])[place]) == (0, 5)


def test_topics_are_made_described_and_deleted(admin: Any) -> None:
    admin.create_topics([kafka.admin.NewTopic("t", 2, 1, topic_configs={"retention.ms": "1234"})])
    with pytest.raises(kafka.errors.TopicAlreadyExistsError):
        admin.create_topics([kafka.admin.NewTopic("t", 2, 1)])
    assert "t" in admin.list_topics()
    admin.delete_topics(["t"])
    assert "t" not in admin.list_topics()
