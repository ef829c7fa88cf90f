"""Files that must survive a power cut: open files with users, whole-file replacement, directory entries."""

import os
from pathlib import Path


class LogFile:
    """An open file that several users share; it is closed when its last user is done.

    A worker thread may be inside fdatasync when the event loop deletes the segment: closing then would
    hand the descriptor's number to somebody else.  `pin` and `release` are called on the event loop.
    """

    __slots__ = ("_closing", "_pins", "fd", "path")

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)
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
        os.close(self.fd)
        self.fd = -1  # whoever still comes gets EBADF, not another file


def sync_directory(directory: Path) -> None:
    """Make created, renamed and removed names of `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Make the content of a closed file durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put `content` at `path`: readers see the whole old or the whole new file, also after a crash."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    temporary.rename(path)
    if durable:
        sync_directory(path.parent)


def read_checkpoint(path: Path, columns: int) -> list[list[str]]:
    """Rows of one of Kafka's checkpoint files; a missing file has none.

        0                      version
        2                      number of rows
        orders 0 4711          columns separated by spaces

    Raises ValueError for anything else.
    """
    try:
        lines = path.read_text().splitlines()
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
