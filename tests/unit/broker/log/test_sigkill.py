"""SIGKILL at any moment and at every named crash point: what was acknowledged is there, whole and in order."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tailrace.broker.log import CRASH_POINTS, LogManager
from tailrace.broker.records.batch import iterate_batches
from tailrace.broker.records.record import decode_records
from tailrace.broker.topics import CRASH_POINTS as TOPIC_CRASH_POINTS
from tailrace.broker.topics import Topics

ROOT = Path(__file__).resolve().parents[4]


def run_writer(
    data_dir: Path, mode: str, batches: int, *, kill_after: int | None = None, crash_at: str = ""
) -> tuple[int, int]:
    """(exit code, last acknowledged end offset) of a writer; killed after so many acknowledgements."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.broker.log.crashing_writer", str(data_dir), mode, str(batches)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TAILRACE_CRASH_AT": crash_at},
        text=True,
    )
    assert process.stdout is not None
    acked, count = 0, 0
    with process.stdout:
        for line in process.stdout:
            if line.startswith("ack ") and line.endswith("\n"):
                acked = int(line.split()[1])
                count += 1
                if count == kill_after:
                    process.send_signal(signal.SIGKILL)
    return process.wait(60), acked


def check(data_dir: Path, acked: int) -> None:
    """Open the directory and read everything: no acknowledged batch is missing, none is doubled or torn."""
    logs = LogManager(data_dir)
    topics = Topics(data_dir, logs)
    assert not logs.offline()
    if topics.find("orders") is None:
        assert acked == 0
    else:
        log = topics.log("orders", 0)
        assert log.log_end_offset >= acked
        latest: dict[bytes | None, int] = {}
        offset = log.log_start_offset
        while parts := log.read(offset, 1 << 20, upper=log.log_end_offset):
            for part in parts:
                for header, batch in iterate_batches(part):
                    assert header.base_offset == offset or log.config.compact
                    offset = header.last_offset + 1
                    for record in () if header.is_control else decode_records(batch):
                        assert record.value == b"%d" % record.offset
                        latest[record.key] = record.offset
        assert offset == log.log_end_offset
        if log.config.compact:
            assert len(latest) == min(50, offset) and min(latest.values(), default=0) >= offset - 50
    logs.close()
    topics.close()


@pytest.mark.crash
def test_an_acked_record_survives_sigkill(tmp_path: Path) -> None:
    moments = random.Random(7)
    for _ in range(5):
        code, acked = run_writer(tmp_path, "append", 3000, kill_after=moments.randrange(1, 80))
        assert code == -signal.SIGKILL and acked > 0
        check(tmp_path, acked)


# deep enough for segments, markers, retention and checkpoints to be under way
LATER_PASSES = {
    "broker.log.before_append": 60,
    "broker.log.after_append": 60,
    "broker.log.before_fsync": 60,
    "broker.log.after_fsync": 60,
    "broker.log.before_marker": 10,
    "broker.log.after_marker": 10,
    "broker.log.before_checkpoint": 2,
    "broker.log.after_checkpoint": 2,
}
IN_RECOVERY = [point for point in CRASH_POINTS if point.startswith("broker.recovery.")]


@pytest.mark.crash
@pytest.mark.parametrize(
    "point", [point for point in (*CRASH_POINTS, *TOPIC_CRASH_POINTS) if point not in IN_RECOVERY]
)
def test_a_kill_at_every_crash_point_keeps_what_was_acked(tmp_path: Path, point: str) -> None:
    mode = "compact" if "compaction" in point else "transactions" if "marker" in point else "append"
    crash_at = f"{point}:{LATER_PASSES.get(point, 1)}"
    code, acked = run_writer(tmp_path, mode, 120, crash_at=crash_at)
    assert code == -signal.SIGKILL, "the point was not reached"
    check(tmp_path, acked)


@pytest.mark.crash
@pytest.mark.parametrize("point", IN_RECOVERY)
def test_a_kill_during_recovery_is_recovered_from(tmp_path: Path, point: str) -> None:
    code, acked = run_writer(tmp_path, "append", 120, kill_after=60)
    assert code == -signal.SIGKILL
    with max((tmp_path / "orders-0").glob("*.log")).open("ab") as file:
        file.write(b"torn")
    code, _ = run_writer(tmp_path, "append", 120, crash_at=point)
    assert code == -signal.SIGKILL, "the point was not reached"
    check(tmp_path, acked)
