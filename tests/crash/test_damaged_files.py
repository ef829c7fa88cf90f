"""Every file of a log damaged at every byte: acknowledged records are there, or the damage is told."""

from collections.abc import Iterator

import pytest
from tests.crash.states.check import Checker
from tests.crash.states.history import Expectation
from tests.crash.states.log_state import state_of
from tests.crash.states.memory_disk import Flat, MemoryDisk
from tests.crash.states.recorder import Recorder, copy_of, open_logs
from tests.crash.states.workloads import FIRST, SECOND, small_files
from tests.unit.broker.log.harness import NOW_MS, ManualClock

from tailrace.broker.log import LogError, PartitionLog, TopicConfig
from tailrace.broker.log.frames import read_frame
from tailrace.broker.protocol.errors import ErrorCode

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(600)]
LOG = "/data/orders-0/"


@pytest.fixture(autouse=True)
def _small_files() -> Iterator[None]:
    with small_files():
        yield


def recorded(*, stop: bool) -> tuple[Flat, Expectation]:
    """Sealed segments with transactions in them, all acknowledged; the newest segment is not, after a kill."""
    at = Recorder()
    at.create("orders", TopicConfig(segment_bytes=500))
    for turn in range(5):
        at.append("orders", [(b"k", b"turn %d" % turn)], producer=FIRST, transactional=True)
        at.clock.at_ms += 7
        at.append("orders", [(b"k", b"outside"), (b"k", b"second")], producer=SECOND)
        at.clock.at_ms += 7
        at.end("orders", FIRST, commit=turn % 2 == 1)
    at.sync("orders")
    at.logs.get("orders", 0).roll()
    at.sync("orders")
    at.checkpoint()
    at.append("orders", [(b"k", b"left open")], producer=FIRST, transactional=True)
    at.append("orders", [(None, b"plain"), (None, b"twice")])
    at.append("orders", [(b"k", b"in sequence")], producer=SECOND)
    if stop:
        at.stop()
    expected = copy_of(at.expected_at_start)
    for mark in sorted(at.marks, key=lambda mark: mark.position):
        mark.tell(expected)
    return at.disk.tree().flat(), expected


def files(flat: Flat, suffix: str) -> list[tuple[str, bytes]]:
    return [(path, content) for path, content in flat if path.endswith(suffix) and content is not None]


def with_file(flat: Flat, path: str, content: bytes | None) -> Flat:
    """The same disk with another content of a file, None without it."""
    rest = [entry for entry in flat if entry[0] != path]
    return tuple(
        sorted([*rest, (path, content)] if content is not None else rest, key=lambda entry: entry[0])
    )


def torn(content: bytes) -> Iterator[tuple[str, bytes]]:
    for at in range(len(content)):
        yield f"cut at {at}", content[:at]
        yield f"zeros from {at}", content[:at] + bytes(len(content) - at)
    yield "more zeros", content + bytes(100)
    yield "garbage after it", content + b"\x7f" * 24


def flipped(content: bytes) -> Iterator[tuple[str, bytes]]:
    for at in range(len(content)):
        for bit in range(8):
            yield f"bit {bit} of byte {at} flipped", flip(content, at, bit)


def flip(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def test_a_newest_segment_torn_at_any_byte_loses_nothing_acknowledged() -> None:
    flat, expected = recorded(stop=False)
    path, content = files(flat, ".log")[-1]
    checker = Checker()
    for what, damaged in [*torn(content), *flipped(content)]:
        assert not checker.problems(with_file(flat, path, damaged), expected), what


@pytest.mark.parametrize("stop", [False, True], ids=["after a kill", "after a stop"])
@pytest.mark.parametrize("suffix", [".index", ".timeindex", ".snapshot"])
def test_an_index_damaged_at_any_byte_is_made_good(suffix: str, stop: bool) -> None:
    flat, expected = recorded(stop=stop)
    checker = Checker()
    for path, content in files(flat, suffix):
        stale = [(f"the content of {other}", old) for other, old in files(flat, suffix) if other != path]
        for what, damaged in [("missing", None), *torn(content), *flipped(content), *stale]:
            if suffix == ".snapshot" and what.startswith("the content"):
                continue  # a whole snapshot under another name cannot come from a crash
            assert not checker.problems(with_file(flat, path, damaged), expected), f"{path} {what}"


@pytest.mark.parametrize("stop", [False, True], ids=["after a kill", "after a stop"])
def test_every_offset_is_found_through_an_index_with_any_bit_flipped(stop: bool) -> None:
    flat, expected = recorded(stop=stop)
    whole = open_logs(MemoryDisk.of(flat), expected.catalog, ManualClock(NOW_MS)).get("orders", 0)
    places = [whole.segment_of(offset).position_of(offset) for offset in range(whole.log_end_offset)]
    for path, content in files(flat, ".index"):
        for what, damaged in flipped(content):
            disk = MemoryDisk.of(with_file(flat, path, damaged))
            log = open_logs(disk, expected.catalog, ManualClock(NOW_MS)).get("orders", 0)
            assert [log.segment_of(o).position_of(o) for o in range(len(places))] == places, f"{path} {what}"


@pytest.mark.parametrize("stop", [False, True], ids=["after a kill", "after a stop"])
def test_every_time_is_found_through_a_time_index_with_any_bit_flipped(stop: bool) -> None:
    flat, expected = recorded(stop=stop)

    def found(flat: Flat) -> list[object]:
        log = open_logs(MemoryDisk.of(flat), expected.catalog, ManualClock(NOW_MS)).get("orders", 0)
        times = range(NOW_MS - 1, NOW_MS + 75)
        return [log.max_timestamp(1 << 40), *(log.offset_for_timestamp(at, 1 << 40) for at in times)]

    whole = found(flat)
    assert len({str(place) for place in whole}) > 10
    for path, content in files(flat, ".timeindex"):
        for what, damaged in flipped(content):
            assert found(with_file(flat, path, damaged)) == whole, f"{path} {what}"


@pytest.mark.parametrize("stop", [False, True], ids=["after a kill", "after a stop"])
def test_a_torn_transaction_index_is_made_good(stop: bool) -> None:
    flat, expected = recorded(stop=stop)
    checker = Checker()
    for path, content in files(flat, ".txnindex"):
        sealed = stop or path.removesuffix(".txnindex") + ".log" != files(flat, ".log")[-1][0]
        for what, damaged in [("missing", None), *torn(content)]:
            if sealed and damaged is not None and len(damaged) % 34 == 0 and content.startswith(damaged):
                continue  # it is durable before the recovery point moves; fewer entries look like a whole file
            assert not checker.problems(with_file(flat, path, damaged), expected), f"{path} {what}"


@pytest.mark.parametrize("name", ["gone.deleted", ".log.swap", ".cleaned", ".index.swap", ".snapshot.tmp"])
def test_what_an_interrupted_exchange_left_behind_is_cleared_away(name: str) -> None:
    flat, expected = recorded(stop=False)
    path, content = files(flat, ".log")[0]
    left = f"{path.removesuffix('.log')}{name}" if name.startswith(".") else f"{path}.{name}"
    for leftover in (content, b"", content[:70]):
        if name == ".log.swap" and leftover != content:
            continue  # it gets that name when it is complete and durable
        assert not Checker().problems(with_file(flat, left, leftover), expected)


def test_a_bit_flipped_in_a_sealed_segment_is_told_and_nothing_is_cut() -> None:
    flat, expected = recorded(stop=False)
    (spec,) = expected.catalog.specs()
    path, content = files(flat, ".log")[1]
    whole = state_of(open_logs(MemoryDisk.of(flat), expected.catalog, ManualClock(NOW_MS)).get("orders", 0))
    offline = 0
    for what, damaged in flipped(content):
        disk = MemoryDisk.of(with_file(flat, path, damaged))
        logs = open_logs(disk, expected.catalog, ManualClock(NOW_MS))
        assert dict(disk.tree().flat())[path] == damaged, f"{what}: the segment was changed"
        reason = logs.offline().get((spec.topic, spec.partition))
        if reason is not None:
            assert path in reason and "nothing was cut away" in reason, what
            offline += 1
            continue
        log = logs.get(spec.topic, spec.partition)
        assert (log.log_start_offset, log.log_end_offset) == (whole.start, whole.end), what
        told, read = read_all(log)
        assert told or len(read) == len(whole.content), f"{what}: batches are skipped in silence"
    assert offline


def read_all(log: PartitionLog) -> tuple[bool, bytes]:
    """(whether an error told of damage, what was read before it)."""
    found, offset = b"", log.log_start_offset
    while offset < log.log_end_offset:
        try:
            parts = log.read(offset, 300, upper=log.log_end_offset)
        except LogError as error:
            assert error.code is ErrorCode.KAFKA_STORAGE_ERROR and str(log.directory) in str(error)
            return True, found
        assert parts, f"nothing at offset {offset}, and no error"
        content, at = b"".join(parts), 0
        while at < len(content):
            size, last_offset = read_frame(content, at)
            at += size
        found += content
        offset = last_offset + 1
    return False, found
