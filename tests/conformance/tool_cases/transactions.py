"""kafka-transactions.sh."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import confluent_kafka as ck
from tests.conformance.tool_cases.bench import TIMEOUT_S, Bench, Case, expect

_TOOL = "TransactionsCommand"


@contextmanager
def _open(bench: Bench, name: str) -> Iterator[ck.Producer]:
    """A topic and a transactional id of the same name, with one record in a transaction that is not ended."""
    bench.create(name)
    producer = ck.Producer({"bootstrap.servers": bench.bootstrap, "transactional.id": name})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(name, b"pending", partition=0)
    assert producer.flush(TIMEOUT_S) == 0
    yield producer


def list_and_describe(bench: Bench) -> None:
    """An open transaction is seen from every side."""
    with _open(bench, "pending") as producer:
        told = bench.run(_TOOL, "list")
        found = re.search(r"^pending\s+\d+\s+(\d+)\s+Ongoing", told, re.MULTILINE)
        assert found is not None, told
        assert "pending" not in bench.run(_TOOL, "list", "--duration-filter", "3600000")
        expect(bench.run(_TOOL, "list", "--transactional-id-pattern", "pend.*"), r"^pending\s")
        described = bench.run(_TOOL, "describe", "--transactional-id", "pending")
        expect(described, rf"^\d+\s+pending\s+{found[1]}\s+0\s+Ongoing\s+60000\s.*\spending-0")
        producers = bench.run(_TOOL, "describe-producers", "--topic", "pending", "--partition", "0")
        expect(producers, rf"^{found[1]}\s+0\s+-?\d+\s+0\s+\d+\s+0\b")
        producer.abort_transaction(TIMEOUT_S)
    expect(bench.run(_TOOL, "describe", "--transactional-id", "pending"), "CompleteAbort|Empty")


def find_hanging(bench: Bench) -> None:
    """None is."""
    with _open(bench, "watched") as producer:
        told = bench.run(_TOOL, "find-hanging", "--topic", "watched", "--max-transaction-timeout", "0")
        assert "watched" not in told, told
        producer.commit_transaction(TIMEOUT_S)


def force_terminate(bench: Bench) -> None:
    """Aborts what its producer left open."""
    with _open(bench, "stuck"):
        bench.run(_TOOL, "forceTerminateTransaction", "--transactionalId", "stuck")
        expect(
            bench.run(_TOOL, "describe", "--transactional-id", "stuck"), "CompleteAbort|PrepareAbort|Empty"
        )


def abort(bench: Bench) -> None:
    """Writes the marker that a partition waits for."""
    with _open(bench, "hanging") as producer:
        which = ("--topic", "hanging", "--partition", "0", "--start-offset", "0")
        bench.run(_TOOL, "abort", *which)
        producers = bench.run(_TOOL, "describe-producers", "--topic", "hanging", "--partition", "0")
        expect(producers, r"^\d+\s+\d+\s+\S+\s+\S+\s+\d+\s+None")
        producer.purge()


CASES: tuple[Case, ...] = (list_and_describe, find_hanging, force_terminate, abort)
