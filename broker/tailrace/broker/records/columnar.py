"""Records as columns: what the compiled loops of `columnar_build` write and those of `columnar_parse` read.

Shapes: n is the number of records; positions and lengths are int64 and count bytes.  No Python object per
record.  The record batch itself (v2, magic 2) is drawn in `columnar_build`.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class BytesColumn:
    """n byte strings: string i is `data[offsets[i]:offsets[i + 1]]`, or null where `valid[i]` is 0.

    offsets  int64[n + 1], not decreasing.
    data     uint8[...].
    valid    uint8[n] of 0 and 1, None when no string is null; a null's range is not read.
    """

    offsets: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]
    valid: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def from_strings(cls, strings: list[bytes | None]) -> Self:
        """A column of a few strings (control paths, dictionaries)."""
        offsets = np.zeros(len(strings) + 1, np.int64)
        np.cumsum([len(string or b"") for string in strings], out=offsets[1:])
        data = np.frombuffer(b"".join(string or b"" for string in strings), np.uint8)
        if None not in strings:
            return cls(offsets, data)
        return cls(offsets, data, np.array([string is not None for string in strings], np.uint8))

    def to_strings(self) -> list[bytes | None]:
        """The column as Python objects (control paths, tests)."""
        data = self.data.tobytes()
        valid = [1] * len(self) if self.valid is None else self.valid.tolist()
        bounds = self.offsets.tolist()
        return [
            data[start:end] if present else None
            for start, end, present in zip(bounds, bounds[1:], valid, strict=False)
        ]


@dataclass(frozen=True, slots=True)
class HeaderColumns:
    """The change headers of n records (ARCHITECTURE.md, "What travels"); op, lsn, seq, xid, ts are on all.

    op              uint8[n], letters of `tailrace.changes`.
    lsn, seq, ts    int64[n].
    xid             int64[n] of unsigned 32-bit values.
    unchanged       int16[n], index into `unchanged_sets`; -1: the record has no `unchanged` header.
    unchanged_sets  the distinct values of the `unchanged` header.
    prior           the `prior` header of each record, null where it has none; None: no record has one.
    gone            uint8[n], 1 where the record has the empty header `gone`; None: no record has it.
    """

    op: npt.NDArray[np.uint8]
    lsn: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int64]
    xid: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    unchanged: npt.NDArray[np.int16]
    unchanged_sets: tuple[bytes, ...] = ()
    prior: BytesColumn | None = None
    gone: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class RecordColumns:
    """n records in offset order, as positions in one buffer of uncompressed records.

    buffer          uint8[...], holds every key, value and header below.
    offset          int64[n], the record's offset in its partition.
    timestamp_ms    int64[n], milliseconds since the epoch, -1 where the producer gave none.
    key_start, key_length, value_start, value_length   int64[n]; a length of -1 is null.
    header_start    int64[n], where the record's first header begins.
    header_count    int64[n].
    next_offset     the offset after the last batch read, also where compaction removed its last records;
                    -1 when there was no batch.
    """

    buffer: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    timestamp_ms: npt.NDArray[np.int64]
    key_start: npt.NDArray[np.int64]
    key_length: npt.NDArray[np.int64]
    value_start: npt.NDArray[np.int64]
    value_length: npt.NDArray[np.int64]
    header_start: npt.NDArray[np.int64]
    header_count: npt.NDArray[np.int64]
    next_offset: int

    def __len__(self) -> int:
        return len(self.offset)

    def between(self, first: int, last: int) -> Self:
        """The records first..last - 1, in the same buffer."""
        part = slice(first, last)
        return replace(
            self,
            offset=self.offset[part],
            timestamp_ms=self.timestamp_ms[part],
            key_start=self.key_start[part],
            key_length=self.key_length[part],
            value_start=self.value_start[part],
            value_length=self.value_length[part],
            header_start=self.header_start[part],
            header_count=self.header_count[part],
        )

    def key(self, record: int) -> bytes | None:
        """The key of one record (control paths)."""
        return self._string(int(self.key_start[record]), int(self.key_length[record]))

    def value(self, record: int) -> bytes | None:
        """The value of one record (control paths)."""
        return self._string(int(self.value_start[record]), int(self.value_length[record]))

    def _string(self, start: int, length: int) -> bytes | None:
        return None if length < 0 else self.buffer[start : start + length].tobytes()


@dataclass(frozen=True, slots=True)
class ChangeHeaders:
    """The change headers found on n records; a record without one holds the default in brackets.

    op                             uint8[n] [0]
    lsn, seq, xid, ts              int64[n] [-1]
    unchanged_start, _length       int64[n], positions in the records' buffer [length -1]
    prior_start, _length           int64[n] [length -1]
    """

    op: npt.NDArray[np.uint8]
    lsn: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int64]
    xid: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    unchanged_start: npt.NDArray[np.int64]
    unchanged_length: npt.NDArray[np.int64]
    prior_start: npt.NDArray[np.int64]
    prior_length: npt.NDArray[np.int64]

    def between(self, first: int, last: int) -> Self:
        """Those of the records first..last - 1."""
        part = slice(first, last)
        return type(self)(
            self.op[part],
            self.lsn[part],
            self.seq[part],
            self.xid[part],
            self.ts[part],
            self.unchanged_start[part],
            self.unchanged_length[part],
            self.prior_start[part],
            self.prior_length[part],
        )
