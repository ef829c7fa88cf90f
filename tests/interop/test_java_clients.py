"""The Java client, through Kafka's own tools: produce, consume, copy in transactions, admin; and over SIGKILLs."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka as ck
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.interop.kafka_tools import KafkaTools, events
from tests.interop.ledger import Ledger

from tailrace.broker.embedded import EmbeddedBroker

TOOLS = "org.apache.kafka.tools"
TIMEOUT_S = 60.0
pytestmark = [pytest.mark.java, pytest.mark.slow]


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def consume(tools: KafkaTools, broker: EmbeddedBroker, topic: str, count: int, config: Path) -> list[bytes]:
    """`count` committed values of a topic, read by a Java consumer in a group."""
    config.write_text("isolation.level=read_committed\n")
    printed = tools.run(
        f"{TOOLS}.VerifiableConsumer",
        *("--bootstrap-server", broker.bootstrap, "--topic", topic, "--group-id", f"java-{topic}"),
        *("--max-messages", str(count), "--verbose", "--reset-policy", "earliest"),
        *("--command-config", str(config)),
    )
    return [
        event["value"].encode()
        for event in events(iter(printed.splitlines()))
        if event["name"] == "record_data"
    ]


def test_what_java_was_told_is_there_after_sigkills(
    broker: EmbeddedBroker, kafka_tools: KafkaTools, tmp_path: Path
) -> None:
    count, ledger = 3_000, Ledger()
    config = tmp_path / "producer.properties"
    config.write_text("retries=2147483647\nenable.idempotence=true\n")  # the tool's own default is no retry
    arguments = ("--topic", "t", "--max-messages", str(count), "--throughput", "600", "--acks", "-1")
    producer = kafka_tools.start(
        f"{TOOLS}.VerifiableProducer",
        *("--bootstrap-server", broker.bootstrap, "--command-config", str(config), *arguments),
    )
    with running(producer):
        assert producer.stdout is not None
        for event in events(producer.stdout):
            assert event["name"] != "producer_send_error", event
            if event["name"] == "producer_send_success":
                ledger.acknowledged.add(event["value"].encode())
                if len(ledger.acknowledged) in (count // 4, count // 2):
                    broker.kill()
                    broker.restart()
        assert producer.wait(TIMEOUT_S) == 0
    assert len(ledger.acknowledged) == count
    ledger.check(consume(kafka_tools, broker, "t", count, tmp_path / "consumer.properties"))


@pytest.mark.parametrize("transaction_version", [0, 2])
def test_a_java_consume_process_produce_loop_is_exactly_once_over_sigkills(
    broker_factory: BrokerFactory, kafka_tools: KafkaTools, tmp_path: Path, transaction_version: int
) -> None:
    broker, count = broker_factory(transaction_version=transaction_version), 2_000
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(count):
        producer.produce("in", b"%d" % number)
    assert producer.flush(TIMEOUT_S) == 0
    kills = 2
    for _ in range(
        10
    ):  # a copier whose broker dies may give up; its successor goes on from the group's offset
        copier = kafka_tools.start(
            f"{TOOLS}.TransactionalMessageCopier",
            *("--broker-list", broker.bootstrap, "--input-topic", "in", "--input-partition", "0"),
            *("--output-topic", "out", "--transactional-id", "copier", "--consumer-group", "copiers"),
            *("--transaction-size", "100", "--enable-random-aborts", "--group-mode", "--use-group-metadata"),
        )
        with running(copier):
            assert copier.stdout is not None
            transactions = 0
            for event in events(copier.stdout):
                transactions += "totalProcessed" in event
                if kills and transactions == 4:
                    kills -= 1
                    broker.kill()
                    broker.restart()
            if copier.wait(TIMEOUT_S) == 0 and not kills:
                break
    else:
        pytest.fail("the copier never finished")
    ledger = Ledger({b"%d" % number for number in range(count)})
    ledger.check(consume(kafka_tools, broker, "out", count, tmp_path / "consumer.properties"))


def test_kafkas_admin_tools_work(broker: EmbeddedBroker, kafka_tools: KafkaTools) -> None:
    server = ("--bootstrap-server", broker.bootstrap)
    topic = f"{TOOLS}.TopicCommand"
    created = kafka_tools.run(
        topic, *server, "--create", "--topic", "t", "--partitions", "2", "--config", "cleanup.policy=compact"
    )
    assert "Created topic t" in created
    described = kafka_tools.run(topic, *server, "--describe", "--topic", "t")
    assert re.search(
        r"PartitionCount: 2\s+ReplicationFactor: 1\s+Configs: .*cleanup.policy=compact", described
    )
    performance = kafka_tools.run(
        f"{TOOLS}.ProducerPerformance",
        *("--topic", "p", "--num-records", "20000", "--record-size", "100", "--throughput", "-1"),
        *("--command-property", f"bootstrap.servers={broker.bootstrap}", "compression.type=zstd"),
    )
    assert "20000 records sent" in performance
    offsets = kafka_tools.run(f"{TOOLS}.GetOffsetShell", *server, "--topic", "p")
    assert "p:0:20000" in offsets
    groups = f"{TOOLS}.consumer.group.ConsumerGroupCommand"
    reset = ("--reset-offsets", "--to-earliest", "--topic", "p", "--group", "g", "--execute")
    assert re.search(r"g\s+p\s+0\s+0", kafka_tools.run(groups, *server, *reset))
    assert re.search(
        r"g\s+p\s+0\s+0\s+20000\s+20000", kafka_tools.run(groups, *server, "--describe", "--group", "g")
    )
    config = ("--alter", "--entity-type", "topics", "--entity-name", "t", "--add-config", "retention.ms=5000")
    assert "Completed updating config" in kafka_tools.run("kafka.admin.ConfigCommand", *server, *config)
    assert "retention.ms=5000" in kafka_tools.run(topic, *server, "--describe", "--topic", "t")


def test_kafkas_own_log_reader_accepts_our_files(broker: EmbeddedBroker, kafka_tools: KafkaTools) -> None:
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "tx"})
    producer.init_transactions(TIMEOUT_S)
    for number in range(4):
        producer.begin_transaction()
        for part in range(200):
            producer.produce("t", b"%d" % part, headers=[("h", b"v")])
        producer.flush(TIMEOUT_S)
        if number == 1:
            producer.abort_transaction(TIMEOUT_S)
        else:
            producer.commit_transaction(TIMEOUT_S)
    consumer = ck.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g"})
    consumer.subscribe(["t"])
    while not consumer.assignment():
        consumer.poll(0.1)
    consumer.commit(offsets=[ck.TopicPartition("t", 0, 7, metadata="note")], asynchronous=False)
    consumer.close()
    assert broker.stop() == 0

    def dump(partition: str, suffix: str, *options: str) -> str:
        *_, path = sorted(broker.config.data_dir.rglob(f"{partition}/*{suffix}"))
        return kafka_tools.run(f"{TOOLS}.DumpLogSegments", "--files", str(path), *options)

    batches = dump("t-0", ".log", "--deep-iteration")
    assert batches.count("endTxnMarker: COMMIT") == 3
    assert batches.count("endTxnMarker: ABORT") == 1
    assert batches.count("headerKeys: [h]") == 800
    assert "isvalid: false" not in batches
    assert "isvalid: true" in batches
    for index in (".index", ".timeindex"):
        assert "passed sanity check" in dump("t-0", index, "--index-sanity-check")
    assert re.search(r"producerId: \d+ firstOffset: \d+ lastOffset: \d+", dump("t-0", ".txnindex"))
    assert re.search(r"producerId: \d+ producerEpoch: \d+", dump("t-0", ".snapshot"))
    offsets = dump("__consumer_offsets-0", ".log", "--offsets-decoder")
    assert '"group":"g","topic":"t","partition":0' in offsets
    assert '"offset":7' in offsets
    assert '"metadata":"note' in offsets
    states = dump("__transaction_state-0", ".log", "--transaction-log-decoder")
    assert '"transactionalId":"tx"' in states
    assert '"transactionStatus":4' in states or "CompleteCommit" in states
