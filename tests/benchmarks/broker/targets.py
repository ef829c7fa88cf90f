"""The two brokers under measurement, each one process."""

import time
from pathlib import Path
from typing import Protocol

import psutil
from tests.fixtures.apache_kafka import ApacheKafka
from tests.interop.kafka_tools import VERSION

from tailrace.broker.embedded import EmbeddedBroker


class Target(Protocol):
    """A broker that is started, loaded and looked at."""

    name: str

    @property
    def bootstrap(self) -> str:
        """Where clients find it."""

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

    @property
    def bootstrap(self) -> str:
        return self._broker.bootstrap

    def start(self) -> float:
        started = time.monotonic()
        self._broker.start()
        return time.monotonic() - started

    def kill(self) -> None:
        if self._broker.is_running():
            self._broker.kill()

    def process(self) -> psutil.Process:
        return psutil.Process(self._broker.pid)


class Kafka:
    """Apache Kafka with a heap of 1 GB."""

    name = f"kafka {VERSION}"

    def __init__(self, folder: Path) -> None:
        self._broker = ApacheKafka(folder / "kafka", heap="1g")
        self.bootstrap = self._broker.bootstrap

    def start(self) -> float:
        started = time.monotonic()
        self._broker.start()
        return time.monotonic() - started

    def kill(self) -> None:
        self._broker.kill()

    def process(self) -> psutil.Process:
        return psutil.Process(self._broker.pid)
