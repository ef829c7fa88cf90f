"""Power cuts between any two disk operations: what was acknowledged is there, and nothing else is made up.

Each test recovers thousands of distinct states of the disk (`tests.crash.states`); `make crash-states` a million.
"""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from tests.crash.states import workloads
from tests.crash.states.check import Checker
from tests.crash.states.explore import Found, cuts_of, explore
from tests.crash.states.memory_disk import MemoryDisk
from tests.crash.states.recorder import Recorder

from tailrace.broker.log import PartitionLog, TopicConfig, checked, manager, recovery, swap
from tailrace.broker.log.checkpoints import OffsetCheckpoints
from tailrace.broker.log.index import AbortedIndex
from tailrace.broker.log.producers import ProducerStates
from tailrace.broker.log.segment import Segment

pytestmark = [pytest.mark.crash, pytest.mark.slow]

# how many distinct states each workload must give; one core recovers about a thousand in a second
STATES: dict[Callable[[Recorder], None], int] = {
    workloads.produce: 9_000,
    workloads.transact: 10_000,
    workloads.retain: 8_000,
    workloads.compact: 44_000,
    workloads.commit_offsets: 25_000,
    workloads.change_topics: 10_000,
    workloads.grow: 9_000,
}


def test_at_least_100_000_states_are_recovered() -> None:
    assert set(STATES) == set(workloads.WORKLOADS)
    assert sum(STATES.values()) >= 100_000


@pytest.mark.timeout(900)
@pytest.mark.parametrize("workload", STATES, ids=lambda workload: workload.__name__)
def test_a_power_cut_between_any_two_disk_operations_loses_nothing_acknowledged(
    workload: Callable[[Recorder], None],
) -> None:
    found = Found()
    explore([workload], found, samples=16, again=8)
    assert found.bad == 0, f"{found.kinds}\n" + "\n".join(found.problems)
    states = len(found.seen)
    assert states >= STATES[workload]


def nothing(*_: Any, **__: Any) -> None:
    """Leave out what the sabotaged function does."""


def knows_nobody(_disk: object, _directory: object, up_to: int, _seen_ms: int) -> tuple[int, ProducerStates]:
    return up_to, ProducerStates()


def all_that_was_written(log: PartitionLog) -> int:
    return log.log_end_offset


def at_any_checked_point(segment: Segment, _recovery_point: int, seen_ms: int) -> ProducerStates | None:
    return checked.take_checked_point(segment, 1 << 40, seen_ms)


SABOTAGES = {
    "fdatasync does nothing": (workloads.produce, MemoryDisk, "fdatasync", nothing),
    "no folder is ever synced": (workloads.produce, MemoryDisk, "fsync", nothing),
    "a sealed batch is cut": (workloads.produce, recovery, "has_valid_crc", lambda batch: len(batch) != 85),
    "a torn batch is kept": (workloads.produce, recovery, "has_valid_crc", lambda _batch: True),
    "the tail stays in the file": (workloads.produce, recovery, "_cut", nothing),
    "producers are forgotten": (workloads.transact, recovery, "load_snapshot", knows_nobody),
    "aborts are forgotten": (workloads.transact, AbortedIndex, "add", nothing),
    "the recovery point runs ahead": (
        workloads.produce, PartitionLog, "recovery_point", property(all_that_was_written),
    ),
    "a checked point counts before its batches are durable": (
        workloads.grow, recovery, "take_checked_point", at_any_checked_point,
    ),
    "the log start is not durable": (workloads.retain, OffsetCheckpoints, "write_log_starts", nothing),
    "the snapshot of dropped records is not synced": (workloads.retain, manager, "sync_snapshot", nothing),
    "segments are given up before that is durable": (workloads.compact, swap, "sync_directory", nothing),
    "half swaps are not finished": (workloads.compact, recovery, "finish_swaps", nothing),
    "zeros ahead are taken for damage": (workloads.compact, recovery, "_is_room", lambda *_: False),
    "deletions are not durable": (workloads.change_topics, manager, "sync_directory", nothing),
}  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_the_explorer_objects_when(sabotage: str) -> None:
    workload, target, name, replacement = SABOTAGES[sabotage]
    found = Found()
    with patch.object(target, name, replacement):
        explore([workload], found, samples=3, again=0)
    assert found.bad


def test_producers_of_deleted_records_are_known_after_a_power_cut() -> None:
    at = Recorder()
    at.create("orders", TopicConfig(segment_bytes=200))
    at.append("orders", [(None, b"in the first segment" * 5)], producer=workloads.FIRST)
    at.append("orders", [(None, b"in the second segment" * 5)])
    at.sync("orders")
    at.delete_records("orders", 1)
    end = len(at.disk.trace)
    for number, (_, expected, flat) in enumerate(cuts_of(at, range(end, end + 1), 20, 1)):
        assert not Checker().problems(flat, expected), number
