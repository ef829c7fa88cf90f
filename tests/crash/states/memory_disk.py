"""A disk in memory that records what was done to it, in the order in which it was done.

The trace names files and folders by number: a name is an entry of a folder, and may be lost or kept on its
own, like any write, until its folder or its file is synced.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tailrace.broker.protocol.fields import Buffer

ROOT = 0  # number of the folder "/"; other folders have negative numbers, files positive ones


class Write(NamedTuple):
    file: int
    at: int
    content: bytes


class Truncate(NamedTuple):
    file: int
    size: int


class Sync(NamedTuple):
    file: int


class Names(NamedTuple):
    """One change of names: atomic, whatever it touches.  (folder, name, number), None removes the name."""

    changes: tuple[tuple[int, str, int | None], ...]


class SyncFolder(NamedTuple):
    folder: int


Step = Write | Truncate | Sync | Names | SyncFolder


class Tree(NamedTuple):
    """What a disk holds: entries of each folder, and the content of each file, both by number."""

    folders: dict[int, dict[str, int]]
    files: dict[int, bytes]

    def flat(self) -> "Flat":
        """The files and (empty content None) folders that have a path."""
        found: list[tuple[str, bytes | None]] = []
        todo = [("", ROOT)]
        while todo:
            path, number = todo.pop()
            for name, child in self.folders.get(number, {}).items():
                below = f"{path}/{name}"
                if child < 0:
                    todo.append((below, child))
                    found.append((below, None))
                else:
                    found.append((below, self.files[child]))
        found.sort(key=lambda entry: entry[0])
        return tuple(found)


Flat = tuple[tuple[str, bytes | None], ...]


@dataclass
class MemoryDisk:
    """Obeys the log's `Disk`; `trace` is every step that a power cut may keep or lose."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    files: dict[int, bytes | bytearray] = field(default_factory=dict)
    trace: list[Step] = field(default_factory=list)
    open_files: dict[int, int] = field(default_factory=dict)
    locks: set[int] = field(default_factory=set)  # what they hold is read by no later start
    _numbers: int = ROOT
    _fds: int = 2

    @classmethod
    def of(cls, flat: Flat) -> "MemoryDisk":
        """A disk that holds these files and folders, all durable."""
        disk = cls()
        paths = {"": ROOT}
        for path, content in flat:  # sorted: a folder stands before what it holds
            above, _, name = path.rpartition("/")
            disk._numbers += 1
            number = disk._numbers if content is not None else -disk._numbers
            disk.folders[paths[above]][name] = number
            if content is None:
                paths[path] = number
                disk.folders[number] = {}
            else:
                disk.files[number] = content
        return disk

    def tree(self) -> Tree:
        """What a process that starts now finds."""
        return Tree(self.folders, {number: bytes(content) for number, content in self.files.items()})

    # -- Disk --------------------------------------------------------------------------------------

    def open(self, path: Path, *, create: bool = False) -> int:
        folder, name = self._place(path)
        number = self.folders[folder].get(name)
        if number is None:
            if not create:
                raise FileNotFoundError(2, "No such file", str(path))
            number = self._new(folder, name, 1)
            self.files[number] = b""
        return self._descriptor(number)

    def open_directory(self, path: Path) -> int:
        return self._descriptor(self._folder(path.parts[1:], path))

    def close(self, fd: int, /) -> None:
        del self.open_files[fd]

    def read(self, fd: int, size: int, at: int, /) -> bytes:
        return bytes(self.files[self.open_files[fd]][at : at + size])

    def write(self, fd: int, parts: Sequence[Buffer], at: int, /) -> int:
        number, content = self.open_files[fd], b"".join(parts)
        put(self._changed(number), at, content)
        if number not in self.locks:
            self.trace.append(Write(number, at, content))
        return len(content)

    def truncate(self, fd: int, size: int, /) -> None:
        number = self.open_files[fd]
        if len(self.files[number]) != size:
            cut(self._changed(number), size)
            if number not in self.locks:
                self.trace.append(Truncate(number, size))

    def fdatasync(self, fd: int, /) -> None:
        self.trace.append(Sync(self.open_files[fd]))

    def fsync(self, fd: int, /) -> None:
        self.trace.append(SyncFolder(self.open_files[fd]))

    def size(self, fd: int, /) -> int:
        return len(self.files[self.open_files[fd]])

    def modified_ns(self, fd: int, /) -> int:
        return 0

    def set_modified_ns(self, fd: int, modified_ns: int, /) -> None:
        return

    def exists(self, path: Path) -> bool:
        number = ROOT
        for name in path.parts[1:]:
            found = self.folders.get(number, {}).get(name)
            if found is None:
                return False
            number = found
        return True

    def names(self, directory: Path) -> list[str]:
        return sorted(self.folders[self._folder(directory.parts[1:], directory)])

    def make_directory(self, path: Path) -> None:
        number = ROOT
        for name in path.parts[1:]:
            found = self.folders[number].get(name)
            if found is None:
                found = self._new(number, name, -1)
            number = found

    def remove_tree(self, path: Path) -> None:
        number = self._folder(path.parts[1:], path)
        for name, child in list(self.folders[number].items()):
            if child < 0:
                self.remove_tree(path / name)
            else:
                self._change((number, name, None))
        above, name = self._place(path)
        self._change((above, name, None))

    def rename(self, source: Path, target: Path) -> None:
        from_folder, from_name = self._place(source)
        to_folder, to_name = self._place(target)
        number = self.folders[from_folder].get(from_name)
        if number is None:
            raise FileNotFoundError(2, "No such file", str(source))
        self._change((from_folder, from_name, None), (to_folder, to_name, number))

    def unlink(self, path: Path) -> None:
        folder, name = self._place(path)
        if name in self.folders[folder]:
            self._change((folder, name, None))

    def lock(self, fd: int, /) -> bool:
        self.locks.add(self.open_files[fd])
        return True

    # -- numbers -----------------------------------------------------------------------------------

    def _place(self, path: Path) -> tuple[int, str]:
        *above, name = path.parts[1:]
        return self._folder(above, path), name

    def _folder(self, names: Sequence[str], path: Path) -> int:
        number = ROOT
        for name in names:
            found = self.folders.get(number, {}).get(name)
            if found is None:
                raise FileNotFoundError(2, "No such file or directory", str(path))
            number = found
        return number

    def _descriptor(self, number: int) -> int:
        self._fds += 1
        self.open_files[self._fds] = number
        return self._fds

    def _new(self, folder: int, name: str, sign: int) -> int:
        self._numbers += 1
        self._change((folder, name, sign * self._numbers))
        return sign * self._numbers

    def _change(self, *changes: tuple[int, str, int | None]) -> None:
        apply_names(self.folders, changes)
        self.trace.append(Names(changes))

    def _changed(self, number: int) -> bytearray:
        content = self.files[number]
        if not isinstance(content, bytearray):
            content = self.files[number] = bytearray(content)
        return content


def put(content: bytearray, at: int, new: bytes) -> None:
    """What pwrite does."""
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(new)] = new


def cut(content: bytearray, size: int) -> None:
    """What ftruncate does."""
    del content[size:]
    content.extend(bytes(size - len(content)))


def apply_names(folders: dict[int, dict[str, int]], changes: Sequence[tuple[int, str, int | None]]) -> None:
    """Change entries of folders."""
    for folder, name, number in changes:
        entries = folders.setdefault(folder, {})
        if number is None:
            entries.pop(name, None)
        else:
            entries[name] = number
            if number < 0:
                folders.setdefault(number, {})
