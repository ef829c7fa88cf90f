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

    def watch(self, logs: Iterable[PartitionLog]) -> asyncio.Event:
        """An event that is set whenever one of `logs` moves, from this call on until `unwatch`.

        To miss nothing, call it in the same step as the read that found too little.
        """
        event = asyncio.Event()
        for log in logs:
            events = self._waiting.get(log)
            if events is None:
                self._waiting[log] = {event}
            else:
                events.add(event)
        return event

    def unwatch(self, logs: Iterable[PartitionLog], event: asyncio.Event) -> None:
        """End what `watch` began."""
        for log in logs:
            events = self._waiting.get(log)
            if events is not None:
                events.discard(event)
                if not events:
                    del self._waiting[log]

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
