"""The demo's kills: only a part that was really started again counts as survived."""

from pathlib import Path

import pytest

from tailrace.changes.status import StatusFile
from tailrace.pipeline.demo import chaos
from tailrace.pipeline.demo.chaos import Chaos
from tailrace.pipeline.plan import TRANSFORM


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chaos:
    """A chaos that has killed the Flink process 4711 of the part with pid 1, and waits only a moment."""
    monkeypatch.setattr(chaos, "_RECOVERY_S", 0.5)
    made = Chaos(tmp_path, [TRANSFORM], 1.0, lambda _: None)
    StatusFile(tmp_path, TRANSFORM).write("running", pid=1, child_pid=4711)
    made.note_killed(TRANSFORM)
    return made


def test_flink_is_not_recovered_by_the_status_from_before_its_kill(killed: Chaos) -> None:
    killed.wait_for_recovery()
    assert killed.survived == 0


def test_flink_is_recovered_when_another_process_of_it_runs(killed: Chaos, tmp_path: Path) -> None:
    status = StatusFile(tmp_path, TRANSFORM)
    status.write("starting", pid=1, step="flink")
    killed.wait_for_recovery()
    assert killed.survived == 0
    status.write("running", pid=1, child_pid=4712)
    killed.wait_for_recovery()
    assert killed.survived == 1
