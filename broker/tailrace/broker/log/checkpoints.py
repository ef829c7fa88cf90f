"""What a data directory remembers beside its logs.

.lock                              held (flock) by the one broker that uses the directory
.kafka_cleanshutdown               present while no broker runs, if the last one stopped in order
recovery-point-offset-checkpoint   topic partition offset: everything below is durable, indexes too
log-start-offset-checkpoint        topic partition offset: moved by DeleteRecords
leader-epoch                       epoch of the newest start
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from tailrace.broker.log.durable import checkpoint_content, read_checkpoint, replace_file, sync_directory
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

    def __init__(self, data_dir: Path) -> None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(data_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"the broker cannot use the data directory {data_dir}: {error.strerror}",
                fix="Give it a directory that it may write to",
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise ConfigError(
                f"another broker uses the data directory {data_dir}",
                fix="Stop it, or give this one a data directory of its own",
            ) from error

    def release(self) -> None:
        os.close(self._fd)


def read_offsets(path: Path) -> Offsets | None:
    """The rows of an offset checkpoint, None when the file is missing.  Raises TailraceError when damaged."""
    if not path.exists():
        return None
    try:
        return {(topic, int(partition)): int(offset) for topic, partition, offset in read_checkpoint(path, 3)}
    except ValueError as error:
        raise TailraceError(
            f"the checkpoint file {path} is damaged",
            fix="Remove it: every segment is then checked at the next start",
        ) from error


def write_offsets(path: Path, offsets: Mapping[tuple[str, int], int]) -> None:
    """Replace an offset checkpoint, durably.  Raises OSError."""
    rows = [f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items())]
    replace_file(path, checkpoint_content(rows))


def take_clean_shutdown(data_dir: Path) -> bool:
    """Whether the last broker stopped in order; from now on this one has not."""
    marker = data_dir / CLEAN_SHUTDOWN
    if not marker.exists():
        return False
    marker.unlink()
    sync_directory(data_dir)
    return True


def write_clean_shutdown(data_dir: Path) -> None:
    """Say that everything is durable and complete."""
    replace_file(data_dir / CLEAN_SHUTDOWN, b'{"version":0,"brokerEpoch":-1}')


def read_leader_epoch(data_dir: Path) -> int | None:
    """The epoch of the last start, None before the first one or when the file is damaged."""
    try:
        return int((data_dir / _LEADER_EPOCH).read_text())
    except (FileNotFoundError, ValueError):
        return None


def write_leader_epoch(data_dir: Path, epoch: int) -> None:
    replace_file(data_dir / _LEADER_EPOCH, f"{epoch}\n".encode())
