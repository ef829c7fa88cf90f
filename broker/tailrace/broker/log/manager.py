"""All partitions of one data directory: `<topic>-<partition>/`, with Kafka's files inside."""

import asyncio
import errno
import logging
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tailrace.broker.log import checkpoints
from tailrace.broker.log.checked import note_checked_point
from tailrace.broker.log.cleaner import Cleaner
from tailrace.broker.log.clock import Clock, SystemClock
from tailrace.broker.log.config import DAY_MS, TopicConfig
from tailrace.broker.log.disk import Disk, LocalDisk
from tailrace.broker.log.durable import sync_directory, sync_file
from tailrace.broker.log.errors import DamagedLogError, LogError, StorageFailure
from tailrace.broker.log.given_up import GivenUpFiles
from tailrace.broker.log.partition import PartitionLog, sync_all
from tailrace.broker.log.partition_metadata import METADATA, belongs, claim
from tailrace.broker.log.recovery import Durable, RecoveredLog, recover
from tailrace.broker.log.retention import expired_segments
from tailrace.broker.log.segment import Segment
from tailrace.broker.log.snapshots import remove_snapshots, sync_snapshot, write_snapshot
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.changes import crash_point

CRASH_POINTS = (
    "broker.log.before_retention_delete",
    "broker.log.retention_renamed",
    "broker.log.before_checkpoint",
    "broker.log.after_checkpoint",
    "broker.log.before_partition_delete",
    "broker.log.partition_renamed",
    "broker.log.before_clean_shutdown",
)
CHECKPOINT_INTERVAL_MS = 5_000
_DELETED = "-delete"
_NO_BOUND = 0x7FFF_FFFF

_log = logging.getLogger(__name__)
_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    """A partition that must exist at start.  `created`: its directory was made before."""

    topic: str
    partition: int
    topic_id: uuid.UUID
    config: TopicConfig
    created: bool


class LogManager:
    """Opens, creates, deletes and maintains the logs below `data_dir`; one broker per directory.

    Raises ConfigError when another process holds the directory.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        clock: Clock | None = None,
        disk: Disk | None = None,
        producer_expiration_ms: int = DAY_MS,
        recovery_threads: int = 1,
    ) -> None:
        self.data_dir = data_dir
        self._recovery_threads = recovery_threads
        self._producer_expiration_ms = producer_expiration_ms
        self.clock: Clock = clock or SystemClock()
        self.disk: Disk = disk or LocalDisk()
        self._lock = checkpoints.DirectoryLock(self.disk, data_dir)
        self._checkpoints = checkpoints.OffsetCheckpoints(self.disk, data_dir)
        self._given_up = GivenUpFiles(self.disk, self.clock)
        self._cleaner = Cleaner(self._checkpoints, self.clock, self._given_up)
        self._logs: dict[_Key, PartitionLog] = {}
        self._offline: dict[_Key, str] = {}
        self._leader_epoch = 0
        self._doomed: list[Path] = []
        self._checkpoint_due_ms = 0

    @property
    def leader_epoch(self) -> int:
        """Epoch of this start: one higher after every unclean stop."""
        return self._leader_epoch

    def open(self, partitions: Iterable[PartitionSpec]) -> None:
        """Recover every partition.  A damaged one is offline (`get` raises), the others serve.

        Directories that no spec names are left alone, with a warning.
        """
        specs = {(spec.topic, spec.partition): spec for spec in partitions}
        clean = checkpoints.take_clean_shutdown(self.disk, self.data_dir)
        created = {key for key, spec in specs.items() if spec.created}
        known = self._checkpoints.load(created) or not created
        last_epoch = checkpoints.read_leader_epoch(self.disk, self.data_dir)
        for name in self.disk.names(self.data_dir):
            if name.endswith(_DELETED):
                self.disk.remove_tree(self.data_dir / name)
        self._doomed.clear()  # what a finished deletion has just renamed away is among them
        points, starts = self._checkpoints.recovery_points, self._checkpoints.log_starts
        newest_epoch = _NO_BOUND if last_epoch is None else last_epoch
        durable = (
            Durable(points.get(key, 0), starts.get(key, 0), clean, known, newest_epoch, key in points)
            for key in specs
        )
        self._recover_all(zip(specs.values(), durable, strict=True))
        self._warn_of_strays(specs)
        if last_epoch is None:
            last_epoch = max((log.leader_epoch for log in self._logs.values()), default=-1)
        self._leader_epoch = max(last_epoch + (not clean), 0)
        checkpoints.write_leader_epoch(self.disk, self.data_dir, self._leader_epoch)
        for log in self._logs.values():
            log.epochs.write(durable=True)
        self._move_recovery_points()
        self._checkpoints.write_recovery_points()

    def _recover_all(self, work: Iterable[tuple[PartitionSpec, Durable]]) -> None:
        """Recover many logs; each is on its own, so the order in which the threads do it tells nothing."""
        todo = list(work)
        if self._recovery_threads == 1:
            found = [self._recover(*item) for item in todo]
        else:
            with ThreadPoolExecutor(self._recovery_threads, thread_name_prefix="recovery") as pool:
                found = list(pool.map(lambda item: self._recover(*item), todo))
        for (spec, _), recovered in zip(todo, found, strict=True):
            self._take(spec, recovered)
        if not all(spec.created for spec, _ in todo):
            sync_directory(self.disk, self.data_dir)  # one for all the directories that were made

    def _recover(self, spec: PartitionSpec, durable: Durable) -> RecoveredLog | str:
        """What the files of a partition amount to, or why it is offline.  In any thread."""
        key = spec.topic, spec.partition
        directory = self._directory(*key)
        try:
            if not self.disk.exists(directory) and spec.created:
                raise DamagedLogError(
                    f"the directory {directory} is missing",
                    fix="Restore it from a copy, or delete the topic",
                )
            if claim(self.disk, directory, spec.topic_id, created=spec.created):
                durable = replace(durable, opened=False)  # so that recovery syncs the directory
            return recover(self.disk, directory, durable, self.clock)
        except (DamagedLogError, OSError) as error:
            _log.error("partition %s-%d is offline: %s", *key, error)
            return str(error)

    def _take(self, spec: PartitionSpec, found: RecoveredLog | str) -> None:
        key = spec.topic, spec.partition
        if isinstance(found, str):
            self._offline[key] = found
            return
        self._logs[key] = PartitionLog(
            *key,
            self._directory(*key),
            spec.config,
            self.clock,
            segments=found.segments,
            producers=found.producers,
            epochs=found.epochs,
            log_start_offset=found.log_start_offset,
        )

    def _warn_of_strays(self, specs: dict[_Key, PartitionSpec]) -> None:
        known = {f"{topic}-{partition}" for topic, partition in specs}
        for name in self.disk.names(self.data_dir):
            if name not in known and self.disk.exists(self.data_dir / name / METADATA):
                _log.warning("%s belongs to no topic and is left alone", self.data_dir / name)

    def create(self, specs: Sequence[PartitionSpec]) -> None:
        """Make new, empty partitions; durable on return.  Raises LogError: KAFKA_STORAGE_ERROR."""
        newborn = Durable(0, 0, clean=False, known=True, newest_epoch=_NO_BOUND, opened=False)
        try:
            self._recover_all((spec, newborn) for spec in specs)
        except OSError as error:
            raise self._cannot_write(error) from error
        reasons = [why for spec in specs if (why := self._offline.pop((spec.topic, spec.partition), ""))]
        if reasons:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, f"cannot make {specs[0].topic}: {reasons[0]}")

    def delete(self, topic: str, partitions: Iterable[int], topic_id: uuid.UUID) -> None:
        """Rename the directories away, durably; `maintain` removes them.  A directory of another id stays.

        Raises LogError: KAFKA_STORAGE_ERROR.
        """
        named = {(topic, partition): self._directory(topic, partition) for partition in partitions}
        doomed = {key: path for key, path in named.items() if belongs(self.disk, path, topic_id)}
        for key in doomed:
            log = self._logs.pop(key, None)
            if log is not None:
                log.close()
            self._offline.pop(key, None)
            self._cleaner.forget(key)
        try:
            self._checkpoints.forget(doomed.keys())
            crash_point("broker.log.before_partition_delete")
            for directory in doomed.values():
                if self.disk.exists(directory):
                    away = self.data_dir / f"{directory.name}.{uuid.uuid4().hex}{_DELETED}"
                    self.disk.rename(directory, away)
                    self._doomed.append(away)
            sync_directory(self.disk, self.data_dir)
        except OSError as error:
            raise self._cannot_write(error) from error
        crash_point("broker.log.partition_renamed")

    def get(self, topic: str, partition: int) -> PartitionLog:
        """Raises LogError: UNKNOWN_TOPIC_OR_PARTITION, KAFKA_STORAGE_ERROR (offline, with the reason)."""
        log = self._logs.get((topic, partition))
        if log is not None:
            return log
        reason = self._offline.get((topic, partition))
        if reason is not None:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, f"{topic}-{partition} is offline: {reason}")
        raise LogError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no partition {topic}-{partition}")

    def partitions(self) -> Iterator[PartitionLog]:
        """Every log that is online."""
        return iter(list(self._logs.values()))

    def offline(self) -> dict[_Key, str]:
        """Why partitions are offline."""
        return dict(self._offline)

    def configure(self, topic: str, config: TopicConfig) -> None:
        """Obey a new configuration from now on."""
        for log in self._logs.values():
            if log.topic == topic:
                log.config = config

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        """Move the log start to `before` (-1: high watermark), durably; returns the new log start.

        Raises LogError: OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR, and what `get` raises.
        """
        log = self.get(topic, partition)
        start = log.advance_log_start(before)
        self._checkpoints.log_starts[topic, partition] = start
        try:
            if start > log.durable_end:
                sync_all(log)  # the log may not end before it begins
            # what only the deleted records tell must be known without them
            sync_snapshot(self.disk, log.directory, log.segment_of(start).base_offset)
            log.epochs.write(durable=True)
            self._checkpoints.write_log_starts()
            log.epochs.cut(start, log.log_end_offset)
        except OSError as error:
            raise self._cannot_write(error) from error
        return start

    def _cannot_write(self, error: OSError) -> LogError:
        return LogError(ErrorCode.KAFKA_STORAGE_ERROR, f"cannot write to {self.data_dir}: {error.strerror}")

    async def maintain(self) -> None:
        """One round of retention, compaction, producer expiry and checkpoints; call about every second.

        A full disk or too many open files only postpone it.  Raises StorageFailure when the disk fails.
        """
        try:
            for log in self.partitions():
                log.states.expire(self.clock.monotonic_ms(), self._producer_expiration_ms)
                await self._drop_expired(log)
            if self.clock.monotonic_ms() >= self._checkpoint_due_ms:
                self._checkpoint_due_ms = self.clock.monotonic_ms() + CHECKPOINT_INTERVAL_MS
                await self.checkpoint()
                for log in self.partitions():
                    if log.config.compact:
                        await self.compact(log)
            await self._given_up.drop_due()
            doomed, self._doomed = self._doomed, []
            for directory in doomed:
                await asyncio.to_thread(self.disk.remove_tree, directory)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EFBIG):
                raise StorageFailure(
                    f"maintenance of {self.data_dir} failed: {error}", fix="Check the disk"
                ) from error
            _log.warning("maintenance of %s is postponed: %s", self.data_dir, error)

    async def _drop_expired(self, log: PartitionLog) -> None:
        count = 0 if log.closed else expired_segments(log, self.clock.now_ms())
        if not count:
            return
        if count == len(log.segments):
            log.roll()
        # first the offset, durably: of the names that go, a crash may keep any
        start = log.segments[count].base_offset
        try:
            await asyncio.to_thread(sync_snapshot, self.disk, log.directory, start)
            log.epochs.write(durable=True)
            await self._move_log_start(log, start)
        except FileNotFoundError:
            if not log.closed:
                raise
        if log.closed:
            return  # its topic was deleted meanwhile
        crash_point("broker.log.before_retention_delete")
        away: list[Path] = []
        for segment in log.replace_segments(0, count, []):  # oldest first: a crash leaves no hole
            away += segment.renamed_away()
            crash_point("broker.log.retention_renamed")
        log.epochs.cut(log.log_start_offset, log.log_end_offset)
        _log.info("%r gave up %d segments", log, count)
        await self._given_up.take(log, away)

    async def _move_log_start(self, log: PartitionLog, start: int) -> None:
        await self._sync(log, start)
        key = log.topic, log.partition
        if start > self._checkpoints.log_starts.get(key, 0):
            self._checkpoints.log_starts[key] = start
            await asyncio.to_thread(self._checkpoints.write_log_starts)

    async def _sync(self, log: PartitionLog, end: int) -> None:
        """Make the log durable up to `end`, where the Flusher does not (`durability: page_cache`)."""
        if log.durable_end < end <= log.high_watermark and (sync := log.begin_sync()) is not None:
            await asyncio.to_thread(sync.run)
            log.finish_sync(sync)

    async def checkpoint(self) -> None:
        """Make the indexes of finished segments durable and move the recovery points.  Raises OSError."""
        for log in self.partitions():
            await self._sync(log, log.high_watermark)
            for segment in log.segments[:-1]:
                if not segment.indexes_synced and not log.closed:
                    await _sync_indexes(self.disk, segment)
            if log.closed:
                continue  # its topic was deleted meanwhile
            log.epochs.write(durable=True)
            remove_snapshots(self.disk, log.directory, keep={segment.base_offset for segment in log.segments})
            durable_to = self._checkpoints.written_points.get((log.topic, log.partition), 0)
            await note_checked_point(log, durable_to)
        crash_point("broker.log.before_checkpoint")
        if self._move_recovery_points():
            await asyncio.to_thread(self._checkpoints.write_recovery_points)
        crash_point("broker.log.after_checkpoint")

    async def compact(self, log: PartitionLog) -> bool:
        """Rewrite the segments of `log` if enough of them is dirty; whether it did.  Raises OSError."""
        return await self._cleaner.compact(log)

    def close(self) -> None:
        """Make everything durable, write snapshots and the clean-shutdown marker, release the directory.

        After `Flusher.close`.  Raises StorageFailure: the next start then recovers as after a crash.
        """
        self._cleaner.stop()
        try:
            for log in self._logs.values():
                sync_all(log)
                for segment in log.segments:
                    if not segment.indexes_synced or segment is log.segments[-1]:
                        _sync_files(self.disk, segment.finish_files())
                        segment.indexes_synced = True
                write_snapshot(self.disk, log.directory, log.log_end_offset, log.states, durable=True)
                log.epochs.write(durable=True)
            self._move_recovery_points()
            self._checkpoints.write_recovery_points()
            crash_point("broker.log.before_clean_shutdown")
            checkpoints.write_clean_shutdown(self.disk, self.data_dir)
        except OSError as error:
            raise StorageFailure(
                f"cannot close the logs in {self.data_dir}: {error}",
                fix="The next start checks the logs as after a crash",
            ) from error
        finally:
            for log in self._logs.values():
                log.close()
            self._lock.release()

    def _move_recovery_points(self) -> bool:
        """Note where the logs are durable; whether the file has to say so yet."""
        # a log whose epochs are not on disk must be checked again: only its batches tell them
        return self._checkpoints.move_recovery_points(
            {key: log.recovery_point for key, log in self._logs.items() if log.epochs.written}
        )

    def _directory(self, topic: str, partition: int) -> Path:
        return self.data_dir / f"{topic}-{partition}"


async def _sync_indexes(disk: Disk, segment: Segment) -> None:
    paths = segment.finish_files()
    try:
        await asyncio.to_thread(_sync_files, disk, paths)
    except FileNotFoundError:
        return  # the segment or its topic was deleted meanwhile
    segment.indexes_synced = True
    segment.rest_indexes()


def _sync_files(disk: Disk, paths: list[Path]) -> None:
    for path in paths:
        sync_file(disk, path)
