"""Short runs of Jepsen's Kafka workload in every test run; `make jepsen` is the long one (200 runs of 300 s).

`TAILRACE_JEPSEN_RUNS`, `_SECONDS` and `_SEED` change them; a run that finds something keeps its history.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
from tests.fixtures.kafka_proxy import KafkaProxy
from tests.jepsen.run import run

from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m

ROOT = Path(__file__).parents[2]
RUNS = os.environ.get("TAILRACE_JEPSEN_RUNS", "20")
SECONDS = os.environ.get("TAILRACE_JEPSEN_SECONDS", "3")
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


@pytest.mark.timeout(0)
@pytest.mark.slow
def test_a_broker_that_acknowledges_what_it_does_not_keep_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acknowledge(request: m.ProduceRequest) -> m.ProduceResponse:
        return m.ProduceResponse(
            [
                m.TopicProduceResponse(
                    topic.name, partition_responses=[m.PartitionProduceResponse(p.index, 0, 0) for p in parts]
                )
                for topic in request.topic_data
                for parts in (topic.partition_data,)
            ]
        )

    class LyingProxy(KafkaProxy):
        def __enter__(self) -> Self:
            for _ in range(5):  # one may be of a transaction that aborts
                self.forge(ApiKey.PRODUCE, acknowledge, after=6)
            return super().__enter__()

    monkeypatch.setattr("tests.jepsen.run.KafkaProxy", LyingProxy)
    found = run(tmp_path / "run", seed=1, seconds=2).verdict.anomalies
    assert "unseen" in {anomaly.name for anomaly in found}
