"""Disks that fail when a test says so."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tailrace.broker.log.disk import LocalDisk
from tailrace.broker.protocol.fields import Buffer

Check = Callable[[str, Path], None]


class FaultyDisk(LocalDisk):
    """The local disk, with a check before every operation that can fail; `before(operation, path)` may raise."""

    def __init__(self) -> None:
        self.before: Check = lambda _operation, _path: None
        self._paths: dict[int, Path] = {}

    def path_of(self, fd: int) -> Path:
        return self._paths[fd]

    def open(self, path: Path, *, create: bool = False) -> int:
        self.before("open", path)
        fd = super().open(path, create=create)
        self._paths[fd] = path
        return fd

    def open_directory(self, path: Path) -> int:
        self.before("open_directory", path)
        fd = super().open_directory(path)
        self._paths[fd] = path
        return fd

    def write(self, fd: int, parts: Sequence[Buffer], at: int, /) -> int:
        self.before("write", self._paths[fd])
        return super().write(fd, parts, at)

    def read(self, fd: int, size: int, at: int, /) -> bytes:
        self.before("read", self._paths[fd])
        return super().read(fd, size, at)

    def fdatasync(self, fd: int, /) -> None:
        self.before("fdatasync", self._paths[fd])
        super().fdatasync(fd)

    def fsync(self, fd: int, /) -> None:
        self.before("fsync", self._paths[fd])
        super().fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        self.before("rename", source)
        super().rename(source, target)
