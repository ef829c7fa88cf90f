"""The demo: the quickstart pipeline with Flink, under load, with every part killed once."""

import json
import subprocess
import sys

import pytest


@pytest.mark.flink
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_survives_four_kills_and_verifies_every_table() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tailrace.pipeline.cli",
            "demo",
            "--rows",
            "3000",
            "--seconds",
            "16",
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    report = json.loads(done.stdout)
    assert report["verified"]
    assert (report["kills"], report["survived"]) == (4, 4)
    verdicts = {(table["sink"], table["table"]): table for table in report["verification"]["tables"]}
    assert set(verdicts) == {
        ("delta", "enriched_transactions"),
        ("delta", "customers"),
        ("iceberg", "enriched_transactions"),
        ("changes", "transactions"),
    }
    assert all(table["equal"] and table["verified_through"] for table in verdicts.values())
    assert report["source_changes"] > 1000
