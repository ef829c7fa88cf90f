"""Random SIGKILLs of every part under load; after each one every table must equal its source.

TAILRACE_KILLS sets how many (CI does a short round; `TAILRACE_KILLS=30 pytest tests/crash/test_random_kills.py`
is the full one).  The seed is printed; TAILRACE_SEED repeats a run.
"""

import os
import random
import signal
from pathlib import Path

import psutil
import pytest
from tests.integration.pipeline.command import Shell, wait_until

from tailrace.pipeline.demo.shop import Load, create_shop

pytestmark = [pytest.mark.postgres, pytest.mark.crash, pytest.mark.slow]

KILLS = int(os.environ.get("TAILRACE_KILLS", "5"))
SEED = int(os.environ.get("TAILRACE_SEED", random.randrange(1 << 30)))

PIPELINE = """\
version: 1
name: shop
source:
  type: postgres
  dsn: ${env:PG_DSN}
  tables: [public.customers, public.transactions]
topics: {defaults: {partitions: 2}}
sinks:
  delta: {type: delta, path: "./lake/delta/{table}"}
  iceberg: {type: iceberg, warehouse: ./lake/iceberg, table: "shop.{table}"}
  log: {type: iceberg, mode: append, warehouse: ./lake/iceberg, table: "log.{table}"}
"""
PARTS = ("broker", "source", "sink.delta", "sink.iceberg", "sink.log")
SECONDS_PER_KILL = 90.0


@pytest.mark.timeout(180 + 90 * KILLS)
def test_every_table_equals_its_source_after_each_random_kill(postgres: str, tmp_path: Path) -> None:
    print(f"TAILRACE_SEED={SEED}")  # noqa: T201 - shown when the test fails
    dice = random.Random(SEED)
    shell = Shell(tmp_path, postgres)
    file = shell.write(PIPELINE)
    customers = create_shop(postgres, 5000)
    seconds = SECONDS_PER_KILL * KILLS
    load = Load(postgres, 5000, customers, seconds=30 + seconds, column_after_s=seconds / 12, rate=500)
    with shell.running(file) as run:
        wait_until(lambda: shell.status(file)["running"], "every part runs", 90)
        load.start()
        for number in range(KILLS):
            pids = {part["part"]: part["pid"] for part in shell.status(file)["parts"] if part["alive"]}
            victim = dice.choice([part for part in PARTS if part in pids])
            load.join(dice.uniform(0.0, 2.0))
            if psutil.pid_exists(pids[victim]):
                os.kill(pids[victim], signal.SIGKILL)
            verdict = shell.tailrace(
                "verify", file, "--data-dir", shell.data_dir, "--timeout", "140", timeout_s=200
            )
            ended = run.communicate()[1] if run.poll() is not None else "the run goes on"
            assert verdict.code == 0, f"kill {number}, {victim}:\n{verdict.out}\n{verdict.err}\n{ended}"
            assert load.is_alive(), f"the load ended before kill {number}: {load.error}"
        load.finish()
        assert load.error is None
        last = shell.tailrace("verify", file, "--data-dir", shell.data_dir, "--json", timeout_s=150)
        assert last.code == 0, last.out
        tables = last.json()["tables"]
        assert len(tables) == 6
        assert all(table["equal"] and table["rows"] for table in tables)
