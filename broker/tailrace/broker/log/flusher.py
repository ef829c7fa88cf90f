"""Group commit: one fdatasync per dirty file and round, whoever waits; `gathering` tells when to wait for more.

While the files of a larger round are being synced in worker threads, appends go on; all of them are covered by the
next round, which starts as soon as this one ends (`sync`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tailrace.broker.log.errors import StorageFailure
from tailrace.broker.log.gathering import PAUSE_S, Gathering
from tailrace.broker.log.partition import PartitionLog
from tailrace.broker.log.sync import Syncer, SyncRound
from tailrace.broker.log.when_durable import WhenDurable
from tailrace.broker.metrics.histogram import Histogram
from tailrace.changes import crash_point

_T = TypeVar("_T")
_Waiters = list[WhenDurable[Any]]


class Flusher:
    """Makes appended batches durable and then moves the high watermarks.

    `on_high_watermark(partition)` is called on the loop after each move (waiting fetches wake there).
    `on_failure(error)` is called once when fsync failed: the server must stop serving and exit.
    `page_cache`: what is written counts as durable at once, as Kafka's default has it; a power cut loses it.
    All methods are called on one event loop.
    """

    def __init__(
        self,
        *,
        on_high_watermark: Callable[[PartitionLog], None],
        on_failure: Callable[[StorageFailure], None],
        threads: int = 4,
        page_cache: bool = False,
    ) -> None:
        self._on_high_watermark = on_high_watermark
        self._on_failure = on_failure
        self._page_cache = page_cache
        self._syncer = Syncer(threads)
        self._gathering = Gathering()
        self._requests = 0  # that the next round will hold
        self._pause: asyncio.TimerHandle | None = None
        self._dirty: dict[PartitionLog, None] = {}
        self._waiters: _Waiters = []
        self._runs = False  # a round does, or is about to
        self._idle: asyncio.Future[None] | None = None  # of those who wait for the end of the last round
        self._failure: StorageFailure | None = None
        self._round_began: float | None = None
        self.round_ms = Histogram()

    def request(self, partitions: Iterable[PartitionLog]) -> None:
        """Have these partitions flushed soon, without waiting (acks=0)."""
        loop = asyncio.get_running_loop()
        if self._page_cache:
            for partition in partitions:
                if partition.expose(partition.log_end_offset):
                    loop.call_soon(self._on_high_watermark, partition)
            return
        self._dirty.update(dict.fromkeys(partitions))
        if not self._dirty or self._failure is not None:
            return
        self._requests += 1
        if not self._runs:
            self._runs = True
            loop.call_soon(self._begin_or_pause, loop)  # what else has arrived joins the round
        elif self._pause is not None and self._gathering.is_enough(self._requests, self._unsynced_bytes()):
            self._pause.cancel()
            self._end_pause(loop)

    def when_durable(self, targets: Iterable[tuple[PartitionLog, int]], value: _T) -> WhenDurable[_T]:
        """`value`, once each log is durable up to its offset (exclusive)."""
        waiter = WhenDurable(value)
        behind = [partition for partition, end in targets if partition.high_watermark < end]
        if behind and self._failure is None:
            self.request(behind)
        if not behind or self._failure is not None or self._page_cache:
            waiter.settle(self._failure)
        else:
            self._waiters.append(waiter)
        return waiter

    async def wait_durable(self, targets: Iterable[tuple[PartitionLog, int]]) -> None:
        """Return when each log is durable up to its offset (exclusive).  Raises StorageFailure."""
        await self.when_durable(targets, None)

    async def settle(self) -> None:
        """Return when nothing waits to be flushed."""
        if self._runs:
            self._idle = self._idle or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    @property
    def backlog(self) -> int:
        """How many partitions wait for the next round."""
        return len(self._dirty)

    def backlog_age_s(self, now_s: float) -> float:
        """How long the round that runs has been running at `now_s` (monotonic); 0 when none does."""
        began = self._round_began  # which changes meanwhile, where another thread asks
        return 0.0 if began is None else now_s - began

    async def close(self) -> None:
        """Flush what is dirty and end the threads."""
        await self.settle()
        self._syncer.close()

    def _unsynced_bytes(self) -> int:
        return sum(partition.unsynced_bytes for partition in self._dirty)

    def _begin_or_pause(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._gathering.pauses(self._requests, self._unsynced_bytes()):
            self._pause = loop.call_later(PAUSE_S, self._end_pause, loop)
        else:
            self._begin(loop)

    def _end_pause(self, loop: asyncio.AbstractEventLoop) -> None:
        self._pause = None
        self._gathering.paused(self._requests)
        loop.call_soon(self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        dirty, self._dirty = self._dirty, {}
        waiters, self._waiters = self._waiters, []
        self._requests = 0
        try:
            rounds = [(partition, partition.begin_sync(more_follows=True)) for partition in dirty]
            syncs = [(partition, sync) for partition, sync in rounds if sync is not None]
            self._round_began = time.monotonic()

            def finished(error: Exception | None) -> None:
                self._finish(loop, syncs, waiters, error)

            self._syncer.run([sync for _, sync in syncs], loop, finished)
        except Exception as error:  # noqa: BLE001 - a round that ends silently leaves producers waiting for ever
            self._fail(error, waiters)

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        syncs: list[tuple[PartitionLog, SyncRound]],
        waiters: _Waiters,
        error: Exception | None,
    ) -> None:
        """The files of a round are synced, or not: tell everybody who waits, and go on with what came since."""
        self.round_ms.observe(self.backlog_age_s(time.monotonic()) * 1000)
        self._round_began = None
        try:
            if error is not None:
                raise error
            for partition, sync in syncs:
                if partition.finish_sync(sync):
                    self._on_high_watermark(partition)
        except Exception as failure:  # noqa: BLE001 - as above
            self._fail(failure, waiters)
            return
        crash_point("broker.before_produce_answer")
        for waiter in waiters:
            waiter.settle()
        if self._dirty:
            loop.call_soon(self._begin_or_pause, loop)
        else:
            self._rest()

    def _rest(self) -> None:
        self._runs = False
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None

    def _fail(self, error: Exception, waiters: _Waiters) -> None:
        self._failure = StorageFailure(
            f"making the log durable failed: {error}",
            fix="Check the disk; the broker recovers its logs when it is started again",
        )
        for waiter in waiters + self._waiters:
            waiter.settle(self._failure)
        self._waiters.clear()
        self._rest()
        self._on_failure(self._failure)
