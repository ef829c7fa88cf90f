"""Files of segments that a log gave up: unlinked at once, or after the topic's `file.delete.delay.ms`."""

import asyncio
from pathlib import Path

from tailrace.broker.log.clock import Clock
from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import drop_files, sync_directory
from tailrace.broker.log.partition import PartitionLog


class GivenUpFiles:
    """What was renamed away waits here; a start unlinks what a stop left (`finish_swaps`)."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        self._disk = disk
        self._clock = clock
        self._waiting: list[tuple[int, Path]] = []

    async def take(self, log: PartitionLog, files: list[Path]) -> None:
        """Give up files that were renamed away.  Raises OSError."""
        delay_ms = log.config.file_delete_delay_ms
        if not delay_ms:
            await asyncio.to_thread(drop_files, self._disk, log.directory, files)
            return
        await asyncio.to_thread(sync_directory, self._disk, log.directory)  # else a start finds old names
        due_ms = self._clock.monotonic_ms() + delay_ms
        self._waiting += [(due_ms, file) for file in files]

    async def drop_due(self) -> None:
        """Unlink what has waited long enough; a deleted topic took its own along.  Raises OSError."""
        now_ms = self._clock.monotonic_ms()
        due = [file for due_ms, file in self._waiting if now_ms >= due_ms]
        self._waiting = [(due_ms, file) for due_ms, file in self._waiting if now_ms < due_ms]
        for file in due:
            await asyncio.to_thread(self._disk.unlink, file)
