"""The broker dies at each crash point on the path of transactions and offsets; the outcome is exact."""

import threading
import time
from pathlib import Path

import confluent_kafka as ck
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.interop.ledger import Ledger, Progress
from tests.interop.writers import QUIET, TIMEOUT_S, TOPIC, BackgroundWriter, end_transaction, read_all

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.service import CRASH_POINTS

pytestmark = pytest.mark.crash
PASS = 17  # at which pass of its point the broker dies: in the middle of the work
# start-up, rolling, retention, deletion and shutdown have their own tests
ON_THIS_PATH = [
    point
    for point in CRASH_POINTS
    if point.removeprefix("broker.log.")
    in ("before_append", "after_append", "before_marker", "after_marker", "before_fsync", "after_fsync")
    or point.count(".") == 1
]


def transactions_with_offsets(
    bootstrap: str, ledger: Ledger, progress: Progress, stop: threading.Event
) -> None:
    """Transactions over records and the offset of group `g`; after each one a plain commit of group `plain`."""
    producer = ck.Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": "tx",
            "linger.ms": 0,
            # else librdkafka waits for ever for a group coordinator that it has dropped (librdkafka#5511)
            "metadata.recovery.strategy": "none",
            **QUIET,
        }
    )
    producer.init_transactions(TIMEOUT_S)
    groups = {
        name: ck.Consumer(
            {"bootstrap.servers": bootstrap, "group.id": name, "enable.auto.commit": False, **QUIET}
        )
        for name in ("g", "plain")
    }
    number = 0
    while not stop.is_set():
        number += 1
        values = frozenset(b"%d.%d" % (number, part) for part in range(3))
        place = ck.TopicPartition(TOPIC, 0, number)
        try:
            producer.begin_transaction()
            for value in values:
                producer.produce(TOPIC, value)
            assert producer.flush(TIMEOUT_S) == 0
            producer.send_offsets_to_transaction([place], groups["g"].consumer_group_metadata(), TIMEOUT_S)
            if number % 3 == 0:
                ledger.aborted |= values
                producer.abort_transaction(TIMEOUT_S)
            else:
                end_transaction(producer)
                ledger.acknowledged |= values
                ledger.offsets["g"] = number
        except ck.KafkaException as error:
            assert error.args[0].txn_requires_abort(), error
            ledger.aborted |= values
            producer.abort_transaction(TIMEOUT_S)
        ledger.offsets["plain"] = commit(groups["plain"], place)
        progress.step()
    for consumer in groups.values():
        consumer.close()


def commit(consumer: ck.Consumer, place: ck.TopicPartition) -> int:
    """Commit an offset, again and again while the broker is away."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            consumer.commit(offsets=[place], asynchronous=False)
        except ck.KafkaException:
            assert time.monotonic() < deadline, "the offset cannot be committed"
            continue
        return int(place.offset)


def committed(broker: EmbeddedBroker, group: str) -> int:
    consumer = ck.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, **QUIET})
    try:
        (place,) = consumer.committed([ck.TopicPartition(TOPIC, 0)], TIMEOUT_S)
    finally:
        consumer.close()
    return int(place.offset)


@pytest.mark.parametrize("point", ON_THIS_PATH)
def test_records_and_offsets_are_exact_after_a_crash(
    broker_factory: BrokerFactory, tmp_path: Path, point: str
) -> None:
    mark = tmp_path / "crashed"
    broker = broker_factory(env={"TAILRACE_CRASH_AT": f"{point}:{PASS}", "TAILRACE_CRASH_MARK": str(mark)})
    background = BackgroundWriter(transactions_with_offsets, broker.bootstrap)
    try:
        assert broker.wait_for_exit(TIMEOUT_S) == -9
        assert mark.exists()
        broker.restart()
        background.progress.wait_for_more(5)
    finally:
        background.finish()
    background.ledger.check(read_all(broker))
    assert {group: committed(broker, group) for group in ("g", "plain")} == background.ledger.offsets
