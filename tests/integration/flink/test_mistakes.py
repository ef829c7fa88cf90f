"""Mistakes end the part within seconds, in plain words."""

import dataclasses
import time

import pytest
from tests.fixtures.flink import CUSTOMERS, TRANSACTIONS, FlinkPart, PartFactory, Topics, transaction

from tailrace.flink.config import TransformConfig

pytestmark = [pytest.mark.flink, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def filled(topics: Topics) -> Topics:
    topics.create("raw.shop.transactions", TRANSACTIONS)
    topics.create("raw.shop.customers", CUSTOMERS)
    topics.write("raw.shop.transactions", [transaction(i, None) for i in range(10)])
    topics.write("raw.shop.customers", [{"id": 1, "country": "NO", "name": "c"}])
    return topics


def test_a_function_that_raises_stops_the_job_with_its_line(
    filled: Topics, enrich: TransformConfig, flink_part: PartFactory
) -> None:
    (enrich.base_dir / "risk.py").write_text(
        "def score(amount, country):\n    if amount > 10:\n        return 1 / 0\n    return amount\n"
    )
    part = flink_part(enrich)
    part.start()
    part.wait_until(lambda: len(filled.table("enriched.transactions")) == 10)
    filled.write("raw.shop.transactions", [transaction(99, None, "11.00")])
    started = time.monotonic()
    said = part.wait_failed()
    assert time.monotonic() - started < 30
    assert "transform enriched: function risk raised ZeroDivisionError: division by zero" in said
    assert f"{enrich.base_dir / 'risk.py'}:3, in score" in said
    assert "at org.apache" not in said

    # corrected, it goes on at its last checkpoint
    (enrich.base_dir / "risk.py").write_text("def score(amount, country):\n    return 0.5\n")
    part.start()
    part.wait_until(lambda: filled.table("enriched.transactions").get((99,), {}).get("risk_score") == 0.5)
    assert filled.table("enriched.transactions")[(1,)]["risk_score"] == 1.0, (
        "older rows were not computed again"
    )


def test_records_that_do_not_fit_stop_the_job_with_the_column(
    filled: Topics, enrich: TransformConfig, flink_part: PartFactory
) -> None:
    part = flink_part(dataclasses.replace(enrich, sql="SELECT id, amount FROM transactions", udfs=()))
    part.start()
    part.wait_until(lambda: len(filled.table("enriched.transactions")) == 10)
    filled.registry.set_compatibility("raw.shop.transactions-value", "NONE")
    changed = {
        **TRANSACTIONS,
        "fields": [{"name": "id", "type": "long"}, {"name": "amount", "type": "string"}],
    }
    filled.create("raw.shop.transactions", changed)
    filled.write("raw.shop.transactions", [{"id": 1, "amount": "a lot"}])
    said = part.wait_failed()
    assert "records of a topic do not fit the transform" in said
    assert "column amount is Avro string" in said and "DECIMAL(12, 2)" in said


def test_an_incompatible_result_is_refused_before_anything_is_written(
    filled: Topics, enrich: TransformConfig, flink_part: PartFactory
) -> None:
    filled.registry.register(
        "enriched.transactions-value",
        '{"type": "record", "name": "transactions", "fields": [{"name": "id", "type": "string"}]}',
    )
    part = flink_part(dataclasses.replace(enrich, sql="SELECT id, amount FROM transactions", udfs=()))
    part.start()
    said = part.wait_failed(timeout_s=240)
    assert "transform enriched" in said and "enriched.transactions-value" in said
    assert filled.records("enriched.transactions") == []


def test_bad_sql_stops_the_part_with_the_line_of_the_file(
    filled: Topics, enrich: TransformConfig, flink_part: PartFactory
) -> None:
    part = flink_part(
        dataclasses.replace(enrich, sql="SELECT t.id,\n       t.amont\nFROM transactions AS t", udfs=())
    )
    part.start()
    said = part.wait_failed(timeout_s=240)
    assert said.startswith("pipeline.yaml:21: transform enriched: Column 'amont' not found in table 't'")
    assert part.process is not None and part.process.returncode == 2
    assert "enriched.transactions" not in _topics(part)


def _topics(part: FlinkPart) -> set[str]:
    from tailrace.broker.client import Client

    with Client(part.config.bootstrap, client_id="test") as client:
        return set(client.metadata())
