"""Keys as numbers: what merge sorts by and what the index looks up.

A key column set is encoded in one of two ways:

- exact: one column of an integer, date, time or timestamp type is its own int64 code;
- hashed: anything else (text, uuid, decimal, composite) is a 128-bit hash, 64 bits as the `code` that is
  sorted and searched, 64 bits as the `check` that is compared.  The hash is keyed with a secret of the
  cache folder, so that nobody can craft two keys that collide; by chance, a billion keys collide
  with probability 1e-21, less than a disk returns wrong bytes unnoticed.

Codes are stable under widening (an int2 key column that becomes int8 keeps its codes).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tailrace.changes import ConfigError
from tailrace.changes.compiled import kernel
from tailrace.changes.whole_file import replace_file

Words = npt.NDArray[np.uint64]

Secret = tuple[int, int]
"""Two random 64-bit numbers that key the hash."""


@dataclass(frozen=True, slots=True)
class KeyCodes:
    """n encoded keys: code int64[n]; check uint64[n], None when codes are exact."""

    code: npt.NDArray[np.int64]
    check: Words | None

    def __len__(self) -> int:
        return len(self.code)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "KeyCodes":
        """The keys at `rows` (indices or mask)."""
        return KeyCodes(self.code[rows], None if self.check is None else self.check[rows])

    def order(self, tie: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.intp]:
        """Indices that sort by key, then by `tie` (input order without it); equal keys are adjacent."""
        if self.check is None and tie is None:
            return np.argsort(self.code, kind="stable")
        columns = [column for column in (tie, self.check) if column is not None]
        return np.lexsort((*columns, self.code))

    def same_as_previous(self) -> npt.NDArray[np.bool_]:
        """Per row of sorted keys: does it equal the row before; False for the first."""
        same = np.zeros(len(self.code), np.bool_)
        if len(self.code) > 1:
            same[1:] = self.code[1:] == self.code[:-1]
            if self.check is not None:
                same[1:] &= self.check[1:] == self.check[:-1]
        return same


def concat(parts: Sequence[KeyCodes]) -> KeyCodes:
    """Keys of all parts, in order; the parts come from one codec and there is at least one."""
    checks = [part.check for part in parts if part.check is not None]
    return KeyCodes(np.concatenate([p.code for p in parts]), np.concatenate(checks) if checks else None)


class KeyCodec:
    """Encodes the key columns of one table."""

    def __init__(self, key: Sequence[str], schema: pa.Schema, secret: Secret) -> None:
        """`schema` holds the key columns; ConfigError for a key of a type without equality (lists)."""
        self.columns = tuple(key)
        for name in key:
            _refuse_lists(name, schema.field(name).type)
        self.exact = len(key) == 1 and _is_word(schema.field(key[0]).type)
        self._secret = secret

    def encode(self, rows: pa.Table | pa.RecordBatch) -> KeyCodes:
        """Encode the key columns of `rows`."""
        columns = [_one_chunk(rows.column(name)) for name in self.columns]
        if self.exact:
            return KeyCodes(_words(columns[0]), None)
        first = np.full(rows.num_rows, self._secret[0], np.uint64)
        second = np.full(rows.num_rows, self._secret[1], np.uint64)
        for column in columns:
            _hash_into(column, first, second)
        return KeyCodes(first.view(np.int64), second)

    def sort_indices(self, rows: pa.Table, codes: KeyCodes) -> npt.NDArray[np.intp]:
        """The order of rows in a data file: by the real key where Arrow can compare it, else by code."""
        if self.exact:
            return np.argsort(codes.code, kind="stable")
        if any(pa.types.is_nested(rows.schema.field(name).type) for name in self.columns):
            return codes.order()
        keys: Any = [(name, "ascending") for name in self.columns]
        return np.asarray(pc.sort_indices(rows.select(list(self.columns)), sort_keys=keys), np.intp)


def load_secret(cache_dir: Path) -> Secret:
    """The hash secret of a cache folder, made on first use."""
    path = cache_dir / "key-secret"
    cache_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.stat().st_size != 16:
        replace_file(path, [os.urandom(16)], durable=True)
    words = np.frombuffer(path.read_bytes(), "<u8")
    return int(words[0]), int(words[1])


def _refuse_lists(name: str, arrow: pa.DataType) -> None:
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        raise ConfigError(
            f"key column '{name}' is an array", fix="choose a key without arrays, or mode: append"
        )


def _is_word(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_integer(arrow) or pa.types.is_temporal(arrow))


def _one_chunk(column: Any) -> Any:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _words(column: Any) -> npt.NDArray[np.int64]:
    """An integer or temporal column as int64, nulls as 0."""
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    if column.null_count:
        column = column.fill_null(0)
    return np.asarray(column.to_numpy(zero_copy_only=False), np.int64)


def _hash_into(column: Any, first: Words, second: Words) -> None:
    """Fold one column into both lanes of the hash."""
    arrow = column.type
    if pa.types.is_struct(arrow):
        for child in column.flatten():
            _hash_into(child, first, second)
        return
    if column.null_count:
        _fold_words(column.is_valid().cast(pa.uint8()).to_numpy().astype(np.uint64), first, second)
    if pa.types.is_string(arrow) or pa.types.is_binary(arrow):
        if column.null_count:
            column = column.fill_null("" if pa.types.is_string(arrow) else b"")
        _validity, offsets_buffer, data_buffer = column.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int32)[column.offset : column.offset + len(column) + 1]
        data = np.frombuffer(data_buffer if data_buffer is not None else b"", np.uint8)
        _fold_bytes(offsets, data, first, second)
    elif pa.types.is_decimal128(arrow):
        words = np.frombuffer(column.buffers()[1], np.uint64)[
            2 * column.offset : 2 * (column.offset + len(column))
        ]
        _fold_words(np.ascontiguousarray(words[0::2]), first, second)
        _fold_words(np.ascontiguousarray(words[1::2]), first, second)
    elif pa.types.is_floating(arrow):
        # -0.0 equals 0.0 in Postgres
        values = column.fill_null(0).cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0
        _fold_words(np.ascontiguousarray(values).view(np.uint64), first, second)
    else:
        whole = column.cast(pa.int8()) if pa.types.is_boolean(arrow) else column
        _fold_words(_words(whole).view(np.uint64), first, second)


@kernel
def _mix(word: np.uint64) -> np.uint64:
    """splitmix64's finalizer."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@kernel
def _fold_words(words: Words, first: Words, second: Words) -> None:
    for i in range(words.size):
        first[i] = _mix((first[i] ^ words[i]) + np.uint64(0x9E3779B97F4A7C15))
        second[i] = _mix((second[i] + words[i]) ^ np.uint64(0xD6E8FEB86659FD93))


@kernel
def _fold_bytes(
    offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], first: Words, second: Words
) -> None:
    for i in range(first.size):
        start, end = offsets[i], offsets[i + 1]
        a, b = first[i], second[i]
        at = start
        while at < end:
            word = np.uint64(0)
            size = min(8, end - at)
            for j in range(size):
                word |= np.uint64(data[at + j]) << np.uint64(8 * j)
            a = _mix((a ^ word) + np.uint64(0x9E3779B97F4A7C15))
            b = _mix((b + word) ^ np.uint64(0xD6E8FEB86659FD93))
            at += size
        # the length closes the value: ("a", "bc") is not ("ab", "c")
        length = np.uint64(end - start)
        first[i] = _mix((a ^ length) + np.uint64(0x9E3779B97F4A7C15))
        second[i] = _mix((b + length) ^ np.uint64(0xD6E8FEB86659FD93))
