"""What a data directory remembers beside its logs.

.lock                              held (flock) by the one broker that uses the directory; its process id
.kafka_cleanshutdown               present while no broker runs, if the last one stopped in order
recovery-point-offset-checkpoint   topic partition offset: everything below is durable, indexes too
log-start-offset-checkpoint        topic partition offset: moved by DeleteRecords
leader-epoch                       epoch of the newest start
"""

import contextlib
import os
import threading
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import (
    checkpoint_content,
    read_checkpoint,
    read_file,
    replace_file,
    sync_directory,
)
from tailrace.changes.errors import ConfigError, TailraceError

RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
CLEANED = "cleaner-offset-checkpoint"
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
_LEADER_EPOCH = "leader-epoch"

Offsets = dict[tuple[str, int], int]


class DirectoryLock:
    """The claim of one process on a data directory; the kernel gives it back when the process dies.

    Raises ConfigError when another process has it or the directory cannot be written.
    """

    def __init__(self, disk: Disk, data_dir: Path) -> None:
        self._disk = disk
        try:
            _make_durably(disk, data_dir)
            self._fd = disk.open(data_dir / ".lock", create=True)
        except OSError as error:
            raise ConfigError(
                f"the broker cannot use the data directory {data_dir}: {error.strerror}",
                fix="Give it a directory that it may write to",
            ) from error
        if not disk.lock(self._fd):
            holder = disk.read(self._fd, 32, 0).decode(errors="replace").strip()
            disk.close(self._fd)
            raise ConfigError(
                f"another broker (process {holder or 'unknown'}) uses the data directory {data_dir}",
                fix="Stop it, or give this one a data directory of its own",
            )
        with contextlib.suppress(OSError):  # a full disk holds the claim, only not our number
            disk.truncate(self._fd, 0)
            disk.write(self._fd, [f"{os.getpid()}\n".encode()], 0)

    def release(self) -> None:
        self._disk.close(self._fd)


def _make_durably(disk: Disk, data_dir: Path) -> None:
    missing = [path for path in (data_dir, *data_dir.parents) if not disk.exists(path)]
    disk.make_directory(data_dir)
    for path in missing:
        with contextlib.suppress(PermissionError):  # a folder that may be entered but not listed
            sync_directory(disk, path.parent)


def read_offsets(disk: Disk, path: Path) -> Offsets | None:
    """The rows of an offset checkpoint, None when the file is missing.  Raises TailraceError when damaged."""
    if not disk.exists(path):
        return None
    try:
        return {
            (topic, int(partition)): int(offset)
            for topic, partition, offset in read_checkpoint(disk, path, 3)
        }
    except ValueError as error:
        raise TailraceError(
            f"the checkpoint file {path} is damaged",
            fix="Remove it: every segment is then checked at the next start",
        ) from error


def write_offsets(disk: Disk, path: Path, offsets: Mapping[tuple[str, int], int]) -> None:
    """Replace an offset checkpoint, durably.  Raises OSError."""
    rows = [f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items())]
    replace_file(disk, path, checkpoint_content(rows))


class OffsetCheckpoints:
    """The three offset checkpoints of a data directory, as they are and as the files say.

    A checkpoint thread and the event loop may both write: each file is replaced under a lock, with what
    holds at that moment, so that an older state never overwrites a newer one.
    """

    def __init__(self, disk: Disk, data_dir: Path) -> None:
        self._disk = disk
        self._data_dir = data_dir
        self._writing = threading.Lock()
        self.recovery_points: Offsets = {}
        self.written_points: Offsets = {}
        self.log_starts: Offsets = {}
        self.cleaned: Offsets = {}

    def load(self, kept: set[tuple[str, int]]) -> bool:
        """Read the rows of the partitions in `kept`; whether there was a file of recovery points.

        What is left of a deleted topic must not count for a new one of its name.
        """
        points = read_offsets(self._disk, self._data_dir / RECOVERY_POINTS)
        starts = read_offsets(self._disk, self._data_dir / LOG_STARTS) or {}
        cleaned = read_offsets(self._disk, self._data_dir / CLEANED) or {}
        self.recovery_points = {key: point for key, point in (points or {}).items() if key in kept}
        self.log_starts = {key: start for key, start in starts.items() if key in kept}
        self.cleaned = {key: offset for key, offset in cleaned.items() if key in kept}
        return points is not None

    def forget(self, keys: AbstractSet[tuple[str, int]]) -> None:
        """The partitions are deleted.  Raises OSError."""
        for key in keys:
            self.recovery_points.pop(key, None)
            self.cleaned.pop(key, None)
        started = self.log_starts.keys() & keys
        for key in started:
            del self.log_starts[key]
        if started:
            self.write_log_starts()
        self.write_recovery_points()

    def move_recovery_points(self, moved: Offsets) -> bool:
        """Note where logs are durable; whether the file has to say so yet."""
        self.recovery_points.update(moved)
        return self.recovery_points != self.written_points

    def write_recovery_points(self) -> None:
        with self._writing:
            points = dict(self.recovery_points)
            write_offsets(self._disk, self._data_dir / RECOVERY_POINTS, points)
            self.written_points = points

    def write_log_starts(self) -> None:
        with self._writing:
            write_offsets(self._disk, self._data_dir / LOG_STARTS, dict(self.log_starts))

    def write_cleaned(self) -> None:
        with self._writing:
            write_offsets(self._disk, self._data_dir / CLEANED, dict(self.cleaned))


def take_clean_shutdown(disk: Disk, data_dir: Path) -> bool:
    """Whether the last broker stopped in order; from now on this one has not."""
    marker = data_dir / CLEAN_SHUTDOWN
    if not disk.exists(marker):
        return False
    disk.unlink(marker)
    sync_directory(disk, data_dir)
    return True


def write_clean_shutdown(disk: Disk, data_dir: Path) -> None:
    """Say that everything is durable and complete."""
    replace_file(disk, data_dir / CLEAN_SHUTDOWN, b'{"version":0,"brokerEpoch":-1}')


def read_leader_epoch(disk: Disk, data_dir: Path) -> int | None:
    """The epoch of the last start, None before the first one or when the file is damaged."""
    try:
        return int(read_file(disk, data_dir / _LEADER_EPOCH))
    except (FileNotFoundError, ValueError):
        return None


def write_leader_epoch(disk: Disk, data_dir: Path, epoch: int) -> None:
    replace_file(disk, data_dir / _LEADER_EPOCH, f"{epoch}\n".encode())
