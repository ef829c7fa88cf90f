"""One run: a broker behind a proxy, client processes, a nemesis; then a reader of everything, and the verdict."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import confluent_kafka as ck
from tests.fixtures.kafka_proxy import KafkaProxy
from tests.jepsen.checker import Verdict, check
from tests.jepsen.client import CONSUMER_PROTOCOL, Timeouts, read_record, settings
from tests.jepsen.client_log import log_of
from tests.jepsen.history import Poll, Recorder, read_history
from tests.jepsen.nemesis import Nemesis
from tests.jepsen.worker import Part, end_of_load

from tailrace.broker.embedded import EmbeddedBroker

WORKERS = 5
TRANSACTIONAL = (0, 1, 4)  # the others are only idempotent
SUBSCRIBED = (1, 3, 4)  # the others assign themselves
READER = 99_999  # the process that reads everything in the end
TRANSACTION_VERSIONS = (0, 2)  # of the broker; librdkafka keeps to the classic protocol beside both
STRATEGIES = ("range,roundrobin", "cooperative-sticky", CONSUMER_PROTOCOL)
# librdkafka 2.16 asserts that nobody changes a subscription while a cooperative rebalance goes on; also a crash
CLIENT_BUG = "rd_kafka_cgrp_modify_subscription: Assertion"
LONG_S = 60.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Result:
    """What one run came to."""

    seed: int
    folder: Path
    faults: int
    processes: int
    verdict: Verdict


@dataclass
class Crew:
    """The client processes: who ends before the load does is followed by another."""

    bootstrap: str
    folder: Path
    seed: int
    seconds: float
    strategy: str
    begin_ns: int = field(default_factory=time.monotonic_ns)
    processes: int = 0
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _replaced: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pids(self) -> list[int]:
        """Process ids of those that run."""
        with self._lock:
            return [running.pid for running in self._running.values() if running.poll() is None]

    def replace(self, pid: int) -> None:
        """Start another process in the place of this one, which lives on."""
        with self._lock:
            for worker, running in self._running.items():
                if running.pid == pid:
                    self._replaced.append(running)
                    self._running[worker] = self._start(worker)
                    return

    def begin(self) -> None:
        """Return when every worker has made its first step."""
        deadline = time.monotonic() + LONG_S
        self._fill_up()
        while len(list(self.folder.glob("*.jsonl"))) < WORKERS:
            assert time.monotonic() < deadline, f"not all clients begin: see the logs in {self.folder}"
            time.sleep(_LOOK_S)

    def work(self) -> None:
        """Return when the load is over and everybody has ended."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self._fill_up()
            time.sleep(_LOOK_S)
        end_of_load(self.folder).touch()
        for running in self._everybody():
            self._ended(running.wait(LONG_S))

    def kill(self) -> None:
        """End everybody who still runs."""
        for running in self._everybody():
            running.kill()
            running.wait()

    def _everybody(self) -> list[subprocess.Popen[bytes]]:
        with self._lock:
            return [*self._running.values(), *self._replaced]

    def _fill_up(self) -> None:
        with self._lock:
            for worker in range(WORKERS):
                code = self._running[worker].poll() if worker in self._running else 0
                if code is not None:
                    self._ended(code)
                    self._running[worker] = self._start(worker)

    def _told_of_client_bug(self) -> bool:
        return any(CLIENT_BUG in log.read_text(errors="replace") for log in self.folder.glob("*.log"))

    def _ended(self, code: int) -> None:
        died = code == -signal.SIGKILL or (code == -signal.SIGABRT and self._told_of_client_bug())
        assert died or code == 0, f"a client failed with code {code}: see the logs in {self.folder}"

    def _start(self, worker: int) -> subprocess.Popen[bytes]:
        process = self.processes
        self.processes += 1
        part = Part(
            bootstrap=self.bootstrap,
            folder=str(self.folder),
            seed=self.seed,
            process=process,
            name=f"tx-{worker}",
            transactional=worker in TRANSACTIONAL,
            subscribes=worker in SUBSCRIBED,
            strategy=self.strategy,
            begin_ns=self.begin_ns,
            seconds=self.seconds,
        )
        with log_of(self.folder, process).open("wb") as log:
            command = [sys.executable, "-m", "tests.jepsen.worker", part.encode()]
            return subprocess.Popen(command, stderr=log, stdout=log)


@contextmanager
def _started(folder: Path, transaction_version: int) -> Iterator[tuple[EmbeddedBroker, KafkaProxy]]:
    with KafkaProxy() as proxy:
        broker = EmbeddedBroker(
            folder / "broker",
            advertised_port=proxy.port,
            auto_create_topics=False,
            offsets_topic_partitions=3,
            transaction_topic_partitions=3,
            transaction_version=transaction_version,
            group_consumer_session_timeout_ms=int(Timeouts().session * 1000),
            group_consumer_heartbeat_interval_ms=int(Timeouts().session * 250),
        )
        broker.start()
        proxy.target = (broker.config.host, broker.config.port)
        try:
            yield broker, proxy
        finally:
            if broker.is_running():
                broker.kill()


def run(folder: Path, seed: int, seconds: float) -> Result:
    """Load for `seconds`, read everything, and check; all files are in `folder`.

    Raises AssertionError where the broker does not come to rest: the reader stays stuck for a minute.
    """
    folder.mkdir(parents=True)
    rng = Random(seed)
    strategy, version = rng.choice(STRATEGIES), rng.choice(TRANSACTION_VERSIONS)
    with _started(folder, version) as (broker, proxy):
        crew = Crew(proxy.address, folder, seed, seconds, strategy)
        nemesis = Nemesis(rng, broker, proxy, crew, folder, longest_pause_s=seconds / 3)
        try:
            crew.begin()
            nemesis.start()
            crew.work()
        finally:
            nemesis.finish()
            crew.kill()
        broker.kill()  # what is read from here on is what was durable
        broker.restart()
        _fence(proxy.address, [f"tx-{worker}" for worker in range(WORKERS)])
        _read_everything(proxy.address, folder)
    return Result(seed, folder, nemesis.faults, crew.processes, check(read_history(folder)))


def _fence(bootstrap: str, transactional_ids: list[str]) -> None:
    """End the transactions that killed clients may have left open."""
    producers = [
        ck.Producer({**settings(bootstrap, Timeouts()), "transactional.id": name})
        for name in transactional_ids
    ]
    with ThreadPoolExecutor(len(producers)) as pool:
        list(pool.map(lambda producer: producer.init_transactions(LONG_S), producers))


def _read_everything(bootstrap: str, folder: Path) -> None:
    consumer = ck.Consumer(
        {
            **settings(bootstrap, Timeouts()),
            "group.id": "everything",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    topics = consumer.list_topics(timeout=LONG_S).topics
    places = [
        (name, partition)
        for name, topic in topics.items()
        if not name.startswith("__")
        for partition in topic.partitions
    ]
    recorder = Recorder(folder, READER)
    recorder.invoke("assign", keys=[f"{name}/{partition}" for name, partition in places])
    consumer.assign([ck.TopicPartition(name, partition, 0) for name, partition in places])
    recorder.complete("ok")
    recorder.invoke("poll", [Poll()])
    recorder.complete("ok", [Poll(_read_to_end(consumer, len(places)))])
    consumer.close()


def _read_to_end(consumer: ck.Consumer, partitions: int) -> dict[str, list[tuple[int, int]]]:
    read: dict[str, list[tuple[int, int]]] = {}
    ended: set[tuple[str | None, int | None]] = set()
    deadline = time.monotonic() + LONG_S
    while len(ended) < partitions:
        message = consumer.poll(1.0)
        assert time.monotonic() < deadline, (
            f"the reader is stuck: {len(ended)} of {partitions} keys at the end"
        )
        if message is None:
            continue
        error = message.error()
        if error is None:
            key, record = read_record(message)
            read.setdefault(key, []).append(record)
            deadline = time.monotonic() + LONG_S
        elif error.code() == ck.KafkaError._PARTITION_EOF:
            ended.add((message.topic(), message.partition()))
    return read
