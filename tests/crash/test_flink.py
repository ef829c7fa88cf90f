"""Kills of the Flink part: what read_committed readers see is exactly the SQL's result, each row once."""

import dataclasses
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.fixtures.flink import TRANSACTIONS, FlinkPart, PartFactory, Topics, transaction
from tests.fixtures.registry import Stack

from tailrace.flink.config import TransformConfig
from tailrace.flink.service import CRASH_POINTS

pytestmark = [pytest.mark.flink, pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def appending(topics: Topics, enrich: TransformConfig) -> TransformConfig:
    """Every input row gives one appended row: a lost or doubled one shows in the count."""
    topics.create("raw.shop.transactions", TRANSACTIONS, key=None)
    return dataclasses.replace(
        enrich,
        inputs={"transactions": "raw.shop.transactions"},
        key=(),
        sql="SELECT id, note, risk(CAST(amount AS DOUBLE), note) AS risk FROM transactions",
    )


class Load:
    """Writes numbered rows from a thread until stopped."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.written = 0

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self._topics.write(
                "raw.shop.transactions", [transaction(self.written + i, None) for i in range(20)]
            )
            self.written += 20

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def ids(topics: Topics) -> Counter[int]:
    return Counter(value["id"] for _, value, _ in topics.records("enriched.transactions"))


def arrived(part: FlinkPart, topics: Topics, count: int) -> None:
    """Wait for so many different rows."""

    def enough() -> bool:
        try:
            return len(ids(topics)) >= count
        except KeyError:  # the topic is not there yet
            return False

    part.wait_until(enough)


def test_kills_of_jvm_job_part_and_broker_leave_every_row_exactly_once(
    topics: Topics, appending: TransformConfig, flink_part: PartFactory, stack: Stack
) -> None:
    part = flink_part(appending)
    part.start()
    with Load(topics) as load:
        arrived(part, topics, 100)

        os.kill(jvm(part), signal.SIGKILL)
        arrived(part, topics, load.written + 20)

        os.killpg(part.job_pid(), signal.SIGKILL)
        arrived(part, topics, load.written + 20)

        orphan = psutil.Process(part.job_pid())
        part.kill()
        part.start()
        arrived(part, topics, load.written + 20)
        assert not orphan.is_running(), "a job dies with its parent"

        stack.kill()
        stack.start()
        arrived(part, topics, load.written + 20)
    arrived(part, topics, load.written)
    assert ids(topics) == Counter(range(load.written))
    part.stop()


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_kill_at_a_crash_point_loses_and_doubles_nothing(
    point: str, topics: Topics, appending: TransformConfig, flink_part: PartFactory, tmp_path: Path
) -> None:
    topics.write("raw.shop.transactions", [transaction(i, None) for i in range(100)])
    part = flink_part(appending)
    part.start({"TAILRACE_CRASH_AT": point})
    assert part.process is not None
    assert part.process.wait(240) == -signal.SIGKILL, part.log()
    part.start()
    topics.write("raw.shop.transactions", [transaction(i, None) for i in range(100, 200)])
    arrived(part, topics, 200)
    assert ids(topics) == Counter(range(200))


def jvm(part: FlinkPart) -> int:
    """The process id of the job's JVM."""
    found = [child for child in _children(part) if child.name() == "java"]
    assert len(found) == 1
    return found[0].pid


def _children(part: FlinkPart) -> Iterator[psutil.Process]:
    yield from psutil.Process(part.job_pid()).children(recursive=True)
