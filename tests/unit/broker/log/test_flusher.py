"""Group commit: who is woken when, and what a failed fsync means."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.broker.log.disks import FaultyDisk
from tests.unit.broker.log.harness import Harness

from tailrace.broker.log import Flusher, PartitionLog, StorageFailure, TopicConfig
from tailrace.broker.log.gathering import MOST_REQUESTS, TRIED_EVERY
from tailrace.broker.log.sync import SyncRound


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path / "data", TopicConfig(segment_bytes=2000))
    yield harness
    harness.crash()


def flusher(moved: list[PartitionLog], failures: list[StorageFailure]) -> Flusher:
    return Flusher(on_high_watermark=moved.append, on_failure=failures.append)


def count_rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The end offset of every round that was synced."""
    rounds: list[int] = []
    run = SyncRound.run

    def counted(sync: SyncRound) -> None:
        rounds.append(sync.end_offset)
        run(sync)

    monkeypatch.setattr(SyncRound, "run", counted)
    return rounds


def test_a_waiter_returns_when_its_batch_is_durable(at: Harness) -> None:
    moved: list[PartitionLog] = []

    async def scenario() -> None:
        flush = flusher(moved, [])
        result = at.append(b"a", b"b")
        await flush.wait_durable([(at.log, result.last_offset + 1)])
        assert at.log.high_watermark == 2
        await flush.wait_durable([(at.log, 2)])
        await flush.close()

    asyncio.run(scenario())
    assert moved == [at.log]


def test_all_waiters_of_a_round_share_one_fsync(at: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = count_rounds(monkeypatch)

    async def scenario() -> None:
        flush = flusher([], [])
        waiting = []
        for number in range(100):
            result = at.append(b"%d" % number)
            waiting.append(flush.wait_durable([(at.log, result.last_offset + 1)]))
        await asyncio.gather(*waiting)
        await flush.close()

    asyncio.run(scenario())
    assert rounds == [100]


def test_with_page_cache_nobody_waits_for_fsync_and_checkpoints_still_sync(
    at: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = count_rounds(monkeypatch)
    moved: list[PartitionLog] = []

    async def scenario() -> None:
        flush = Flusher(on_high_watermark=moved.append, on_failure=lambda _: None, page_cache=True)
        result = at.append(b"a")
        await flush.wait_durable([(at.log, result.last_offset + 1)])
        flush.request([at.log])
        await asyncio.sleep(0)
        assert (at.log.high_watermark, moved, rounds) == (1, [at.log], [])
        await at.logs.checkpoint()
        assert (at.log.recovery_point, rounds) == (1, [1])
        await flush.close()

    asyncio.run(scenario())


def test_appends_during_a_round_are_covered_by_the_next(at: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = count_rounds(monkeypatch)

    async def producer(flush: Flusher, count: int) -> None:
        for _ in range(count):
            result = at.append(b"x" * 100)
            await flush.wait_durable([(at.log, result.last_offset + 1)])
            assert at.log.high_watermark > result.last_offset

    async def scenario() -> None:
        flush = flusher([], [])
        await asyncio.gather(*(producer(flush, 10) for _ in range(20)))
        await flush.close()

    asyncio.run(scenario())
    assert at.log.high_watermark == 200
    assert len(rounds) < 60 and rounds == sorted(rounds)


def test_what_comes_while_a_round_is_put_off_joins_it(at: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = count_rounds(monkeypatch)
    monkeypatch.setattr("tailrace.broker.log.flusher.PAUSE_S", 3600)

    async def scenario() -> None:
        flush = flusher([], [])
        for number in range(1, TRIED_EVERY):
            at.append(b"alone")
            await flush.wait_durable([(at.log, number)])
        waiting = []
        for number in range(TRIED_EVERY, TRIED_EVERY + MOST_REQUESTS):
            at.append(b"one of many")
            waiting.append(asyncio.create_task(flush.wait_durable([(at.log, number)])))
            for _ in range(5):  # turns of the loop in which the round would have begun
                await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        await flush.close()

    asyncio.run(scenario())
    assert rounds == [*range(1, TRIED_EVERY), TRIED_EVERY + MOST_REQUESTS - 1]


def test_a_request_without_a_waiter_moves_the_high_watermark(at: Harness) -> None:
    async def scenario() -> None:
        seen = asyncio.Event()
        flush = Flusher(on_high_watermark=lambda _: seen.set(), on_failure=lambda _: None)
        at.append(b"a")
        flush.request([at.log])
        await asyncio.wait_for(seen.wait(), 10)
        await flush.close()

    asyncio.run(scenario())
    assert at.log.high_watermark == 1


def test_a_waiter_that_gave_up_does_not_disturb_the_others(at: Harness) -> None:
    async def scenario() -> None:
        flush = flusher([], [])
        at.append(b"a")
        given_up = asyncio.create_task(flush.wait_durable([(at.log, 1)]))
        patient = asyncio.create_task(flush.wait_durable([(at.log, 1)]))
        await asyncio.sleep(0)
        given_up.cancel()
        await patient
        await flush.close()

    asyncio.run(scenario())
    assert at.log.high_watermark == 1


def test_a_failed_fsync_is_fatal_and_never_retried(tmp_path: Path) -> None:
    disk = FaultyDisk()
    at = Harness(tmp_path / "data", disk=disk)
    failures: list[StorageFailure] = []
    calls: list[Path] = []

    def broken(operation: str, path: Path) -> None:
        if operation == "fdatasync":
            calls.append(path)
            raise OSError(5, "Input/output error")

    async def scenario() -> None:
        flush = flusher([], failures)
        at.append(b"a")
        with pytest.raises(StorageFailure, match="orders-0"):
            await flush.wait_durable([(at.log, 1)])
        at.append(b"b")
        with pytest.raises(StorageFailure):
            await flush.wait_durable([(at.log, 2)])
        flush.request([at.log])
        await asyncio.sleep(0)
        await flush.close()

    disk.before = broken
    asyncio.run(scenario())
    assert len(failures) == 1 and len(calls) == 1
    assert at.log.high_watermark == 0
    at.crash()


def test_a_disk_that_hung_once_does_not_hold_the_loop_again(tmp_path: Path) -> None:
    disk, hangs, goes_on = FaultyDisk(), threading.Event(), threading.Event()
    at = Harness(tmp_path / "data", disk=disk)

    def stuck(operation: str, path: Path) -> None:
        if operation == "fdatasync" and hangs.is_set():
            assert goes_on.wait(60)

    async def scenario() -> None:
        flush = flusher([], [])
        for number in range(50):  # so quick that the loop does it by itself
            at.append(b"quick")
            await flush.wait_durable([(at.log, number + 1)])
        hangs.set()
        at.append(b"slow")
        threading.Timer(0.1, goes_on.set).start()
        await asyncio.wait_for(flush.wait_durable([(at.log, 51)]), 60)
        goes_on.clear()
        at.append(b"slow again")
        waiting = asyncio.create_task(flush.wait_durable([(at.log, 52)]))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done() and flush.backlog_age_s(time.monotonic()) > 0
        goes_on.set()
        await asyncio.wait_for(waiting, 60)
        await flush.close()

    disk.before = stuck
    asyncio.run(scenario())
    at.crash()


def test_a_large_round_is_synced_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Harness(tmp_path / "data")
    threads: list[threading.Thread] = []
    run = SyncRound.run

    def seen(sync: SyncRound) -> None:
        threads.append(threading.current_thread())
        run(sync)

    monkeypatch.setattr(SyncRound, "run", seen)

    async def scenario() -> None:
        flush = flusher([], [])
        end = 0
        for size in (100, 600_000):
            end = at.append(bytes(size)).last_offset + 1
            await flush.wait_durable([(at.log, end)])
        await flush.close()

    asyncio.run(scenario())
    assert [thread is threading.main_thread() for thread in threads] == [True, False]
    at.crash()


def test_a_waiter_that_raises_does_not_keep_the_others_waiting(at: Harness) -> None:
    def broken() -> None:
        raise ValueError("a mistake of ours")

    async def scenario() -> None:
        flush = flusher([], [])
        at.append(b"a")
        flush.when_durable([(at.log, 1)], None).then(broken)
        await asyncio.wait_for(flush.wait_durable([(at.log, 1)]), 10)
        await flush.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("step", ["begin_sync", "finish_sync"])
def test_an_error_of_any_step_of_a_round_is_told_to_everybody_who_waits(
    at: Harness, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    failures: list[StorageFailure] = []

    def broken(*_: object, **__: object) -> None:
        raise ValueError("a mistake of ours")

    async def scenario() -> None:
        flush = flusher([], failures)
        monkeypatch.setattr(PartitionLog, step, broken)
        at.append(b"a")
        with pytest.raises(StorageFailure, match="a mistake of ours"):
            await asyncio.wait_for(flush.wait_durable([(at.log, 1)]), 10)
        with pytest.raises(StorageFailure):
            await asyncio.wait_for(flush.wait_durable([(at.log, 1)]), 10)
        await flush.close()

    asyncio.run(scenario())
    assert len(failures) == 1


@pytest.mark.parametrize("steps", range(4))
def test_a_topic_deleted_during_its_flush_harms_nobody(at: Harness, steps: int) -> None:
    async def scenario() -> None:
        failures: list[StorageFailure] = []
        flush = flusher([], failures)
        for _ in range(30):
            at.append(b"x" * 200)
        waiting = asyncio.create_task(flush.wait_durable([(at.log, 30)]))
        for _ in range(steps):
            await asyncio.sleep(0)
        at.logs.delete("orders", [0], at.topic_id)
        await waiting
        await flush.close()
        assert not failures

    asyncio.run(scenario())
    assert not list(at.data_dir.glob("orders-0"))
