"""The supervisor: one per data directory, and parts that end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tailrace.changes import ConfigError, TailraceError
from tailrace.pipeline.load import load_spec
from tailrace.pipeline.plan import Plan, make_plan
from tailrace.pipeline.supervisor import Supervisor

PIPELINE = """\
version: 1
name: shop
source: {type: postgres, dsn: "host=127.0.0.1 port=1 connect_timeout=2", tables: [public.orders]}
broker: {mode: external, bootstrap: "127.0.0.1:1"}
registry: {url: "http://127.0.0.1:1"}
sinks: {lake: {type: delta, path: ./lake}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    return make_plan(load_spec(file, {}))


def test_a_data_directory_has_one_supervisor(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    with Supervisor(plan, folder, print).alone():
        with pytest.raises(TailraceError, match="already runs on"), Supervisor(plan, folder, print).alone():
            pass
        assert folder.exists()
    assert not (tmp_path / "a").exists()  # nothing was started, so nothing is left


def test_a_data_directory_in_use_before_is_kept(plan: Plan, tmp_path: Path) -> None:
    tmp_path.joinpath("run").mkdir()
    with Supervisor(plan, tmp_path / "run", print).alone():
        pass
    assert (tmp_path / "run").exists()


def test_a_file_in_the_way_of_the_data_directory_is_a_configuration_error(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(ConfigError, match="cannot keep the state of the run"),
        Supervisor(plan, tmp_path / "run" / "deep", print).alone(),
    ):
        pass


def test_a_part_that_is_killed_is_started_again_later_each_time(plan: Plan, tmp_path: Path) -> None:
    events: list[str] = []
    supervisor = Supervisor(plan, tmp_path / "run", events.append)

    def killed_twice() -> bool:
        for line in events:
            if line.startswith("source started"):
                pid = int(line.split()[-1].rstrip(")"))
                if pid not in killed:
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)
        return sum("starting it again" in line for line in events) >= 3

    killed: list[int] = []
    with supervisor.alone():
        assert supervisor.run(killed_twice) is True
    told = [line for line in events if "source was killed by signal 9" in line]
    assert [line.split()[-2] for line in told[:3]] == ["0.2", "0.4", "0.8"]


def test_a_signal_ends_the_run_unfinished_and_no_part_is_left(plan: Plan, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tailrace.pipeline.load import load_spec\n"
        "from tailrace.pipeline.plan import make_plan; from tailrace.pipeline.supervisor import Supervisor\n"
        "s = Supervisor(make_plan(load_spec(Path(sys.argv[1]), {})), Path(sys.argv[2]), lambda x: print(x, flush=True))\n"
        "with s.alone(): print(s.run())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, plan.file, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    timer = threading.Timer(60, process.kill)
    timer.start()
    pids = []
    for line in process.stdout:
        if "started" in line:
            pids.append(int(line.split()[-1].rstrip(")")))
            if len(pids) == 2:
                process.terminate()
        last = line
    timer.cancel()
    process.stdout.close()
    assert process.wait(30) == 0
    assert last.strip() == "False"
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
