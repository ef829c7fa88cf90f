"""One round of fdatasync for one log: what to sync, how far the log is durable afterwards, and who does it."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from queue import SimpleQueue

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.segment import Segment
from tailrace.changes import crash_point

_QUICK_S = 0.0005
_SMALL_BYTES = 256 << 10
_WEIGHT = 0.1  # of the last sync in the moving average

CRASH_POINTS = ("broker.log.before_fsync", "broker.log.after_fsync")


@dataclass(slots=True)
class SyncRound:
    """Segments with the size that each must have on disk; made and released on the loop, run anywhere."""

    disk: Disk
    segments: list[tuple[Segment, int]]
    directory: int | None  # its descriptor, when segments were created: their names must be durable too
    end_offset: int

    def __post_init__(self) -> None:
        for segment, _ in self.segments:
            segment.file.pin()

    @property
    def is_small(self) -> bool:
        """Whether a quick disk does it without the loop being missed."""
        size = sum(size - segment.synced_size for segment, size in self.segments)
        return size <= _SMALL_BYTES and self.directory is None

    def run(self) -> None:
        """Block until everything is on disk.  Raises OSError; what the disk holds is then unknown."""
        crash_point("broker.log.before_fsync")
        for segment, _ in self.segments:
            try:
                self.disk.fdatasync(segment.file.fd)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(segment.file.path)) from error
        if self.directory is not None:
            self.disk.fsync(self.directory)
            self.disk.close(self.directory)
        crash_point("broker.log.after_fsync")

    def release(self) -> None:
        """Note what is durable and let go of the files."""
        for segment, size in self.segments:
            segment.synced_size = max(segment.synced_size, size)
            segment.file.release()


class Syncer:
    """Runs the syncs of a round: on a quick disk at once, else in a few threads.

    To have a thread do it and to hear of its end costs as much CPU as the appends of a small round, and on busy cores
    more time than the sync.  So where the disk has been quick of late the event loop syncs by itself, once a turn,
    after it has served every socket.  A sync that takes long holds the loop that once; the next ones go to threads.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._usual_s = 0.0  # moving average of what a sync takes

    def run(
        self,
        syncs: Sequence[SyncRound],
        loop: asyncio.AbstractEventLoop,
        finished: Callable[[Exception | None], None],
    ) -> None:
        """Call `finished` when all are done, with the first error: before the return, or later on the loop."""
        errors: list[Exception] = []
        if len(syncs) * self._usual_s < _QUICK_S and all(sync.is_small for sync in syncs):
            for sync in syncs:
                self._sync(sync, errors)
            finished(errors[0] if errors else None)
            return
        done = count(1)  # `next` of a count is atomic

        def job(sync: SyncRound) -> None:
            self._sync(sync, errors)
            if next(done) == len(syncs):
                loop.call_soon_threadsafe(finished, errors[0] if errors else None)

        self._start_threads(len(syncs))
        for sync in syncs:
            self._jobs.put(partial(job, sync))

    def close(self) -> None:
        """End the threads when they have done what they were given."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _sync(self, sync: SyncRound, errors: list[Exception]) -> None:
        began = time.monotonic()
        try:
            sync.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the round must end
            errors.append(error)
        self._usual_s += (time.monotonic() - began - self._usual_s) * _WEIGHT

    def _start_threads(self, wanted: int) -> None:
        while len(self._threads) < min(self._most, wanted):
            thread = threading.Thread(target=self._work, name="fdatasync", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
