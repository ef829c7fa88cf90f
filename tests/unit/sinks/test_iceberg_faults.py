"""Lost answers, failures after the swap and schema changes of others: an Iceberg table stays whole."""

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from tests.fixtures.tables import scan_iceberg

from tailrace.sinks.backend import CommitConflict, ForeignWriteError, TableCommit, TableState
from tailrace.sinks.checkpoint import Checkpoint
from tailrace.sinks.iceberg import table as table_module
from tailrace.sinks.iceberg.catalog import open_catalog
from tailrace.sinks.iceberg.config import IcebergConfig
from tailrace.sinks.iceberg.housekeeping import Housekeeping
from tailrace.sinks.iceberg.sink import IcebergSink
from tailrace.sinks.iceberg.table import IcebergTable
from tailrace.sinks.sink import SinkPlace, Target
from tailrace.sinks.testing.model import ModelSource

CONFIG = IcebergConfig(warehouse="lake", table="shop.{table}")
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False)])
PLACE = ("raw.shop.orders", 0)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(CONFIG, tmp_path)


@pytest.fixture
def backend(catalog: Catalog) -> IcebergTable:
    return IcebergTable(catalog, ("shop", "orders"), "shop/lake", CONFIG)


def following(state: TableState) -> Checkpoint:
    return state.checkpoint.advanced({}, state.checkpoint.lsn)


def test_columns_added_one_after_the_other_before_a_commit_all_arrive(backend: IcebergTable) -> None:
    state = backend.create(SCHEMA, Checkpoint().taken_over())
    one = SCHEMA.append(pa.field("one", pa.int32()))
    two = one.append(pa.field("two", pa.int32()))
    files = [
        backend.write_data_file(pa.table([[1], [10]], schema=one)),
        backend.write_data_file(pa.table([[2], [20], [200]], schema=two)),
    ]
    backend.commit(state, TableCommit(following(state), files, schema=two))
    found = sorted(scan_iceberg(backend.location).to_pylist(), key=lambda row: int(row["id"]))
    assert found == [{"id": 1, "one": 10, "two": None}, {"id": 2, "one": 20, "two": 200}]


def test_a_commit_on_a_schema_that_somebody_else_changed_conflicts(
    backend: IcebergTable, catalog: Catalog
) -> None:
    state = backend.create(SCHEMA, Checkpoint().taken_over())
    with catalog.load_table(("shop", "orders")).update_schema() as update:
        update.union_by_name(pa.schema({"theirs": pa.string()}))
    with pytest.raises(CommitConflict):
        backend.commit(state, TableCommit(following(state)))


def test_files_written_for_field_ids_that_somebody_else_took_are_never_committed(
    backend: IcebergTable, catalog: Catalog
) -> None:
    state = backend.create(SCHEMA, Checkpoint().taken_over())
    ours = SCHEMA.append(pa.field("ours", pa.int32()))
    file = backend.write_data_file(pa.table([[1], [10]], schema=ours))
    with catalog.load_table(("shop", "orders")).update_schema() as update:
        update.union_by_name(pa.schema({"theirs": pa.int32()}))
    with pytest.raises(CommitConflict):
        backend.commit(state, TableCommit(following(state), [file], schema=ours))
    with pytest.raises(ForeignWriteError, match="columns"):
        backend.load()


@pytest.mark.parametrize("mode", ["mirror", "append"])
def test_a_failure_after_the_swap_takes_no_committed_file_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    def fail(_table: object) -> None:
        raise OSError(28, "No space left on device")

    source = ModelSource(seed=1)
    sink = IcebergSink(CONFIG, SinkPlace("shop/lake", tmp_path / "cache", tmp_path))
    writer = sink.open_table(Target("orders", source.table, mode))
    changes = source.transaction(20)
    writer.stage(changes)
    with monkeypatch.context() as patch:
        patch.setattr(table_module, "write_version_hint", fail)
        with pytest.raises(OSError, match="No space"):
            writer.commit({PLACE: 20}, source.lsn)
    writer.close()
    sink.close()
    again = IcebergSink(CONFIG, SinkPlace("shop/lake", tmp_path / "cache", tmp_path))
    reading = again.read_table("orders")
    assert reading is not None
    assert reading.checkpoint.offsets == {PLACE: 20}
    assert reading.rows.num_rows == (len(source.rows) if mode == "mirror" else sum(map(len, changes)))
    again.close()


def test_an_answer_lost_together_with_the_catalog_takes_no_committed_file_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ModelSource(seed=2)
    sink = IcebergSink(CONFIG, SinkPlace("shop/lake", tmp_path / "cache", tmp_path))
    writer = sink.open_table(Target("orders", source.table, "mirror"))
    writer.stage(source.transaction(20))
    real = sink._opened()
    commit = real.commit_table

    def lose(*arguments: Any) -> Any:
        commit(*arguments)
        monkeypatch.setattr(real, "load_table", unreachable)
        raise ConnectionError("the catalog went away")

    def unreachable(_identifier: object) -> Any:
        raise ConnectionError("the catalog is away")

    monkeypatch.setattr(real, "commit_table", lose)
    with pytest.raises(ConnectionError):
        writer.commit({PLACE: 20}, source.lsn)
    writer.close()
    monkeypatch.undo()
    reading = sink.read_table("orders")
    assert reading is not None
    assert reading.checkpoint.offsets == {PLACE: 20}
    assert reading.rows.num_rows == len(source.rows)
    sink.close()


def test_a_file_that_was_just_replaced_stays_for_its_readers_however_old_it_is(
    backend: IcebergTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = backend.create(SCHEMA, Checkpoint().taken_over())
    old = backend.write_data_file(pa.table([[1]], schema=SCHEMA))
    os.utime(old.path.removeprefix("file://"), (0, 0))
    state = backend.commit(state, TableCommit(following(state), [old]))
    config = CONFIG.model_copy(update={"keep_snapshots": 1, "keep_old_files": 60.0})
    last = IcebergTable(backend._catalog, ("shop", "orders"), "shop/lake", config)
    loaded = last.load()
    assert loaded is not None
    loaded = last.commit(loaded, TableCommit(following(loaded), removed=[old.path]))
    loaded = last.commit(loaded, TableCommit(following(loaded)))
    loaded = last.commit(loaded, TableCommit(following(loaded)))
    housekeeping = Housekeeping(config)
    housekeeping.sweep(loaded)
    assert Path(old.path.removeprefix("file://")).exists()
    later = time.monotonic() + 61
    monkeypatch.setattr("tailrace.sinks.iceberg.housekeeping.time.monotonic", lambda: later)
    housekeeping.sweep(loaded)
    assert not Path(old.path.removeprefix("file://")).exists()
