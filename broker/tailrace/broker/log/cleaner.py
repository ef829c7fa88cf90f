"""Compaction of one data directory's logs: when, and the exchange of what was rewritten (Kafka's LogCleaner)."""

import asyncio
import logging
import struct
import threading

from tailrace.broker.log.checkpoints import OffsetCheckpoints
from tailrace.broker.log.clock import Clock
from tailrace.broker.log.compaction_plan import Round, plan
from tailrace.broker.log.errors import StorageFailure
from tailrace.broker.log.given_up import GivenUpFiles
from tailrace.broker.log.partition import PartitionLog
from tailrace.broker.log.swap import exchange, stage
from tailrace.changes.errors import TailraceError

_log = logging.getLogger(__name__)


class Cleaner:
    """Rewrites logs whose topics are compacted, in a worker thread, one at a time."""

    def __init__(self, checkpoints: OffsetCheckpoints, clock: Clock, given_up: GivenUpFiles) -> None:
        self._given_up = given_up
        self._checkpoints = checkpoints
        self._clock = clock
        self._stopping = threading.Event()
        self._uncleanable: set[tuple[str, int]] = set()

    def stop(self) -> None:
        """End a rewriting that is under way, without a change."""
        self._stopping.set()

    def forget(self, key: tuple[str, int]) -> None:
        """The partition is deleted; one of its name begins anew."""
        self._uncleanable.discard(key)

    async def compact(self, log: PartitionLog) -> bool:
        """Rewrite the segments of `log` if enough of them is dirty; whether it did.  Raises OSError.

        Only below the recovery point on disk, so after a checkpoint.
        """
        key = log.topic, log.partition
        if key in self._uncleanable:
            return False
        cleaned_to = self._checkpoints.cleaned.get(key, 0)
        durable_to = self._checkpoints.written_points.get(key, 0)
        work = plan(log, cleaned_to, durable_to, self._clock.now_ms(), self._stopping)
        if work is None:
            return False
        # Numba costs 80 MB: only brokers that compact pay
        from tailrace.broker.log.compaction import CompactionStopped

        segments = work.segments
        for segment in segments:
            segment.file.pin()
        try:
            if not await self._exchange(log, work):
                return False
        except CompactionStopped:
            return False
        except FileNotFoundError:
            if not log.closed:
                raise
            return False
        except StorageFailure:
            raise
        except (TailraceError, struct.error) as error:
            _log.error("%r can no longer be compacted: %s", log, error)
            self._uncleanable.add(key)
            return False
        finally:
            for segment in segments:
                segment.file.release()
        self._checkpoints.cleaned[key] = work.end
        self._checkpoints.write_cleaned()
        before, after = sum(segment.size for segment in segments), log.size
        _log.info("%r was compacted up to offset %d: %d bytes, now %d in all", log, work.end, before, after)
        return True

    async def _exchange(self, log: PartitionLog, work: Round) -> bool:
        """Rewrite group by group; False when the log was closed meanwhile."""
        from tailrace.broker.log.compaction import read_keys, rewrite

        latest = await asyncio.to_thread(read_keys, work)
        for group in work.groups:
            cleaned = await asyncio.to_thread(rewrite, work, latest, group)
            await asyncio.to_thread(stage, group[0], cleaned)
            if log.closed:
                return False
            replacement, away = exchange(group, self._clock.now_ms())
            log.replace_segments(log.segments.index(group[0]), len(group), [replacement])
            await self._given_up.take(log, away)
        return True
