"""The same pipeline with its log in Apache Kafka: who outgrows the built-in broker changes an address."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.apache_kafka import ApacheKafka, Secured
from tests.fixtures.certificates import Certificates
from tests.fixtures.registry import Stack
from tests.integration.pipeline.command import Shell, execute, wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(400)]

PIPELINE = """\
version: 1
name: shop
broker: {{mode: external, bootstrap: "{bootstrap}"{login}}}
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


LOGIN = """, security.protocol: SASL_SSL, sasl.mechanism: SCRAM-SHA-512, sasl.username: ops,
         sasl.password: "${{env:KAFKA_PASSWORD}}", ssl.ca.location: "{authority}\""""


@pytest.fixture
def kafka(tmp_path: Path, certificates: Certificates) -> Iterator[ApacheKafka]:
    """In plain text on one listener, with SASL_SSL on another, where logins hold for three seconds."""
    secured = Secured(certificates.folder / "broker.pem", reauth_ms=3_000)
    broker = ApacheKafka(tmp_path / "kafka", secured=secured)
    broker.start()
    yield broker
    broker.kill()


@pytest.mark.parametrize("secured", [False, True], ids=["plaintext", "sasl_ssl"])
def test_a_pipeline_over_apache_kafka_survives_a_sigkill_of_it_and_every_table_equals_its_source(
    secured: bool,
    kafka: ApacheKafka,
    stack: Stack,
    postgres: str,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "ops-secret")
    login = LOGIN.format(authority=certificates.authority) if secured else ""
    bootstrap = kafka.secured_bootstrap if secured else kafka.bootstrap
    execute(
        postgres,
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2), note text, at timestamptz)",
        "INSERT INTO orders SELECT i, i * 1.25, 'note ' || i, now() FROM generate_series(1, 5000) i",
    )
    shell = Shell(tmp_path, postgres)
    file = shell.write(PIPELINE.format(bootstrap=bootstrap, login=login, registry=stack.registry_url))
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
    told = [verdict.out, verdict.err, *(log.read_text() for log in (shell.data_dir / "logs").iterdir())]
    assert not any("ops-secret" in text for text in told)
