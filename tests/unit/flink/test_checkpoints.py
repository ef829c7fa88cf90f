"""Which state a restart goes on from."""

import dataclasses
import os
import struct
import time
from pathlib import Path

import pytest

from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.flink.checkpoints import JobState
from tailrace.flink.config import FlinkPartConfig, TransformConfig
from tailrace.flink.tables import TopicSchemas

TRANSFORM = TransformConfig("out", {"t": "raw.t"}, "out", ("id",), "SELECT id FROM t")


def config(tmp_path: Path, *transforms: TransformConfig) -> FlinkPartConfig:
    return FlinkPartConfig(
        "shop", transforms or (TRANSFORM,), "h:1", "http://h:2", tmp_path, transaction_timeout_s=60
    )


def checkpoint(state: JobState, folder: str, number: int, *, whole: bool = True, age_s: float = 0) -> Path:
    path = state.checkpoints / folder
    path.mkdir(parents=True)
    metadata = path / "_metadata"
    metadata.write_bytes(struct.pack(">iiq", 0x4960672D, 4, number)[: None if whole else 10])
    os.utime(metadata, (time.time() - age_s,) * 2)
    return path


def test_a_first_start_has_no_checkpoint(tmp_path: Path) -> None:
    assert JobState(config(tmp_path)).newest() is None


def test_the_newest_is_the_highest_id_over_all_jobs_and_savepoints(tmp_path: Path) -> None:
    state = JobState(config(tmp_path))
    checkpoint(state, "a" * 32 + "/chk-9", 9)
    wanted = checkpoint(state, "b" * 32 + "/chk-11", 11)
    checkpoint(state, "savepoint-0-1", 10)
    newest = state.newest()
    assert newest is not None and newest.path == wanted and not newest.by_clean_stop


def test_an_unfinished_checkpoint_is_passed_over(tmp_path: Path) -> None:
    state = JobState(config(tmp_path))
    wanted = checkpoint(state, "a" * 32 + "/chk-9", 9)
    checkpoint(state, "a" * 32 + "/chk-10", 10, whole=False)
    (state.checkpoints / ("a" * 32) / "chk-11").mkdir()
    newest = state.newest()
    assert newest is not None and newest.path == wanted


def test_a_checkpoint_older_than_the_transaction_timeout_is_refused_loudly(tmp_path: Path) -> None:
    state = JobState(config(tmp_path))
    checkpoint(state, "a" * 32 + "/chk-9", 9, age_s=61)
    with pytest.raises(TailraceError, match="longer than its transaction timeout"):
        state.newest()


def test_a_clean_stop_may_last_longer_than_the_transaction_timeout(tmp_path: Path) -> None:
    state = JobState(config(tmp_path))
    checkpoint(state, "a" * 32 + "/chk-9", 9, age_s=1000)
    checkpoint(state, "savepoint-0-1", 10, age_s=1000)
    newest = state.newest()
    assert newest is not None and newest.by_clean_stop


def test_a_restart_reads_with_the_schemas_of_its_state(tmp_path: Path) -> None:
    state = JobState(config(tmp_path))
    schemas = TopicSchemas("raw.t", None, "{}")
    state.pin([schemas])
    assert JobState(config(tmp_path)).pinned_schemas() == {"raw.t": schemas}


@pytest.mark.parametrize(
    "changes", [{"sql": "SELECT 1"}, {"key": ()}, {"inputs": {"t": "raw.u"}}, {"name": "other"}]
)
def test_state_of_another_sql_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    JobState(config(tmp_path)).pin([])
    changed = dataclasses.replace(TRANSFORM, **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="was changed"):
        JobState(config(tmp_path, changed)).pinned_schemas()


def test_a_moved_project_keeps_its_state(tmp_path: Path) -> None:
    JobState(config(tmp_path)).pin([])
    moved = dataclasses.replace(TRANSFORM, base_dir=Path("/elsewhere"), file="other.yaml", line=7)
    assert JobState(config(tmp_path, moved)).pinned_schemas() == {}


def test_empty_folders_of_former_jobs_are_removed(tmp_path: Path) -> None:
    state = JobState(config(tmp_path))
    kept = checkpoint(state, "b" * 32 + "/chk-11", 11)
    (state.checkpoints / ("a" * 32) / "shared").mkdir(parents=True)
    state.prune()
    assert not (state.checkpoints / ("a" * 32)).exists() and kept.exists()
