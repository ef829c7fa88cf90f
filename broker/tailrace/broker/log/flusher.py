"""Group commit: one fdatasync per dirty file and round, whoever waits.

While a round's files are being synced in worker threads, appends go on; all of them are covered by the next
round, which starts as soon as this one ends.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from tailrace.broker.log.errors import StorageFailure
from tailrace.broker.log.partition import PartitionLog
from tailrace.broker.metrics.histogram import Histogram


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
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fdatasync")
        self._dirty: dict[PartitionLog, None] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._rounds: asyncio.Task[None] | None = None
        self._failure: StorageFailure | None = None
        self._round_began: float | None = None
        self.round_ms = Histogram()

    def request(self, partitions: Iterable[PartitionLog]) -> None:
        """Have these partitions flushed soon, without waiting (acks=0)."""
        if self._page_cache:
            for partition in partitions:
                if partition.expose(partition.log_end_offset):
                    asyncio.get_running_loop().call_soon(self._on_high_watermark, partition)
            return
        self._dirty.update(dict.fromkeys(partitions))
        if self._rounds is None and self._dirty and self._failure is None:
            self._rounds = asyncio.get_running_loop().create_task(self._run())

    async def wait_durable(self, targets: Iterable[tuple[PartitionLog, int]]) -> None:
        """Return when each log is durable up to its offset (exclusive).  Raises StorageFailure."""
        if self._failure is not None:
            raise self._failure
        behind = [partition for partition, end in targets if partition.high_watermark < end]
        if not behind:
            return
        if self._page_cache:
            self.request(behind)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self.request(behind)
        await waiter

    @property
    def backlog(self) -> int:
        """How many partitions wait for the next round."""
        return len(self._dirty)

    def backlog_age_s(self, now_s: float) -> float:
        """How long the round that runs has been running at `now_s` (monotonic); 0 when none does."""
        return 0.0 if self._round_began is None else now_s - self._round_began

    async def close(self) -> None:
        """Flush what is dirty and end the threads."""
        if self._rounds is not None:
            await self._rounds
        self._pool.shutdown()

    async def _run(self) -> None:
        """Rounds until nothing is dirty.  Whatever goes wrong is told to everybody who waits."""
        waiters: list[asyncio.Future[None]] = []
        try:
            while self._dirty:
                dirty, self._dirty = self._dirty, {}
                waiters, self._waiters = self._waiters, []
                await self._sync(dirty)
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
        except Exception as error:  # noqa: BLE001 - a flusher that ends silently leaves producers waiting for ever
            self._fail(error, waiters)
            return
        self._rounds = None

    async def _sync(self, dirty: Iterable[PartitionLog]) -> None:
        loop = asyncio.get_running_loop()
        rounds = [(partition, partition.begin_sync()) for partition in dirty]
        started = [(partition, sync) for partition, sync in rounds if sync is not None]
        self._round_began = time.monotonic()
        done = await asyncio.gather(
            *(loop.run_in_executor(self._pool, sync.run) for _, sync in started), return_exceptions=True
        )
        self.round_ms.observe(self.backlog_age_s(time.monotonic()) * 1000)
        self._round_began = None
        failed = next((error for error in done if error is not None), None)
        if failed is not None:
            raise failed
        for partition, sync in started:
            if partition.finish_sync(sync):
                loop.call_soon(self._on_high_watermark, partition)

    def _fail(self, error: Exception, waiters: list[asyncio.Future[None]]) -> None:
        self._failure = StorageFailure(
            f"making the log durable failed: {error}",
            fix="Check the disk; the broker recovers its logs when it is started again",
        )
        for waiter in waiters + self._waiters:
            if not waiter.done():
                waiter.set_exception(self._failure)
        self._waiters.clear()
        self._on_failure(self._failure)
