"""Fetches that wait for data: woken when a high watermark moves."""

import asyncio
from collections.abc import Iterable

from tailrace.broker.log import PartitionLog


class WaitingFetches:
    """Who waits for which partition.  All calls on the event loop's thread."""

    def __init__(self) -> None:
        self._waiting: dict[PartitionLog, set[asyncio.Event]] = {}
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the broker is stopping, so that nothing waits any more."""
        return self._closed

    def wake(self, log: PartitionLog) -> None:
        """The high watermark (and so perhaps the last stable offset) of `log` moved."""
        for event in self._waiting.get(log, ()):
            event.set()

    def close(self) -> None:
        """Wake everybody, for good."""
        self._closed = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    async def wait(self, logs: Iterable[PartitionLog], event: asyncio.Event, timeout_s: float) -> bool:
        """Wait until one of `logs` moved; False when the time was over first."""
        watched = list(logs)
        for log in watched:
            self._waiting.setdefault(log, set()).add(event)
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            for log in watched:
                events = self._waiting[log]
                events.discard(event)
                if not events:
                    del self._waiting[log]
        return True
