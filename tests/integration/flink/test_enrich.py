"""A transform end to end: raw topics -> SQL and a Python function -> enriched topic."""

import dataclasses
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psutil
import pytest
from tests.fixtures.flink import CUSTOMERS, NOW, TRANSACTIONS, PartFactory, Topics, transaction

from tailrace.broker.client import Client
from tailrace.flink.config import TransformConfig, UdfConfig

pytestmark = [pytest.mark.flink, pytest.mark.slow, pytest.mark.timeout(400)]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def expected(transactions: dict[int, dict[str, Any]], customers: dict[int, dict[str, Any]]) -> dict[Any, Any]:
    """The join and the function, computed in plain Python."""
    rows = {}
    for row in transactions.values():
        customer = customers.get(row["customer_id"], {})
        rows[(row["id"],)] = {
            "id": row["id"],
            "amount": row["amount"],
            "created_at": EPOCH + timedelta(microseconds=row["created_at"]),
            "note": row["note"],
            "country": customer.get("country"),
            "name": customer.get("name"),
            "risk_score": float(row["amount"]) * (2.0 if customer.get("country") == "NO" else 1.0),
        }
    return rows


def test_a_join_with_a_function_equals_the_sql_on_the_final_tables(
    topics: Topics, enrich: TransformConfig, flink_part: PartFactory
) -> None:
    part = flink_part(enrich)
    part.start()  # before its topics exist: it waits for their schemas
    topics.create("raw.shop.transactions", TRANSACTIONS)
    topics.create("raw.shop.customers", CUSTOMERS)
    customers: dict[int, dict[str, Any]] = {
        i: {"id": i, "country": "NO" if i % 2 else "SE", "name": f"c{i}"} for i in range(5)
    }
    transactions = {i: dict(transaction(i, i % 7, "10.25", "né" if i % 3 else None)) for i in range(1000)}
    topics.write("raw.shop.customers", customers.values(), timestamp=NOW + 1)
    topics.write("raw.shop.transactions", transactions.values(), timestamp=NOW + 2)
    part.wait_until(lambda: topics.table("enriched.transactions") == expected(transactions, customers))

    # updates on both sides, a row that changes its customer, deletes on both sides, a key change, a late customer,
    # a row that was gone before its TOASTed note could be read again
    customers[1]["country"] = "DK"
    transactions[8] |= {"customer_id": 3, "amount": Decimal("-0.01"), "note": "moved"}
    transactions[5000] = {**transactions.pop(9), "id": 5000}
    customers[6] = {"id": 6, "country": "NO", "name": None}
    topics.write("raw.shop.customers", [customers[1], customers[6]], timestamp=NOW + 5)
    topics.write("raw.shop.customers", [customers.pop(0)], deleted=True, timestamp=NOW + 5)
    topics.write("raw.shop.transactions", [transaction(9, None)], deleted=True, timestamp=NOW + 4)
    topics.write("raw.shop.transactions", [transactions[8], transactions[5000]], timestamp=NOW + 4)
    topics.write("raw.shop.transactions", [transactions.pop(10)], deleted=True, timestamp=NOW + 4)
    without_note = {**transactions.pop(11), "note": None}
    topics.write("raw.shop.transactions", [without_note], gone=True, timestamp=NOW + 4)
    part.wait_until(lambda: topics.table("enriched.transactions") == expected(transactions, customers))

    newest = {
        next(iter(key.values())): timestamp
        for key, value, timestamp in topics.records("enriched.transactions")
        if value
    }
    assert newest[2] == NOW + 2, "a join carries the greatest commit time of its inputs"
    assert newest[1] == NOW + 5, "an update of the customer dates the result"
    assert newest[5000] == NOW + 4

    part.wait_until(
        lambda: part.status().get("records_in") == 1013 and part.status()["checkpoint_id"] is not None
    )
    part.wait_until(lambda: part.status()["lag_rows"] == 0)
    assert part.status()["state"] == "running" and part.status()["child_cpu_seconds"] > 0
    assert listening(part.job_pid()) == {"127.0.0.1"}

    part.stop()
    assert part.status()["state"] == "stopped"
    assert not psutil.pid_exists(part.job_pid())
    assert open_transactions(topics) == 0, "a clean stop leaves nothing uncommitted"


def test_rows_written_while_the_job_was_stopped_follow_the_savepoint(
    topics: Topics, enrich: TransformConfig, flink_part: PartFactory
) -> None:
    """Also: a column added to a topic meanwhile does not disturb the state, and a keyless topic appends."""
    topics.create("raw.shop.transactions", TRANSACTIONS)
    topics.create("raw.shop.log", CUSTOMERS, key=None)
    projected = dataclasses.replace(
        enrich,
        inputs={"transactions": "raw.shop.transactions"},
        sql="SELECT t.*, risk(CAST(amount AS DOUBLE), note) AS risk FROM transactions t",
        udfs=(UdfConfig("risk", "batch.py:score", "DOUBLE", "arrow"),),
    )
    (enrich.base_dir / "batch.py").write_text("def score(amount, note):\n    return amount * 2\n")
    appended = TransformConfig(
        "appended",
        {"log": "raw.shop.log"},
        "appended.log",
        (),
        "SELECT id, UPPER(name) AS name FROM log WHERE id > 0;",
    )
    topics.write("raw.shop.transactions", [transaction(i, None, "1.50") for i in range(100)])
    topics.write(
        "raw.shop.log", [{"id": i, "country": None, "name": "x"} for i in range(3)], timestamp=NOW + 9
    )
    part = flink_part(projected, appended)
    part.start()
    part.wait_until(lambda: len(topics.records("enriched.transactions")) == 100)
    part.wait_until(lambda: len(topics.records("appended.log")) == 2)
    assert topics.records("appended.log")[0] == (None, {"id": 1, "name": "X"}, NOW + 9)
    part.stop()

    widened = {
        **TRANSACTIONS,
        "fields": [*TRANSACTIONS["fields"], {"name": "more", "type": ["null", "string"], "default": None}],
    }
    topics.create("raw.shop.transactions", widened)
    topics.write(
        "raw.shop.transactions", [{**transaction(i, None, "2.50"), "more": "m"} for i in range(50, 150)]
    )
    topics.write("raw.shop.log", [{"id": 7, "country": None, "name": None}])
    part.start()
    part.wait_until(lambda: len(topics.records("enriched.transactions")) == 200)
    part.wait_until(lambda: len(topics.records("appended.log")) == 3)
    table = topics.table("enriched.transactions")
    assert len(table) == 150
    assert {row["risk"] for row in table.values()} == {3.0, 5.0}
    part.stop()


def listening(group: int) -> set[str]:
    """Addresses that the processes of a job listen on."""
    job = psutil.Process(group)
    found = set()
    for process in [job, *job.children(recursive=True)]:
        for connection in process.net_connections():
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip.removeprefix("::ffff:"))
    return found


def open_transactions(topics: Topics) -> int:
    """Offsets between the last stable offset and the end of the target topic."""
    with Client(topics.bootstrap, client_id="test") as client:
        places = client.metadata(["enriched.transactions"])["enriched.transactions"].partitions
        ends = client.list_offsets(places)
        stable = client.list_offsets(places, isolation="read_committed")
        return sum(ends[place] - stable[place] for place in places)
