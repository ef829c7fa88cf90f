"""A data file's key run in a local file: memory-mapped, rebuildable, never truth.

Only runs of large files are kept (`MIN_ROWS`): small ones are read from the Parquet file faster than
a cache file is synced.  A sidecar that is torn, of another data file or of another secret is ignored.

::

    0    8   magic "TRKEYS01"
    8    8   fingerprint of (data file path, rows, secret), uint64 LE
    16   8   n, number of rows, uint64 LE
    24   1   flags: bit 0 checks follow (hashed keys), bit 1 positions follow (not sorted by code)
    25   7   zero
    32   8n  codes, int64 LE, ascending
         8n  checks, uint64 LE
         4n  positions, uint32 LE

The file is synced before it gets its name, so a name means a whole file.
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tailrace.changes.whole_file import replace_file
from tailrace.sinks.backend import DataFile
from tailrace.sinks.keys import KeyCodes, Secret

MIN_ROWS = 65_536
_MAGIC = b"TRKEYS01"
_HEADER = struct.Struct("<8sQQB7x")


@dataclass(frozen=True, slots=True)
class KeyRun:
    """The keys of one data file in code order; positions None when rank and row position are the same."""

    keys: KeyCodes
    positions: npt.NDArray[np.uint32] | None

    @classmethod
    def of(cls, keys: KeyCodes) -> "KeyRun":
        """The run of a file whose rows have `keys`, in file order."""
        code = keys.code
        if keys.check is None and bool((code[1:] >= code[:-1]).all()):
            return cls(keys, None)
        order = keys.order()
        return cls(keys.take(order), order.astype(np.uint32))


class SidecarStore:
    """The sidecars of one table, in one folder."""

    def __init__(self, folder: Path, secret: Secret) -> None:
        self._folder = folder
        self._secret = secret
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, file: DataFile, run: KeyRun) -> KeyRun:
        """Keep the run of a large file; the returned run is memory-mapped, the memory of `run` is free."""
        if file.rows < MIN_ROWS:
            return run
        parts: list[npt.NDArray[np.generic]] = [run.keys.code]
        if run.keys.check is not None:
            parts.append(run.keys.check)
        if run.positions is not None:
            parts.append(run.positions)
        flags = (run.keys.check is not None) | (run.positions is not None) << 1
        path = self._path(file)
        header = _HEADER.pack(_MAGIC, self._fingerprint(file), len(run.keys), flags)
        columns = [np.ascontiguousarray(part).view(np.uint8).data for part in parts]
        replace_file(path, [header, *columns], durable=True)
        return self.load(file) or run

    def load(self, file: DataFile) -> KeyRun | None:
        """The kept run of a file, None when there is none that fits."""
        path = self._path(file)
        if file.rows < MIN_ROWS or not path.exists():
            return None
        data = np.memmap(path, np.uint8, "r")
        if data.size < _HEADER.size:
            return None
        magic, fingerprint, n, flags = _HEADER.unpack(data[: _HEADER.size].tobytes())
        size = _HEADER.size + n * (8 + 8 * (flags & 1) + 4 * (flags >> 1 & 1))
        if (magic, fingerprint, n, size) != (_MAGIC, self._fingerprint(file), file.rows, data.size):
            return None
        at = _HEADER.size
        code = data[at : at + 8 * n].view(np.int64)
        at += 8 * n
        check = data[at : at + 8 * n].view(np.uint64) if flags & 1 else None
        at += 8 * n * (flags & 1)
        positions = data[at:].view(np.uint32) if flags & 2 else None
        return KeyRun(KeyCodes(code, check), positions)

    def forget(self, path: str) -> None:
        """Remove the sidecar of a data file that left the table."""
        self._named(path).unlink(missing_ok=True)

    def keep_only(self, paths: set[str]) -> None:
        """Remove what belongs to no live data file."""
        names = {self._named(path).name for path in paths}
        for entry in self._folder.iterdir():
            if entry.suffix in (".keys", ".tmp") and entry.name not in names:
                entry.unlink()

    def _path(self, file: DataFile) -> Path:
        return self._named(file.path)

    def _named(self, path: str) -> Path:
        return self._folder / (hashlib.blake2b(path.encode(), digest_size=16).hexdigest() + ".keys")

    def _fingerprint(self, file: DataFile) -> int:
        told = f"{file.path}|{file.rows}|{file.size}|{self._secret[0]}|{self._secret[1]}"
        return int.from_bytes(hashlib.blake2b(told.encode(), digest_size=8).digest(), "little")
