"""Keys as numbers, and where their rows are."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from tailrace.changes import ConfigError
from tailrace.sinks import sidecar
from tailrace.sinks.backend import DataFile
from tailrace.sinks.keys import KeyCodec, KeyCodes, load_secret
from tailrace.sinks.lookup import KeyIndex
from tailrace.sinks.sidecar import KeyRun, SidecarStore

SECRET = (1, 2)

values = st.tuples(
    st.text(max_size=20), st.integers(-(2**31), 2**31 - 1), st.dates(), st.decimals(-9999, 9999, places=2)
)


def table_of(rows: list[Any]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    types = [pa.string(), pa.int32(), pa.date32(), pa.decimal128(12, 2)]
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=list("abcd"))


@settings(max_examples=100, deadline=None)
@given(st.lists(values, max_size=30), st.integers(0, 3))
def test_equal_keys_have_equal_codes_and_different_keys_different_ones(rows: list[Any], offset: int) -> None:
    whole = table_of([("", 0, date(2000, 1, 1), Decimal("0.00"))] * offset + rows)
    table = whole.slice(offset)
    codec = KeyCodec(["c", "a", "d", "b"], whole.schema, SECRET)
    codes = codec.encode(table)
    assert codes.check is not None
    pairs = list(zip(codes.code.tolist(), codes.check.tolist(), strict=True))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert (pairs[i] == pairs[j]) == (one == other)


def test_texts_do_not_run_into_each_other() -> None:
    table = pa.table({"x": ["a", "ab", ""], "y": ["bc", "c", "abc"]})
    codes = KeyCodec(["x", "y"], table.schema, SECRET).encode(table)
    assert len(set(codes.code.tolist())) == 3


def test_codes_stay_when_a_column_is_widened() -> None:
    narrow = pa.table({"x": pa.array([1, -5], pa.int16()), "y": ["a", "b"]})
    wide = pa.table({"x": pa.array([1, -5], pa.int64()), "y": ["a", "b"]})
    for key in (["x"], ["x", "y"]):
        one, other = (KeyCodec(key, t.schema, SECRET).encode(t) for t in (narrow, wide))
        assert one.code.tolist() == other.code.tolist()


def test_negative_zero_is_zero() -> None:
    table = pa.table({"x": [0.0, -0.0]})
    codes = KeyCodec(["x"], table.schema, SECRET).encode(table)
    assert codes.code[0] == codes.code[1]


def test_an_array_cannot_be_a_key() -> None:
    with pytest.raises(ConfigError, match="tags"):
        KeyCodec(["tags"], pa.schema({"tags": pa.list_(pa.string())}), SECRET)


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    assert load_secret(tmp_path / "new") == load_secret(tmp_path / "new")
    assert load_secret(tmp_path / "new") != load_secret(tmp_path / "other")


class Files:
    """Data files in memory, with an index over them."""

    def __init__(self, folder: Path, codec: KeyCodec) -> None:
        self.tables: dict[str, pa.Table] = {}
        self.files: dict[str, DataFile] = {}
        self.reads = 0
        self.codec = codec
        self.store = SidecarStore(folder, SECRET)
        self.index = KeyIndex(codec, self.store, self.read)

    def read(self, file: DataFile) -> pa.Table:
        self.reads += 1
        return self.tables[file.path]

    def add(self, name: str, table: pa.Table) -> None:
        self.tables[name] = table
        self.files[name] = DataFile(name, table.num_rows, 1)

    def find(
        self, wanted: pa.Table, deleted: dict[str, BitMap] | None = None
    ) -> dict[str, list[tuple[int, int]]]:
        hits = self.index.find(self.codec.encode(wanted), self.files.values(), deleted or {})
        return {
            path: sorted(zip(found.position.tolist(), found.key.tolist(), strict=True))
            for path, found in hits.items()
        }


@pytest.mark.parametrize("key", [["n"], ["s"], ["s", "n"]])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_find_gives_every_live_row_of_the_wanted_keys(
    key: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    numbers = st.lists(st.integers(-50, 50), unique=True, max_size=40)
    contents = data.draw(st.lists(numbers, min_size=1, max_size=4))
    wanted = data.draw(numbers)
    files = Files(tmp_path_factory.mktemp("runs"), KeyCodec(key, table_with([0]).schema, SECRET))
    expected: dict[str, list[tuple[int, int]]] = {}
    deleted = {}
    for i, content in enumerate(contents):
        name = f"file-{i}"
        files.add(name, table_with(content))
        dead = BitMap(data.draw(st.sets(st.integers(0, 39), max_size=5))) & BitMap(range(len(content)))
        deleted[name] = dead
        hits = [(p, wanted.index(k)) for p, k in enumerate(content) if k in wanted and p not in dead]
        if hits:
            expected[name] = hits
    assert files.find(table_with(wanted), deleted) == expected


def table_with(numbers: list[int]) -> pa.Table:
    return pa.table(
        {"n": pa.array(numbers, pa.int64()), "s": pa.array([f"key {n}" for n in numbers], pa.string())}
    )


@pytest.mark.parametrize("key", [["n"], ["s"]])
def test_large_runs_are_mapped_from_sidecars_and_rebuilt_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: list[str]
) -> None:
    monkeypatch.setattr(sidecar, "MIN_ROWS", 100)
    codec = KeyCodec(key, table_with([0]).schema, SECRET)
    numbers = list(range(0, 2000, 2))
    wanted, expected = table_with([3, 4, 1998]), {"big": [(2, 1), (999, 2)]}
    for damage, reads in ((None, 1), (None, 0), ("torn", 1), ("header", 1)):
        for path in tmp_path.glob("*.keys") if damage else ():
            whole = path.read_bytes()
            path.write_bytes(whole[:-5] if damage == "torn" else b"\0" * 8 + whole[8:])
        files = Files(tmp_path, codec)
        files.add("big", table_with(numbers))
        assert files.find(wanted) == expected
        assert files.reads == reads


def test_sidecars_of_files_that_left_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "MIN_ROWS", 1)
    store = SidecarStore(tmp_path, SECRET)
    run = KeyRun.of(KeyCodes(np.array([1, 2], np.int64), None))
    kept, gone = DataFile("kept", 2, 1), DataFile("gone", 2, 1)
    store.save(kept, run)
    store.save(gone, run)
    store.keep_only({"kept"})
    assert store.load(gone) is None
    assert store.load(kept) is not None
    assert store.load(DataFile("kept", 3, 1)) is None
    assert SidecarStore(tmp_path, (8, 9)).load(kept) is None
