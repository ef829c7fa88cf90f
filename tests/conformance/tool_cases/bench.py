"""What a case works with: the broker's address, the tools, a scratch folder, and records written beforehand."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka as ck
from tests.interop.kafka_tools import KafkaTools

PACKAGE = "org.apache.kafka.tools"
TIMEOUT_S = 30.0
START_MS = time.time_ns() // 1_000_000 - 60_000


@dataclass(frozen=True)
class Bench:
    """`data` is the folder of the broker's logs."""

    bootstrap: str
    tools: KafkaTools
    scratch: Path
    data: Path

    @property
    def server(self) -> tuple[str, str]:
        """The option that most tools take."""
        return "--bootstrap-server", self.bootstrap

    def run(self, tool: str, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        """What `tool` printed with --bootstrap-server; AssertionError when its exit code is another one."""
        return self.call(tool, *self.server, *arguments, stdin=stdin, fails=fails)

    def call(self, tool: str, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        """The same with the arguments alone."""
        main_class = tool if tool.startswith("kafka.") else f"{PACKAGE}.{tool}"
        return self.tools.run(main_class, *arguments, stdin=stdin, fails=fails)

    @contextmanager
    def started(self, tool: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A tool that runs until it is stopped; killed at the latest after TIMEOUT_S, which ends its output."""
        process = self.tools.start(f"{PACKAGE}.{tool}", *arguments)
        watch = threading.Timer(TIMEOUT_S, process.kill)
        watch.start()
        try:
            yield process
        finally:
            watch.cancel()
            process.kill()
            process.communicate()

    def file(self, name: str, text: str) -> str:
        """The path of a new file in the scratch folder."""
        path = self.scratch / name
        path.write_text(text)
        return str(path)

    def create(self, topic: str, partitions: int = 1, *configs: str) -> None:
        """A new topic, made by Kafka's own tool."""
        given = [part for config in configs for part in ("--config", config)]
        made = self.run("TopicCommand", "--create", "--topic", topic, "--partitions", str(partitions), *given)
        expect(made, rf"Created topic {re.escape(topic)}\.")

    def write(self, topic: str, count: int, partition: int = 0) -> None:
        """`count` records, numbered, acknowledged, a millisecond of record time each from START_MS on."""
        producer = ck.Producer({"bootstrap.servers": self.bootstrap})
        for number in range(count):
            producer.produce(topic, b"%d" % number, partition=partition, timestamp=START_MS + number)
        assert producer.flush(TIMEOUT_S) == 0

    def commit(self, group: str, topic: str, offset: int, partition: int = 0) -> None:
        """An offset of a group that has no members."""
        with closing(ck.Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})) as consumer:
            consumer.commit(offsets=[ck.TopicPartition(topic, partition, offset)], asynchronous=False)


Case = Callable[[Bench], None]


def expect(output: str, *patterns: str) -> None:
    """AssertionError unless every pattern is found, ^ and $ being those of a line."""
    missing = [pattern for pattern in patterns if not re.search(pattern, output, re.MULTILINE)]
    assert not missing, f"{missing} not in: {output.strip()[-500:]}"
