"""Keys and tombstones of whole batches, by compiled loops: what compaction asks of every record.

A key is known by 128 bits of it (two multiply-xorshift hashes with different seeds), as Kafka's cleaner
knows it by its MD5.  No Python object per record.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tailrace.broker.records.columnar import RecordColumns
from tailrace.broker.records.columnar_varint import (
    Int,
    copy_bytes,
    frozen,
    get_varint,
    put_varint,
    varint_size,
)
from tailrace.changes.compiled import kernel

Hashes = npt.NDArray[np.uint64]

_SEEDS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_PRIME = np.uint64(0xFF51AFD7ED558CCD)
_LAST = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(32)
_TURN = np.uint64(29)
_MAX_VARINT = 10


@dataclass(frozen=True, slots=True)
class LatestOffsets:
    """The greatest offset of every key: first, second uint64[n] sorted as pairs, offset int64[n]."""

    first: Hashes
    second: Hashes
    offset: npt.NDArray[np.int64]

    @classmethod
    def of(cls, parts: list[tuple[Hashes, Hashes, npt.NDArray[np.int64]]]) -> "LatestOffsets":
        """From (first, second, offset) of records in any order."""
        first, second, offset = (
            np.concatenate(column) if column else np.zeros(0, kind)
            for column, kind in zip(
                zip(*parts, strict=True) if parts else ([], [], []),
                (np.uint64, np.uint64, np.int64),
                strict=True,
            )
        )
        order = np.lexsort((offset, second, first))
        first, second, offset = first[order], second[order], offset[order]
        last = np.ones(len(first), bool)
        last[:-1] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
        return cls(frozen(first[last]), frozen(second[last]), frozen(offset[last]))

    def superseded(self, records: RecordColumns) -> npt.NDArray[np.bool_]:
        """bool[n]: whether a later record with the same key is known, or the record has no key."""
        first, second = hashes_of(records)
        later = _later(self.first, self.second, self.offset, first, second, frozen(records.offset))
        return later.view(np.bool_) | (records.key_length < 0)


def hashes_of(records: RecordColumns) -> tuple[Hashes, Hashes]:
    """The two hashes of each record's key (of a null key: of the empty one)."""
    first, second = np.empty((2, len(records)), np.uint64)
    _hash(frozen(records.buffer), frozen(records.key_start), frozen(records.key_length), first, second)
    return first, second


def copy_records(buffer: npt.NDArray[np.uint8], keep: npt.NDArray[np.bool_], time_shift: int) -> bytes:
    """The kept records of one batch, their timestamp deltas raised by `time_shift`, else byte for byte.

    buffer  uint8[...], the uncompressed records, checked before; keep  bool[n] for its n records.
    """
    out = np.empty(len(buffer) + 2 * _MAX_VARINT * len(keep), np.uint8)
    size = _copy(frozen(buffer), frozen(keep.view(np.uint8)), time_shift, out)
    return out[:size].tobytes()


@kernel
def _hash(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    first: Hashes,
    second: Hashes,
) -> None:
    for row in range(starts.size):
        a, b = _SEEDS[0], _SEEDS[1]
        length = max(lengths[row], 0)
        for at in range(starts[row], starts[row] + length):
            byte = np.uint64(data[at])
            a = (a ^ byte) * _PRIME
            a ^= a >> _SHIFT
            b = (b + byte + np.uint64(1)) * _LAST
            b ^= b >> _TURN
        a = (a ^ np.uint64(length)) * _LAST
        b = (b ^ np.uint64(length)) * _PRIME
        first[row] = a ^ (a >> _SHIFT)
        second[row] = b ^ (b >> _TURN)


@kernel
def _later(
    known_first: Hashes,
    known_second: Hashes,
    known_offset: npt.NDArray[np.int64],
    first: Hashes,
    second: Hashes,
    offset: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint8]:
    later = np.zeros(first.size, np.uint8)
    for row in range(first.size):
        low, high = 0, known_first.size
        while low < high:
            middle = (low + high) // 2
            if known_first[middle] < first[row] or (
                known_first[middle] == first[row] and known_second[middle] < second[row]
            ):
                low = middle + 1
            else:
                high = middle
        if low < known_first.size and known_first[low] == first[row] and known_second[low] == second[row]:
            later[row] = known_offset[low] > offset[row]
    return later


@kernel
def _copy(
    data: npt.NDArray[np.uint8], keep: npt.NDArray[np.uint8], time_shift: Int, out: npt.NDArray[np.uint8]
) -> Int:
    """Walk the records (checked when they were parsed) and copy the kept ones; the bytes written."""
    at: Int = 0
    to: Int = 0
    for row in range(keep.size):
        length, body = get_varint(data, at, data.size)
        end = body + length
        if keep[row]:
            delta, rest = get_varint(data, body + 1, end)
            shifted = delta + time_shift
            to = put_varint(out, to, 1 + varint_size(shifted) + end - rest)
            out[to] = data[body]
            to = put_varint(out, to + 1, shifted)
            to = copy_bytes(out, to, data, rest, end - rest)
        at = end
    return to
