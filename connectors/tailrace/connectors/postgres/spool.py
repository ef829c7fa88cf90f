"""Where the messages of open transactions wait for their commit: memory up to a limit, then files.

A spool holds one transaction in chunks of packed messages (what was fed at once).  Over a common limit the largest
spool moves to a file without a name, which vanishes with the process: after a crash the server sends it all again.

    a chunk in a file:  Int64 bytes | Int64 messages | the messages, packed | Int64 end of each
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from tailrace.changes import TailraceError
from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.pgoutput import RELATION, TYPE, Messages
from tailrace.connectors.postgres.wire import Bytes, Offsets

_CHUNK_HEADER = 16
_PER_MESSAGE = 8


class SpoolRoom:
    """The room that all spools of a connection share."""

    def __init__(self, folder: Path, memory_limit: int) -> None:
        self._folder = folder
        self._memory_limit = memory_limit
        self._spools: set[Spool] = set()

    @property
    def nbytes(self) -> int:
        """Bytes held, in memory and in files."""
        return sum(spool.nbytes for spool in self._spools)

    def open(self, xid_bytes: int) -> "Spool":
        """A new, empty spool for messages that (do not) name their subtransaction."""
        spool = Spool(self, xid_bytes)
        self._spools.add(spool)
        return spool

    def release(self, spool: "Spool") -> None:
        self._spools.discard(spool)

    def make_room(self) -> None:
        """Move the largest spools to files until the limit holds."""
        in_memory = sum(spool.memory_bytes for spool in self._spools)
        while in_memory > self._memory_limit:
            largest = max(self._spools, key=lambda spool: spool.memory_bytes)
            in_memory -= largest.memory_bytes
            largest.move_to_file(self._folder)

    def close(self) -> None:
        for spool in list(self._spools):
            spool.close()


class Spool:
    """The messages of one open transaction, in order."""

    def __init__(self, room: SpoolRoom, xid_bytes: int) -> None:
        self._room = room
        self._xid_bytes = xid_bytes
        self._chunks: list[tuple[Bytes, Offsets]] = []
        self._file: IO[bytes] | None = None
        self._aborted: set[int] = set()
        self.nbytes = 0
        self.memory_bytes = 0

    def append(self, messages: Messages) -> None:
        """Take a copy of the messages; raises TailraceError when the disk is full."""
        sizes = messages.ends - messages.starts
        ends = np.cumsum(sizes)
        packed = np.empty(int(ends[-1]) if ends.size else 0, np.uint8)
        _pack(messages.data, messages.starts, messages.ends, packed)
        size = packed.size + _PER_MESSAGE * ends.size
        self._chunks.append((packed, ends))
        self.nbytes += size
        self.memory_bytes += size
        if self._file is not None:
            self._write_chunks(self._file)
        self._room.make_room()

    def abort(self, subxid: int) -> None:
        """Leave out the rows of this subtransaction."""
        self._aborted.add(subxid)

    def pieces(self, limit: int) -> Iterator[Messages]:
        """The messages in order, in runs of about `limit` bytes; at least one run, which may be empty."""
        waiting: list[tuple[Bytes, Offsets]] = []
        size = 0
        for chunk in self._all_chunks():
            if waiting and size + chunk[0].size > limit:
                yield self._joined(waiting)
                waiting, size = [], 0
            waiting.append(chunk)
            size += chunk[0].size
        yield self._joined(waiting)

    def close(self) -> None:
        """Forget everything."""
        if self._file is not None:
            self._file.close()
        self._chunks = []
        self._room.release(self)

    def move_to_file(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise _cannot_spool(folder, error) from error
        self._folder = folder
        self._write_chunks(self._file)

    def _write_chunks(self, file: IO[bytes]) -> None:
        try:
            for packed, ends in self._chunks:
                for part in (np.array([packed.size, ends.size], np.int64), packed, ends):
                    _write_all(file, part.view(np.uint8).data)
        except OSError as error:
            file.close()
            raise _cannot_spool(self._folder, error) from error
        self._chunks = []
        self.memory_bytes = 0

    def _all_chunks(self) -> Iterator[tuple[Bytes, Offsets]]:
        if self._file is not None:
            self._file.seek(0)
            while header := self._file.read(_CHUNK_HEADER):
                size, count = np.frombuffer(header, np.int64).tolist()
                packed = np.frombuffer(self._file.read(size), np.uint8)
                yield packed, np.frombuffer(self._file.read(_PER_MESSAGE * count), np.int64)
        yield from self._chunks

    def _joined(self, chunks: list[tuple[Bytes, Offsets]]) -> Messages:
        packed = np.concatenate([np.empty(0, np.uint8), *(data for data, _ in chunks)])
        bases = np.cumsum([0, *(data.size for data, _ in chunks)])
        ends = np.concatenate(
            [np.empty(0, np.int64), *(ends + base for (_, ends), base in zip(chunks, bases, strict=False))]
        )
        starts = np.concatenate([np.zeros(min(1, ends.size), np.int64), ends[:-1]])
        packed.flags.writeable = False
        messages = Messages(packed, starts, ends, packed[starts], self._xid_bytes)
        return self._without_aborted(messages) if self._aborted else messages

    def _without_aborted(self, messages: Messages) -> Messages:
        """Rows of aborted subtransactions are dropped; a Relation message may serve their siblings too."""
        xid = messages.data[messages.starts[:, None] + np.arange(1, 5)].view(">u4").reshape(-1)
        kept = ~np.isin(xid, list(self._aborted)) | np.isin(messages.kinds, (RELATION, TYPE))
        return Messages(
            messages.data,
            messages.starts[kept],
            messages.ends[kept],
            messages.kinds[kept],
            messages.xid_bytes,
        )


def _write_all(file: IO[bytes], part: memoryview) -> None:
    """An unbuffered file may take a part only, and keeps nothing back that could fail when it is closed."""
    while part:
        part = part[file.write(part) :]


def _cannot_spool(folder: Path, error: OSError) -> TailraceError:
    return TailraceError(
        f"an open transaction cannot be spooled to {folder}: {error.strerror}",
        fix="free space there or choose another data directory; nothing is lost, the server sends it again",
    )


@kernel
def _pack(data: Bytes, starts: Offsets, ends: Offsets, out: npt.NDArray[np.uint8]) -> None:
    at = 0
    for i in range(starts.size):
        for j in range(starts[i], ends[i]):
            out[at] = data[j]
            at += 1
