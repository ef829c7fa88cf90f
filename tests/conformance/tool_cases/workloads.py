"""Kafka's system-test clients and its measuring tools: what they count must be what went in."""

import re
import signal

from tests.conformance.tool_cases.bench import TIMEOUT_S, Bench, Case, expect
from tests.conformance.tool_cases.consoles import consumed
from tests.interop.kafka_tools import events


def verifiable_producer_and_consumer(bench: Bench) -> None:
    """Every record acknowledged, every record read once by a group."""
    bench.create("verifiable", 2)
    count = ("--topic", "verifiable", "--max-messages", "5000")
    told = bench.run("VerifiableProducer", *count, "--throughput", "-1", "--acks", "-1")
    sent = [
        event["value"]
        for event in events(iter(told.splitlines()))
        if event["name"] == "producer_send_success"
    ]
    assert len(sent) == 5000
    reading = ("--group-id", "verifiers", "--reset-policy", "earliest", "--verbose")
    told = bench.run("VerifiableConsumer", *count, *reading)
    read = [event["value"] for event in events(iter(told.splitlines())) if event["name"] == "record_data"]
    assert sorted(read) == sorted(sent), f"{len(read)} read of {len(sent)}"
    expect(told, '"name":"offsets_committed".*"success":true|"success":true.*"name":"offsets_committed"')


def transactional_message_copier(bench: Bench) -> None:
    """A consume-process-produce loop with random aborts."""
    bench.create("original")
    bench.create("copy")
    bench.write("original", 1000)
    told = bench.call(
        "TransactionalMessageCopier",
        *("--broker-list", bench.bootstrap, "--input-topic", "original", "--input-partition", "0"),
        *("--output-topic", "copy", "--transactional-id", "copier", "--consumer-group", "copiers"),
        *("--transaction-size", "100", "--enable-random-aborts", "--group-mode", "--use-group-metadata"),
    )
    *_, last = events(iter(told.splitlines()))
    assert last["remaining"] == 0, last
    committed = ("--from-beginning", "--isolation-level", "read_committed")
    copied = consumed(bench, "copy", 1000, *committed)
    assert sorted(copied, key=int) == [str(number) for number in range(1000)], copied[:20]


def log_compaction_tester(bench: Bench) -> None:
    """What is left of each key is its last value."""
    told = bench.run("LogCompactionTester", "--messages", "2000", "--percent-deletes", "10")
    expect(told, r"Validated (\d+) values, \d+ deletes|Data verification is completed")


def producer_performance(bench: Bench) -> None:
    """Idempotent, compressed, and in transactions."""
    bench.create("measured")
    much = ("--topic", "measured", "--num-records", "20000", "--record-size", "100", "--throughput", "-1")
    where = ("--command-property", f"bootstrap.servers={bench.bootstrap}")
    for how in (("compression.type=zstd",), ("compression.type=lz4", "acks=1", "enable.idempotence=false")):
        expect(bench.call("ProducerPerformance", *much, *where, *how), "20000 records sent")
    in_transactions = ("--transactional-id", "measurer", "--transaction-duration-ms", "100")
    expect(bench.call("ProducerPerformance", *much, *in_transactions, *where), "20000 records sent")


def consumer_performance(bench: Bench) -> None:
    """Reads what was asked for."""
    bench.create("drained")
    bench.write("drained", 20000)
    told = bench.run("ConsumerPerformance", "--topic", "drained", "--num-records", "20000", "--hide-header")
    found = re.search(r"^\d{4}-[^,]+, [^,]+, [\d.]+, [\d.]+, (\d+), ", told, re.MULTILINE)
    assert found is not None and int(found[1]) >= 20000, told


def end_to_end_latency(bench: Bench) -> None:
    """Each record comes back."""
    told = bench.call("EndToEndLatency", bench.bootstrap, "echoed", "200", "all", "100")
    expect(told, r"Avg latency: [\d.]+ ms", r"Percentiles: 50th = \d+, 99th = \d+")


def client_compatibility(bench: Bench) -> None:
    """Kafka's own check of what a broker can do for a client, everything asked for."""
    bench.create("compatible")
    told = bench.run(
        "ClientCompatibilityTest",
        *(
            "--topic",
            "compatible",
            "--num-cluster-nodes",
            "1",
            "--expect-record-too-large-exception",
            "False",
        ),
        *("--offsets-for-times-supported", "True", "--cluster-id-supported", "True"),
        *("--create-topics-supported", "True", "--describe-acls-supported", "True"),
        *("--describe-configs-supported", "True", "--idempotent-producer-supported", "True"),
    )
    expect(told, "SUCCESS|All tests passed|Successfully")


def verifiable_consumer_leaves(bench: Bench) -> None:
    """SIGTERM: the group is left at once, offsets committed."""
    bench.create("leaving")
    bench.write("leaving", 100)
    reading = ("--topic", "leaving", "--group-id", "leavers", "--reset-policy", "earliest")
    told = []
    with bench.started("VerifiableConsumer", *bench.server, *reading) as process:
        assert process.stdout is not None
        for event in events(process.stdout):
            told.append(event["name"])
            if event["name"] == "offsets_committed":
                break
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)
    assert "offsets_committed" in told, told
    state = bench.run("consumer.group.ConsumerGroupCommand", "--describe", "--group", "leavers", "--state")
    expect(state, r"^leavers\s.*\bEmpty\b")


CASES: tuple[Case, ...] = (
    verifiable_producer_and_consumer,
    verifiable_consumer_leaves,
    transactional_message_copier,
    log_compaction_tester,
    producer_performance,
    consumer_performance,
    end_to_end_latency,
    client_compatibility,
)
