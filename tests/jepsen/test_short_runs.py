"""Short runs of Jepsen's Kafka workload in every test run; `make jepsen` is the long one (200 runs of 300 s).

`TAILRACE_JEPSEN_RUNS`, `_SECONDS` and `_SEED` change them; a run that finds something keeps its history.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = os.environ.get("TAILRACE_JEPSEN_RUNS", "20")
SECONDS = os.environ.get("TAILRACE_JEPSEN_SECONDS", "4")
SEED = os.environ.get("TAILRACE_JEPSEN_SEED", "1")


@pytest.mark.timeout(0)
@pytest.mark.slow
def test_clients_see_no_anomaly_whatever_is_killed_paused_or_cut(tmp_path: Path) -> None:
    size = ["--runs", RUNS, "--seconds", SECONDS, "--seed", SEED, "--at-once", "4"]
    command = [sys.executable, "-m", "tests.jepsen", *size, "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (total,) = re.findall(r"^in all (.*)$", done.stdout, re.MULTILINE)
    for what in ("txn ok", "send ok", "poll ok", "faults"):
        assert re.search(rf"'{what}': \d\d", total), f"this was no load: {total}"
