"""A transform end to end: raw topics -> SQL and a Python function -> enriched topic."""

import pytest
from tests.fixtures.flink import CUSTOMERS, TRANSACTIONS, PartFactory, Topics, transaction

from tailrace.flink.config import TransformConfig

pytestmark = [pytest.mark.flink, pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_join_with_a_function_equals_the_sql_on_the_final_tables(
    topics: Topics, enrich: TransformConfig, flink_part: PartFactory
) -> None:
    topics.create("raw.shop.transactions", TRANSACTIONS)
    topics.create("raw.shop.customers", CUSTOMERS)
    topics.write(
        "raw.shop.customers",
        [{"id": i, "country": "NO" if i % 2 else "SE", "name": f"c{i}"} for i in range(5)],
    )
    topics.write("raw.shop.transactions", [transaction(i, i % 7, "10.00") for i in range(1000)])
    part = flink_part(enrich)
    part.start()
    part.wait_until(lambda: part.status().get("checkpoint_id") is not None)
    part.wait_until(lambda: len(topics.table("enriched.transactions")) == 1000)
    print(part.status())
    print(
        list(topics.table("enriched.transactions").items())[:3], topics.records("enriched.transactions")[-1]
    )
    part.stop()
