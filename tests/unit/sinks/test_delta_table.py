"""A Delta mirror among others: foreign writers, lost answers, full disks, kills; and what is left over time."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest
from tests.fixtures.tables import scan_delta
from tests.unit.sinks.delta_mirror import commit, open_mirror

from tailrace.changes import OP_READ, ChangeBatch, ConfigError, FencedError, TailraceError
from tailrace.sinks.backend import CommitConflict, ForeignWriteError
from tailrace.sinks.delta import vectors
from tailrace.sinks.delta.store import LocalStore
from tailrace.sinks.testing import ModelSource, assert_mirrors, rows_by_key


def test_foreign_compaction_between_two_commits_is_survived(tmp_path: Path) -> None:
    source = ModelSource(seed=15)
    writer = open_mirror(tmp_path, source)
    for step in range(6):
        commit(writer, source)
        writer.stage(source.transaction(40))
        if step % 2:
            deltalake.DeltaTable(writer.location).optimize.compact()
        else:
            deltalake.DeltaTable(writer.location).optimize.z_order(["customer"])
        writer.stage(source.transaction(40))
        writer.commit({}, source.lsn)
        assert_mirrors(scan_delta(writer.location), source)


def test_a_foreign_append_is_refused_at_commit_and_at_open(tmp_path: Path) -> None:
    source = ModelSource(seed=16)
    writer = open_mirror(tmp_path, source)
    commit(writer, source)
    rows = scan_delta(writer.location).slice(0, 2)
    deltalake.write_deltalake(writer.location, rows, mode="append")
    with pytest.raises(ForeignWriteError, match="version"):
        commit(writer, source)
    with pytest.raises(ForeignWriteError):
        open_mirror(tmp_path, source)


def test_a_commit_whose_answer_was_lost_is_found_by_reading_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ModelSource(seed=17)
    writer = open_mirror(tmp_path, source)
    create, lost = LocalStore.create, list[str]()

    def lose_the_answer(self: LocalStore, path: str, data: bytes) -> None:
        create(self, path, data)
        if len(lost) < 10 and len(lost) % 2 == 0:
            lost.append(path)
            raise CommitConflict("timeout")
        lost.append("")

    monkeypatch.setattr(LocalStore, "create", lose_the_answer)
    for _ in range(12):
        commit(writer, source)
        assert_mirrors(scan_delta(writer.location), source)
    assert sum(map(bool, lost)) >= 5
    # one version per commit: nothing was written twice
    assert writer.state.version == 12


def test_a_request_that_never_arrived_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ModelSource(seed=18)
    writer = open_mirror(tmp_path, source)
    create, failures = LocalStore.create, [True, True, False, True, False]

    def fail_before(self: LocalStore, path: str, data: bytes) -> None:
        if failures and failures.pop(0):
            raise CommitConflict("connection reset")
        create(self, path, data)

    monkeypatch.setattr(LocalStore, "create", fail_before)
    for _ in range(4):
        commit(writer, source)
        assert_mirrors(scan_delta(writer.location), source)


def test_a_fenced_writer_cannot_even_compact(tmp_path: Path) -> None:
    source = ModelSource(seed=19)
    old = open_mirror(tmp_path, source)
    for _ in range(12):
        old.stage(source.insert(5))
        old.commit({}, source.lsn)
    newer = open_mirror(tmp_path, source)
    with pytest.raises(FencedError):
        old.upkeep()
    assert len(newer.state.files) == 12


def test_a_table_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    source = ModelSource(seed=20)
    path = tmp_path / "lake/orders"
    deltalake.write_deltalake(str(path), pa.table({"id": [1]}))
    before = sorted(file.name for file in path.rglob("*"))
    with pytest.raises(ConfigError, match="not kept by this sink"):
        open_mirror(tmp_path, source)
    assert sorted(file.name for file in path.rglob("*")) == before


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file, where the folder should be")
    with pytest.raises(TailraceError, match="lake/orders"):
        open_mirror(tmp_path, ModelSource())


@pytest.mark.parametrize("suffix", [".parquet", ".bin", ".json"])
def test_a_full_disk_loses_nothing_and_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    source = ModelSource(seed=21)
    writer = open_mirror(tmp_path, source)
    commit(writer, source, 100)
    before = scan_delta(writer.location)
    write = LocalStore._write

    def full(self: LocalStore, target: Path, data: Any) -> Path:
        if target.suffix == suffix:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, target, data)

    changes = source.transaction(100)
    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "_write", full)
        with pytest.raises(TailraceError, match="No space left"):
            writer.stage(changes)
            writer.commit({}, source.lsn)
        assert scan_delta(writer.location).equals(before)
    again = open_mirror(tmp_path, source)
    again.stage(changes)
    again.commit({}, source.lsn)
    assert_mirrors(scan_delta(again.location), source)


def test_old_files_and_orphans_go_and_live_ones_stay(tmp_path: Path) -> None:
    source = ModelSource(seed=22)
    writer = open_mirror(tmp_path, source)
    for _ in range(30):
        commit(writer, source, 10)
        writer.upkeep()
    folder = Path(writer.location)
    stray = folder / "part-00000000-0000-4000-8000-000000000000.zstd.parquet"
    foreign = folder / "notes.txt"
    for path in (stray, foreign):
        path.write_text("x")
        os.utime(path, (1, 1))
    again = open_mirror(tmp_path, source)
    again.upkeep()
    data = {path.name for path in folder.glob("part-*")}
    assert data == again.state.files.keys()
    named = {vectors.vector_path(f.vector) for f in again.state.files.values() if f.vector}  # type: ignore[attr-defined]
    assert {path.name for path in folder.glob("*.bin")} == named
    assert foreign.exists()
    assert_mirrors(scan_delta(writer.location), source)


def test_old_files_stay_for_readers_of_older_versions(tmp_path: Path) -> None:
    source = ModelSource(seed=23)
    writer = open_mirror(tmp_path, source, keep_old_files=3600.0)
    commit(writer, source, 60)
    version, rows = writer.state.version, dict(source.rows)
    reader = deltalake.DeltaTable(writer.location, version=version)
    for _ in range(30):
        commit(writer, source, 30)
        writer.upkeep()
    assert rows_by_key(pa.table(reader.scan().read_all()), ["id"]).keys() == rows.keys()


def test_the_number_of_files_stays_bounded_over_tiny_commits(tmp_path: Path) -> None:
    source = ModelSource(seed=24, keys=3000)
    writer = open_mirror(tmp_path, source)
    most = 0
    for _ in range(150):
        commit(writer, source, 2)
        writer.upkeep()
        most = max(most, len(writer.state.files))
    assert most < 40
    assert_mirrors(scan_delta(writer.location), source)


def test_losing_the_cache_folder_costs_nothing_but_time(tmp_path: Path) -> None:
    source = ModelSource(seed=25)
    writer = open_mirror(tmp_path, source)
    commit(writer, source)
    writer.close()
    shutil.rmtree(tmp_path / "cache")
    writer = open_mirror(tmp_path, source)
    commit(writer, source)
    assert_mirrors(scan_delta(writer.location), source)


def test_moving_twice_in_one_commit_and_unchanged_cells_across_files(tmp_path: Path) -> None:
    source = ModelSource(seed=28, keys=15)
    writer = open_mirror(tmp_path, source)
    for _ in range(60):
        for _ in range(3):
            writer.stage(source.transaction(6))
        writer.commit({}, source.lsn)
        writer.upkeep()
    assert_mirrors(scan_delta(writer.location), source)
    assert replace(writer.checkpoint, sequence=0) == replace(
        open_mirror(tmp_path, source).checkpoint, epoch=1, sequence=0
    )


def test_an_initial_snapshot_in_pieces_and_changes_on_top_of_it(tmp_path: Path) -> None:
    source = ModelSource(seed=30)
    writer = open_mirror(tmp_path, source)
    for piece in (source.insert(40), source.insert(40)):
        # the same rows again at another LSN: a second snapshot, which replaces the first
        for lsn in (5, 7):
            writer.stage([as_snapshot(batch, lsn) for batch in piece])
    source.lsn = 10
    for _ in range(3):
        writer.stage(source.transaction(40))
    writer.commit({}, source.lsn)
    assert_mirrors(scan_delta(writer.location), source)


def test_rows_of_one_snapshot_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ModelSource(seed=31)
    writer = open_mirror(tmp_path, source)
    pieces = [source.insert(40) for _ in range(4)]
    with monkeypatch.context() as patched:
        patched.setattr("tailrace.sinks.lookup.KeyIndex.find", None)
        for piece in pieces:
            writer.stage([as_snapshot(batch, 5) for batch in piece])
    writer.stage(source.transaction(60))
    writer.commit({}, source.lsn)
    assert_mirrors(scan_delta(writer.location), source)


def as_snapshot(batch: ChangeBatch, lsn: int) -> ChangeBatch:
    """The same rows, read by an initial snapshot at `lsn`."""
    n = len(batch)
    return replace(batch, op=np.full(n, OP_READ, np.uint8), lsn=np.full(n, lsn, np.int64))
