"""The same pipeline with its log in Apache Kafka: who outgrows the built-in broker changes an address."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.apache_kafka import ApacheKafka
from tests.fixtures.registry import Stack
from tests.integration.pipeline.command import Shell, execute, wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(400)]

PIPELINE = """\
version: 1
name: shop
broker: {{mode: external, bootstrap: "{bootstrap}"}}
registry: {{url: "{registry}"}}
source:
  type: postgres
  dsn: ${{env:PG_DSN}}
  tables: [public.orders]
topics: {{defaults: {{partitions: 3}}}}
sinks:
  lake: {{type: delta, path: "./lake/{{table}}"}}
  log: {{type: iceberg, mode: append, warehouse: ./lake, table: "log.{{table}}"}}
"""


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[ApacheKafka]:
    broker = ApacheKafka(tmp_path / "kafka")
    broker.start()
    yield broker
    broker.kill()


def test_a_pipeline_over_apache_kafka_survives_a_sigkill_of_it_and_every_table_equals_its_source(
    kafka: ApacheKafka, stack: Stack, postgres: str, tmp_path: Path
) -> None:
    execute(
        postgres,
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2), note text, at timestamptz)",
        "INSERT INTO orders SELECT i, i * 1.25, 'note ' || i, now() FROM generate_series(1, 5000) i",
    )
    shell = Shell(tmp_path, postgres)
    file = shell.write(PIPELINE.format(bootstrap=kafka.bootstrap, registry=stack.registry_url))
    with shell.running(file) as run:
        wait_until(lambda: run.poll() is not None or shell.status(file)["running"], "every part runs", 120)
        execute(
            postgres,
            "UPDATE orders SET amount = amount + 1 WHERE id % 3 = 0",
            "DELETE FROM orders WHERE id % 7 = 0",
        )
        kafka.kill()
        execute(
            postgres,
            "INSERT INTO orders SELECT i, 1, 'late', now() FROM generate_series(5001, 6000) i",
            "UPDATE orders SET id = -id WHERE id % 11 = 0",
        )
        kafka.start()
        verdict = shell.tailrace(
            "verify", file, "--data-dir", shell.data_dir, "--timeout", "120", timeout_s=150
        )
        assert run.poll() is None, run.communicate()[1]
    assert verdict.code == 0, verdict.out + verdict.err
