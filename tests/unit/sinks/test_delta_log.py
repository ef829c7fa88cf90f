"""What is in the files of a Delta table: vectors, log, statistics; read by deltalake, polars and DuckDB."""

import json
import os
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from tests.fixtures.tables import duckdb_with, scan_delta
from tests.unit.sinks.delta_mirror import commit, open_mirror

from tailrace.changes import ConfigError, TailraceError
from tailrace.sinks.backend import CommitConflict
from tailrace.sinks.delta import vectors
from tailrace.sinks.delta.log import read_log
from tailrace.sinks.delta.sink import DeltaSink
from tailrace.sinks.delta.store import LocalStore, ObjectStore, open_store
from tailrace.sinks.sink import SinkPlace, Target
from tailrace.sinks.testing import ModelSource, assert_mirrors
from tailrace.sinks.testing.model import plain_batch
from tailrace.sinks.testing.types import every_type


@given(st.binary(max_size=80).filter(lambda data: len(data) % 4 == 0))
def test_z85_comes_back(data: bytes) -> None:
    assert vectors.z85_decode(vectors.z85_encode(data)) == data


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5), st.sets(st.integers(0, 2**32 - 1), min_size=1), max_size=4
    )
)
def test_vectors_come_back_from_their_file(wanted: dict[str, set[int]]) -> None:
    _path, data, descriptors = vectors.encode_file({path: BitMap(rows) for path, rows in wanted.items()})
    assert {path: set(vectors.decode(data, d)) for path, d in descriptors.items()} == wanted


def test_a_damaged_vector_is_refused() -> None:
    _path, data, descriptors = vectors.encode_file({"x": BitMap([1, 2, 3])})
    damaged = bytearray(data)
    damaged[descriptors["x"]["offset"] + 25] ^= 1
    with pytest.raises(TailraceError, match="damaged"):
        vectors.decode(bytes(damaged), descriptors["x"])


def test_every_reader_sees_every_version_right(tmp_path: Path, delta_scan: Any) -> None:
    source = ModelSource(seed=11)
    writer = open_mirror(tmp_path, source)
    for _ in range(12):
        commit(writer, source)
        assert_mirrors(delta_scan(writer.location), source)
        writer.upkeep()
    assert any(file.vector is not None for file in writer.state.files.values())  # type: ignore[attr-defined]


def test_a_reader_without_deletion_vectors_reads_copy_on_write_tables(tmp_path: Path) -> None:
    source = ModelSource(seed=12)
    writer = open_mirror(tmp_path, source, write="copy_on_write")
    for _ in range(6):
        commit(writer, source)
    table = deltalake.DeltaTable(writer.location)
    assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
    assert_mirrors(table.to_pyarrow_table(), source)


def test_deltalake_sees_our_offsets_also_after_a_checkpoint(tmp_path: Path) -> None:
    source = ModelSource(seed=13)
    writer = open_mirror(tmp_path, source)
    for offset in range(1, 8):
        writer.stage(source.transaction(5))
        writer.commit({("raw.shop.orders", 0): offset}, source.lsn)
        writer.upkeep()
    table = deltalake.DeltaTable(writer.location)
    assert (Path(writer.location) / "_delta_log/_last_checkpoint").exists()
    assert table.transaction_version("shop/lake/raw.shop.orders/0") == 7
    assert table.transaction_version("shop/lake//lsn") == source.lsn


def test_the_log_reads_the_same_from_a_checkpoint_as_from_commits(tmp_path: Path) -> None:
    source = ModelSource(seed=14)
    writer = open_mirror(tmp_path, source, checkpoint_every=1000)
    for _ in range(9):
        commit(writer, source)
    store = LocalStore(Path(writer.location))
    from_commits = read_log(store)
    deltalake.DeltaTable(writer.location).create_checkpoint()
    for commit_file in (Path(writer.location) / "_delta_log").glob("*.json"):
        commit_file.unlink()
    from_checkpoint = read_log(store)
    assert from_commits is not None
    assert from_checkpoint is not None
    assert from_checkpoint.transactions == from_commits.transactions
    assert from_checkpoint.version == from_commits.version
    for path, add in from_commits.adds.items():
        assert from_checkpoint.adds[path].get("deletionVector") == add.get("deletionVector")
    again = open_mirror(tmp_path, source)
    commit(again, source)
    assert_mirrors(scan_delta(again.location), source)


def test_a_column_type_that_needs_a_feature_raises_the_protocol(tmp_path: Path) -> None:
    source = ModelSource(seed=26)
    writer = open_mirror(tmp_path, source)
    commit(writer, source)
    source.add_column(pa.field("seen", pa.timestamp("us")))
    commit(writer, source)
    protocol = deltalake.DeltaTable(writer.location).protocol()
    assert "timestampNtz" in (protocol.reader_features or [])
    assert_mirrors(scan_delta(writer.location), source)


def test_tables_with_unknown_features_are_refused(tmp_path: Path) -> None:
    source = ModelSource(seed=27)
    writer = open_mirror(tmp_path, source)
    log = Path(writer.location) / "_delta_log"
    action = {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": ["columnMapping"],
            "writerFeatures": ["columnMapping"],
        }
    }
    (log / f"{1:020d}.json").write_text(json.dumps(action))
    with pytest.raises(TailraceError, match="columnMapping"):
        open_mirror(tmp_path, source)


def test_an_object_store_is_used_by_its_url() -> None:
    store = open_store("memory:///lake", {}, Path())
    assert isinstance(store, ObjectStore)
    store.create("a/1.json", b"x")
    with pytest.raises(CommitConflict):
        store.create("a/1.json", b"y")
    store.put("a/2.json", pa.py_buffer(b"zz"))
    assert (store.get("a/1.json"), store.get("a/2.json")) == (b"x", b"zz")
    assert [entry.path for entry in store.list("a")] == ["a/1.json", "a/2.json"]
    store.delete("a/1.json")
    store.delete("a/1.json")
    with pytest.raises(FileNotFoundError):
        store.get("a/1.json")


def test_an_unknown_place_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="gopher"):
        open_store("gopher://lake/x", {}, Path())


def test_statistics_never_prune_a_row_away(tmp_path: Path) -> None:
    table, rows = every_type()
    config = DeltaSink.Config(path="lake")
    writer = DeltaSink(config, SinkPlace("shop/lake", tmp_path / "cache", tmp_path)).open_table(
        Target("types", table, "mirror")
    )
    for i in range(rows.num_rows):
        # one file per row, so that a wrong bound prunes the row
        writer.stage([plain_batch(table, rows.slice(i, 1))])
        writer.commit({}, i)
    delta = deltalake.DeltaTable(writer.location)
    with duckdb_with("delta") as connection:
        for name in ("int2", "int8", "float8", "text", "day", "local", "instant", "big_numeric", "flag"):
            for key, value in zip([1, 2], rows.column(name).to_pylist(), strict=False):
                query = f"SELECT id FROM delta_scan(?) WHERE {name} = ?"
                assert connection.execute(query, [writer.location, value]).fetchall() == [(key,)]
                frame = pl.scan_delta(writer.location).filter(pl.col(name) == value).select("id").collect()
                assert frame["id"].to_list() == [key], name
        builder = deltalake.QueryBuilder().register("t", delta)
        for name, literal in (("text", "''"), ("day", "DATE '0001-01-01'"), ("int2", "32767"), ("id", "3")):
            found = pa.table(builder.execute(f"SELECT id FROM t WHERE {name} = {literal}").read_all())
            assert found.num_rows == 1, name


def test_cleaning_the_log_keeps_the_table_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.sinks.delta.table.LOG_KEPT_S", 0)
    monkeypatch.setattr("tailrace.sinks.delta.housekeeping._CLEAN_LOG_EVERY", 1)
    source = ModelSource(seed=29)
    writer = open_mirror(tmp_path, source)
    log = Path(writer.location) / "_delta_log"
    for path in log.glob("*.json"):
        os.utime(path, (1, 1))
    for _ in range(30):
        commit(writer, source, 20)
        for path in log.glob("*.json"):
            os.utime(path, (1, 1))
        writer.upkeep()
        assert_mirrors(scan_delta(writer.location), source)
    assert len(list(log.glob("*.json"))) < 20
    again = open_mirror(tmp_path, source)
    assert again.checkpoint.lsn == source.lsn
    commit(again, source)
    assert_mirrors(scan_delta(again.location), source)
