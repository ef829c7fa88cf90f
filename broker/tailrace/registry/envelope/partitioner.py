"""Which partition a record belongs to: Kafka's default partitioner (murmur2 of the key bytes, KIP-480)."""

import numpy as np
import numpy.typing as npt

from tailrace.broker.records.columnar import BytesColumn
from tailrace.broker.records.columnar_varint import frozen
from tailrace.changes.compiled import kernel

_SEED = np.uint32(0x9747B28C)
_MIX = np.uint32(0x5BD1E995)
_MIX_SHIFT = np.uint32(24)
_POSITIVE = np.uint32(0x7FFFFFFF)


def partition_rows(keys: BytesColumn | None, count: int, partitions: int) -> list[npt.NDArray[np.int64]]:
    """For each partition its rows, in their order; `count` rows in all.

    A record without a key goes to partition 0: the changes of a table without a key stay in their order.
    """
    everything = np.arange(count, dtype=np.int64)
    if keys is None or partitions == 1:
        return [everything, *(everything[:0] for _ in range(partitions - 1))]
    partition = partition_of(keys, partitions)
    order = np.argsort(partition, kind="stable")
    bounds = np.searchsorted(partition[order], np.arange(partitions + 1))
    return [order[bounds[i] : bounds[i + 1]].astype(np.int64) for i in range(partitions)]


def partition_of(keys: BytesColumn, partitions: int) -> npt.NDArray[np.int32]:
    """int32[n], the partition of each key."""
    out = np.empty(len(keys), np.int32)
    _partition(frozen(keys.offsets), frozen(keys.data), partitions, out)
    return out


@kernel
def _partition(
    offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], partitions: int, out: npt.NDArray[np.int32]
) -> None:
    for row in range(out.size):
        hashed = _murmur2(data, offsets[row], offsets[row + 1] - offsets[row])
        out[row] = np.int64(hashed & _POSITIVE) % partitions


@kernel
def _murmur2(data: npt.NDArray[np.uint8], start: np.int64, length: np.int64) -> np.uint32:
    """MurmurHash2 with 32 bits, as Kafka's org.apache.kafka.common.utils.Utils.murmur2."""
    hashed = _SEED ^ np.uint32(length)
    whole = length - length % 4
    for i in range(0, whole, 4):
        at = start + i
        word = np.uint32(data[at])
        word |= np.uint32(np.uint32(data[at + 1]) << np.uint32(8))
        word |= np.uint32(np.uint32(data[at + 2]) << np.uint32(16))
        word |= np.uint32(np.uint32(data[at + 3]) << np.uint32(24))
        word = np.uint32(word * _MIX)
        word ^= word >> _MIX_SHIFT
        word = np.uint32(word * _MIX)
        hashed = np.uint32(hashed * _MIX)
        hashed ^= word
    for i in range(length - whole):
        hashed ^= np.uint32(np.uint32(data[start + whole + i]) << np.uint32(8 * i))
    if length != whole:
        hashed = np.uint32(hashed * _MIX)
    hashed ^= hashed >> np.uint32(13)
    hashed = np.uint32(hashed * _MIX)
    hashed ^= hashed >> np.uint32(15)
    return np.uint32(hashed)
