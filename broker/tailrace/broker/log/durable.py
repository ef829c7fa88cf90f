"""Files that must survive a power cut: open files with users, whole-file replacement, checkpoints."""

import errno
from pathlib import Path

from tailrace.broker.log.disk import Disk


class LogFile:
    """An open file that several users share; it is closed when its last user is done.

    A worker thread may be inside fdatasync when the event loop deletes the segment: closing then would
    hand the descriptor's number to somebody else.  `pin` and `release` are called on the event loop.
    """

    __slots__ = ("_closing", "_pins", "disk", "fd", "path")

    def __init__(self, disk: Disk, path: Path, *, create: bool = False) -> None:
        self.disk = disk
        self.path = path
        self.fd = disk.open(path, create=create)
        self._pins = 0
        self._closing = False

    def pin(self) -> None:
        self._pins += 1

    def release(self) -> None:
        self._pins -= 1
        if self._closing and not self._pins:
            self._close()

    def close(self) -> None:
        """Close now, or after the last `release`."""
        if not self._closing:
            self._closing = True
            if not self._pins:
                self._close()

    def _close(self) -> None:
        self.disk.close(self.fd)
        self.fd = -1  # whoever still comes gets EBADF, not another file


def sync_directory(disk: Disk, directory: Path) -> None:
    """Make created, renamed and removed names of `directory` durable."""
    fd = disk.open_directory(directory)
    try:
        disk.fsync(fd)
    finally:
        disk.close(fd)


def drop_files(disk: Disk, directory: Path, paths: list[Path]) -> None:
    """Unlink files that were renamed away, once that is durable: else a start may find their old names."""
    sync_directory(disk, directory)
    for path in paths:
        disk.unlink(path)


def discard_files(disk: Disk, directory: Path, paths: list[Path]) -> None:
    """Remove files that must never come back; a start finishes what a crash cut short (`finish_swaps`)."""
    away = [path.with_name(path.name + ".deleted") for path in paths]
    for path, target in zip(paths, away, strict=True):
        disk.rename(path, target)
    if away:
        drop_files(disk, directory, away)


def sync_file(disk: Disk, path: Path) -> None:
    """Make the content of a closed file durable."""
    fd = disk.open(path)
    try:
        disk.fdatasync(fd)
    finally:
        disk.close(fd)


def read_file(disk: Disk, path: Path) -> bytes:
    """The whole content of a file."""
    fd = disk.open(path)
    try:
        return disk.read(fd, disk.size(fd), 0)
    finally:
        disk.close(fd)


def write_whole(disk: Disk, fd: int, content: bytes, at: int) -> None:
    """Write all of `content` at `at`.  Raises OSError, also where the disk took only a part of it."""
    if disk.write(fd, [content], at) != len(content):
        raise OSError(errno.ENOSPC, "short write")


def replace_file(
    disk: Disk, path: Path, content: bytes, *, durable: bool = True, name_durable: bool = True
) -> None:
    """Put `content` at `path`: readers see the whole old or the whole new file, also after a crash.

    Without `durable` a crash may also leave a damaged one.  Without `name_durable` the folder is still to be synced.
    """
    temporary = path.with_name(path.name + ".tmp")
    fd = disk.open(temporary, create=True)
    try:
        disk.truncate(fd, 0)
        write_whole(disk, fd, content, 0)
        if durable:
            disk.fdatasync(fd)
    finally:
        disk.close(fd)
    disk.rename(temporary, path)
    if durable and name_durable:
        sync_directory(disk, path.parent)


def read_checkpoint(disk: Disk, path: Path, columns: int) -> list[list[str]]:
    """Rows of one of Kafka's checkpoint files; a missing file has none.

        0                      version
        2                      number of rows
        orders 0 4711          columns separated by spaces

    Raises ValueError for anything else.
    """
    try:
        lines = read_file(disk, path).decode().splitlines()
    except FileNotFoundError:
        return []
    if len(lines) < 2 or lines[0] != "0" or int(lines[1]) != len(lines) - 2:
        raise ValueError(f"{path} is not a checkpoint file")
    rows = [line.split(" ") for line in lines[2:]]
    if any(len(row) != columns for row in rows):
        raise ValueError(f"{path} has a row that is not of {columns} columns")
    return rows


def checkpoint_content(rows: list[str]) -> bytes:
    """The bytes that `read_checkpoint` reads."""
    return "".join(f"{line}\n" for line in ["0", str(len(rows)), *rows]).encode()
