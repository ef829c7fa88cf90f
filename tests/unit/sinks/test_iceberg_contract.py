"""The Iceberg back end and the Iceberg sink keep the contracts."""

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update import AddSnapshotUpdate, RemoveSnapshotsUpdate, SetSnapshotRefUpdate
from tests.fixtures.tables import scan_iceberg

from tailrace.sinks.backend import ForeignWriteError
from tailrace.sinks.iceberg.catalog import open_catalog
from tailrace.sinks.iceberg.config import IcebergConfig
from tailrace.sinks.iceberg.housekeeping import Housekeeping, referenced
from tailrace.sinks.iceberg.sink import IcebergSink
from tailrace.sinks.iceberg.table import IcebergTable
from tailrace.sinks.sink import SinkPlace, Target
from tailrace.sinks.testing import BackendContract, SinkContract
from tailrace.sinks.testing.model import ModelSource

OPTIONS = {"warehouse": "lake", "table": "shop.{table}", "keep_snapshots": 5, "keep_old_files": 0.0}
OWNER = "shop/lake"


class TestIcebergTable(BackendContract):
    @pytest.fixture
    def make_backend(self, tmp_path: Path) -> Any:
        config = IcebergConfig(**OPTIONS)
        return lambda: IcebergTable(open_catalog(config, tmp_path), ("shop", "orders"), OWNER, config)

    @pytest.fixture
    def scan(self) -> Any:
        return scan_iceberg


class TestIcebergSink(SinkContract):
    @pytest.fixture
    def make_sink(self, tmp_path: Path) -> Any:
        config = IcebergSink.Config(**OPTIONS)
        return lambda: IcebergSink(config, SinkPlace(OWNER, tmp_path / "cache", tmp_path))

    @pytest.fixture
    def scan(self) -> Any:
        return scan_iceberg


def opened(tmp_path: Path) -> IcebergSink:
    return IcebergSink(IcebergSink.Config(**OPTIONS), SinkPlace(OWNER, tmp_path / "cache", tmp_path))


def table_of(tmp_path: Path) -> Table:
    config = IcebergConfig(**OPTIONS)
    return open_catalog(config, tmp_path).load_table("shop.orders")


def test_delete_files_manifests_and_snapshots_stay_bounded_over_many_commits(tmp_path: Path) -> None:
    source, sink = ModelSource(seed=3), opened(tmp_path)
    writer = sink.open_table(Target("orders", source.table, "mirror"))
    for number in range(60):
        writer.stage(source.transaction(20))
        writer.commit({("raw", 0): number}, source.lsn)
        writer.upkeep()
    table = table_of(tmp_path)
    head = table.current_snapshot()
    assert head is not None
    assert len(head.manifests(table.io)) <= 25
    assert len(table.metadata.snapshots) <= 6
    assert table.scan().to_arrow().num_rows == len(source.rows)
    sink.close()


def test_a_sweep_removes_only_what_no_kept_snapshot_needs(tmp_path: Path) -> None:
    source, sink = ModelSource(seed=4), opened(tmp_path)
    writer = sink.open_table(Target("orders", source.table, "mirror"))
    for number in range(30):
        writer.stage(source.transaction(20))
        writer.commit({("raw", 0): number}, source.lsn)
    config = IcebergConfig(**OPTIONS)
    backend = IcebergTable(open_catalog(config, tmp_path), ("shop", "orders"), OWNER, config)
    state = backend.load()
    assert state is not None
    folder = tmp_path / "lake"
    files = [path for path in folder.rglob("*.*") if path.name != "catalog.db"]
    for path in files:
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    Housekeeping(config).sweep(state)
    left = {str(path) for path in folder.rglob("*.*") if path.name != "catalog.db"}
    assert left == referenced(state.table)
    assert len(left) < len(files)
    assert table_of(tmp_path).scan().to_arrow().num_rows == len(source.rows)
    sink.close()


def test_rows_written_by_somebody_else_are_refused(tmp_path: Path) -> None:
    source, sink = ModelSource(seed=5), opened(tmp_path)
    writer = sink.open_table(Target("orders", source.table, "mirror"))
    writer.stage(source.transaction(20))
    writer.commit({("raw", 0): 1}, source.lsn)
    table = table_of(tmp_path)
    table.append(table.scan().to_arrow().slice(0, 1))
    with pytest.raises(ForeignWriteError, match="written by somebody else"):
        opened(tmp_path).open_table(Target("orders", source.table, "mirror"))
    sink.close()


@pytest.mark.parametrize("appended", [True, False])
def test_rows_appended_by_somebody_else_are_refused_also_when_their_snapshot_has_expired(
    tmp_path: Path, appended: bool
) -> None:
    source, sink = ModelSource(seed=5), opened(tmp_path)
    writer = sink.open_table(Target("orders", source.table, "mirror"))
    writer.stage(source.transaction(20))
    writer.commit({("raw", 0): 1}, source.lsn)
    sink.close()
    table = table_of(tmp_path)
    if appended:
        table.append(table.scan().to_arrow().slice(0, 1))
    compact_and_expire(table_of(tmp_path))
    target = Target("orders", source.table, "mirror")
    if appended:
        with pytest.raises(ForeignWriteError, match="snapshots between have expired"):
            opened(tmp_path).open_table(target)
    else:
        sink = opened(tmp_path)
        sink.open_table(target)
        sink.close()


def compact_and_expire(table: Table) -> None:
    """What foreign maintenance leaves: a head of operation `replace`, and nothing before it."""
    head = table.current_snapshot()
    assert head is not None
    assert head.sequence_number is not None
    replaced = head.model_copy(
        update={
            "snapshot_id": head.snapshot_id ^ 1,
            "parent_snapshot_id": head.snapshot_id,
            "sequence_number": head.sequence_number + 1,
            "summary": Summary(Operation.REPLACE),
        }
    )
    reference = SetSnapshotRefUpdate(
        ref_name="main",
        type=SnapshotRefType.BRANCH,
        snapshot_id=replaced.snapshot_id,
        max_ref_age_ms=None,
        max_snapshot_age_ms=None,
        min_snapshots_to_keep=None,
    )
    old = RemoveSnapshotsUpdate(snapshot_ids=[item.snapshot_id for item in table.metadata.snapshots])
    table.catalog.commit_table(table, (), (AddSnapshotUpdate(snapshot=replaced), reference, old))


def test_a_column_keeps_its_field_id_when_others_are_added(tmp_path: Path) -> None:
    source, sink = ModelSource(seed=6), opened(tmp_path)
    writer = sink.open_table(Target("orders", source.table, "mirror"))
    before = {field.name: field.field_id for field in table_of(tmp_path).schema().fields}
    source.add_column(pa.field("extra", pa.int32()))
    writer.stage(source.transaction(20))
    writer.commit({("raw", 0): 1}, source.lsn)
    after = {field.name: field.field_id for field in table_of(tmp_path).schema().fields}
    assert before.items() <= after.items()
    assert after["extra"] > max(before.values())
    sink.close()


def test_every_reader_sees_the_mirror_as_it_is(tmp_path: Path, iceberg_scan: Any) -> None:
    source, sink = ModelSource(seed=7), opened(tmp_path)
    writer = sink.open_table(Target("orders", source.table, "mirror"))
    for number in range(30):
        writer.stage(source.transaction(15))
        writer.commit({("raw", 0): number}, source.lsn)
    names = source.table.arrow.names
    found = sorted(iceberg_scan(writer.location).select(names).to_pylist(), key=lambda row: row["id"])
    assert found == sorted(
        ({name: row[name] for name in names} for row in source.rows.values()), key=lambda row: row["id"]
    )
    sink.close()
