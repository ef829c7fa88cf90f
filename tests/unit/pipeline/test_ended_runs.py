"""A run that has ended, also by SIGKILL, is taken for what it is: nothing finds its broker or waits for its tables."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fixtures.registry import Stack

from tailrace.changes import ConfigError
from tailrace.changes.status import StatusFile
from tailrace.pipeline.status import Patience, is_running
from tailrace.pipeline.topics import find_endpoints


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_addresses_that_a_killed_broker_left_behind_are_nobodys(stack: Stack) -> None:
    assert find_endpoints(None, data_dir=stack.data_dir).bootstrap == stack.bootstrap
    assert is_running(stack.data_dir)
    stack.kill()
    assert (stack.data_dir / "endpoints.json").exists()
    assert not is_running(stack.data_dir)
    with pytest.raises(ConfigError, match="no pipeline runs under"):
        find_endpoints(None, data_dir=stack.data_dir)


def test_a_broker_that_stops_takes_its_addresses_away(stack: Stack) -> None:
    stack.stop()
    assert not (stack.data_dir / "endpoints.json").exists()


def test_a_run_whose_broker_is_just_restarted_still_runs(tmp_path: Path) -> None:
    left = {"bootstrap": "127.0.0.1:1", "registry_url": "", "pid": dead_pid(), "started_at": time.time()}
    (tmp_path / "endpoints.json").write_text(json.dumps(left))
    supervisor = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / "run.json").write_text(json.dumps({"pid": supervisor.pid, "started_at": time.time()}))
    assert is_running(tmp_path)
    supervisor.communicate(b"\n")
    assert not is_running(tmp_path)


def test_nobody_waits_for_the_tables_of_a_sink_that_has_ended(tmp_path: Path) -> None:
    patience = Patience(tmp_path, 60.0)
    assert patience.over("sink.lake") == ""  # parts on other machines leave no status here
    StatusFile(tmp_path, "sink.lake").write("running")
    assert patience.over("sink.lake") == ""
    StatusFile(tmp_path, "sink.lake").write("running", pid=dead_pid())
    assert patience.over("sink.lake") == ""  # the supervisor may be starting it again
    StatusFile(tmp_path, "sink.lake").write("running", pid=dead_pid(), updated_at=time.time() - 60)
    assert "has ended" in patience.over("sink.lake")
    assert "in time" in Patience(tmp_path, -1.0).over("sink.other")
