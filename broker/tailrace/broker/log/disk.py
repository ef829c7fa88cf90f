"""The one seam between the log and its disk: every operation on files and folders goes through a `Disk`.

`LocalDisk` is the machine's; tests bring disks that record a trace, lose what was not synced, or fail.
A write is durable after `fdatasync` of its file, a name after `fsync` of its folder
(POSIX promises no more, and file systems differ in what else they keep).
"""

import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tailrace.broker.protocol.fields import Buffer


class Disk(Protocol):
    """Files by descriptor, names by path.  Everything raises OSError; positions and sizes are bytes."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """A descriptor for reading and writing."""
        ...

    def close(self, fd: int, /) -> None: ...

    def read(self, fd: int, size: int, at: int, /) -> bytes:
        """At most `size` bytes from `at`; fewer only at the end of the file."""
        ...

    def write(self, fd: int, parts: Sequence[Buffer], at: int, /) -> int:
        """Write the parts one after the other from `at`; how many bytes were taken."""
        ...

    def truncate(self, fd: int, size: int, /) -> None: ...

    def fdatasync(self, fd: int, /) -> None:
        """Make content and size durable."""
        ...

    def size(self, fd: int, /) -> int: ...

    def modified_ns(self, fd: int, /) -> int:
        """Time of the last write, nanoseconds since the epoch."""
        ...

    def set_modified_ns(self, fd: int, modified_ns: int, /) -> None: ...

    def exists(self, path: Path) -> bool: ...

    def names(self, directory: Path) -> list[str]:
        """What the folder holds, ascending."""
        ...

    def make_directory(self, path: Path) -> None:
        """Make the folder and its parents; one that is there already is fine."""
        ...

    def remove_tree(self, path: Path) -> None: ...

    def rename(self, source: Path, target: Path) -> None:
        """Take the place of `target`, atomically."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a name; a missing one is fine."""
        ...

    def open_directory(self, path: Path) -> int:
        """A descriptor for `fsync` only."""
        ...

    def fsync(self, fd: int, /) -> None:
        """Of a folder: make created, renamed and removed names durable."""
        ...

    def lock(self, fd: int, /) -> bool:
        """Claim the file for this process until the descriptor is closed; False when another has it."""
        ...


class LocalDisk:
    """The file systems of this machine."""

    def open(self, path: Path, *, create: bool = False) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)

    def close(self, fd: int, /) -> None:
        os.close(fd)

    def read(self, fd: int, size: int, at: int, /) -> bytes:
        return os.pread(fd, size, at)

    def write(self, fd: int, parts: Sequence[Buffer], at: int, /) -> int:
        return os.pwritev(fd, parts, at)

    def truncate(self, fd: int, size: int, /) -> None:
        if os.fstat(fd).st_size != size:  # without a change it would still wait for the file system's journal
            os.ftruncate(fd, size)

    def fdatasync(self, fd: int, /) -> None:
        os.fdatasync(fd)

    def fsync(self, fd: int, /) -> None:
        os.fsync(fd)

    def size(self, fd: int, /) -> int:
        return os.fstat(fd).st_size

    def modified_ns(self, fd: int, /) -> int:
        return os.fstat(fd).st_mtime_ns

    def set_modified_ns(self, fd: int, modified_ns: int, /) -> None:
        os.utime(fd, ns=(modified_ns, modified_ns))

    def exists(self, path: Path) -> bool:
        return path.exists()

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))  # noqa: PTH208 - a start lists thousands of folders

    def make_directory(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def open_directory(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def lock(self, fd: int, /) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
