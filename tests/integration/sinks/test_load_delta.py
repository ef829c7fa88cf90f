"""The load loop: broker -> Delta tables, in this process, on a real broker and registry."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fixtures.registry import Stack
from tests.fixtures.tables import scan_delta
from tests.integration.sinks.source_log import FreeTopic, SourceLog

from tailrace.changes import Truncate
from tailrace.changes.status import read_status
from tailrace.sinks.service import CommitPolicy, SinkInput, SinkPartConfig, run
from tailrace.sinks.testing import EVENTS, ORDERS, ModelSource, assert_mirrors

DEADLINE_S = 30.0


class RunningSink:
    """A sink part in a thread of this process."""

    def __init__(self, config: SinkPartConfig) -> None:
        self.config = config
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            run(self.config, self.stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def end(self) -> None:
        """Stop and wait; re-raises what the sink raised."""
        self.stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def tables(self) -> dict[str, Any]:
        """The tables in the status file."""
        found = read_status(self.config.data_dir).get(f"sink.{self.config.sink}", {}).get("tables", {})
        return dict(found)

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Wait until it holds; a sink that died says why."""
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            if self.error is not None:
                raise self.error
            assert time.monotonic() < deadline, f"not reached: {self.tables()}"
            time.sleep(0.02)

    def wait_for_lsn(self, lsn: int) -> None:
        """Wait until every table says that it is complete through `lsn`."""

        def reached() -> bool:
            tables = self.tables().values()
            return bool(tables) and all(table["lsn"] >= lsn for table in tables)

        self.wait_for(reached)


@pytest.fixture
def log(stack: Stack) -> Iterator[SourceLog]:
    """Raw topics of `orders` and `events`."""
    opened = SourceLog(stack, [ORDERS.id, EVENTS.id])
    yield opened
    opened.close()


@pytest.fixture
def config(stack: Stack, log: SourceLog, tmp_path: Path) -> SinkPartConfig:
    """A Delta sink of both tables."""
    return SinkPartConfig(
        pipeline="shop",
        sink="lake",
        type="delta",
        options={"path": "lake/{table}"},
        inputs=tuple(SinkInput(topic, table, None, table.name) for table, topic in log.topics.items()),
        control_topic=log.control_topic,
        bootstrap=stack.bootstrap,
        registry_url=stack.registry_url,
        data_dir=tmp_path / "data",
        base_dir=tmp_path,
        commit=CommitPolicy(every=0.05),
    )


@pytest.fixture
def start(config: SinkPartConfig) -> Iterator[Callable[..., RunningSink]]:
    """Start sinks; all are stopped at the end."""
    started: list[RunningSink] = []

    def begin(**changes: Any) -> RunningSink:
        started.append(RunningSink(replace(config, **changes)))
        return started[-1]

    yield begin
    for sink in started:
        sink.stop.set()


def sources() -> tuple[ModelSource, ModelSource]:
    return ModelSource(ORDERS, seed=3, partitions=1), ModelSource(EVENTS, seed=4, partitions=1)


def test_tables_follow_the_source_and_stand_at_its_lsn(
    log: SourceLog, start: Callable[..., RunningSink], tmp_path: Path
) -> None:
    orders, events = sources()
    log.publish(*with_lsn([*orders.transaction(50), *events.transaction(50)], 10), lsn=10)
    sink = start()
    for lsn in range(20, 320, 10):
        changes = orders.transaction(20) if lsn % 3 else [*orders.transaction(9), *events.transaction(9)]
        log.publish(*with_lsn(changes, lsn), lsn=lsn)
    sink.wait_for_lsn(310)
    sink.end()
    assert_mirrors(scan_delta(str(tmp_path / "lake/orders")), orders)
    assert_mirrors(scan_delta(str(tmp_path / "lake/events")), events)
    tables = sink.tables()
    assert tables["orders"]["rows"] == len(orders.rows)
    assert tables["orders"]["lag_rows"] == 0
    assert {table["lsn"] for table in tables.values()} == {310}


def test_a_restarted_sink_goes_on_where_its_tables_are(
    log: SourceLog, start: Callable[..., RunningSink], tmp_path: Path
) -> None:
    orders, events = sources()
    for lsn in range(10, 60, 10):
        log.publish(*with_lsn([*orders.transaction(30), *events.transaction(5)], lsn), lsn=lsn)
        sink = start()
        sink.wait_for_lsn(lsn)
        sink.end()
        assert_mirrors(scan_delta(str(tmp_path / "lake/orders")), orders)
        assert_mirrors(scan_delta(str(tmp_path / "lake/events")), events)


def test_rows_of_an_open_source_transaction_are_invisible(
    log: SourceLog, start: Callable[..., RunningSink], tmp_path: Path
) -> None:
    orders, events = sources()
    log.publish(*with_lsn([*orders.insert(5), *events.insert(1)], 10), lsn=10)
    sink = start()
    sink.wait_for_lsn(10)
    log.publish_open(*with_lsn(orders.insert(7), 20))
    assert scan_delta(str(tmp_path / "lake/orders")).num_rows == 5
    log.publish(*with_lsn(events.insert(2), 20), lsn=20)
    sink.wait_for_lsn(20)
    sink.end()
    assert_mirrors(scan_delta(str(tmp_path / "lake/orders")), orders)


def test_truncate_empties_the_table_at_its_place(
    log: SourceLog, start: Callable[..., RunningSink], tmp_path: Path
) -> None:
    orders, events = sources()
    log.publish(*with_lsn([*orders.transaction(90), *events.transaction(30)], 10), lsn=10)
    before = with_lsn(orders.transaction(40), 20)
    orders.rows.clear()
    after = with_lsn(orders.transaction(40), 30)
    barrier = Truncate((ORDERS.id,), 25, 0, 0)
    log.publish(*before, barrier, *after, lsn=30)
    sink = start()
    sink.wait_for_lsn(30)
    sink.end()
    assert_mirrors(scan_delta(str(tmp_path / "lake/orders")), orders)
    assert_mirrors(scan_delta(str(tmp_path / "lake/events")), events)


def test_a_topic_without_positions_commits_what_was_read(
    stack: Stack, start: Callable[..., RunningSink], tmp_path: Path
) -> None:
    topic = FreeTopic(stack, "enriched", ORDERS)
    source = ModelSource(ORDERS, seed=9, partitions=1, toast=False)
    inputs = (SinkInput("enriched", None, ("id",), "enriched"),)
    topic.publish(source.transaction(40))
    sink = start(inputs=inputs, control_topic=None)
    for _ in range(10):
        topic.publish(source.transaction(40))
    path = str(tmp_path / "lake/enriched")
    sink.wait_for(lambda: sink.tables().get("enriched", {}).get("rows") == len(source.rows))
    sink.end()
    topic.close()
    assert_mirrors(scan_delta(path), source)


def test_a_change_log_and_a_mirror_of_one_topic(
    log: SourceLog, start: Callable[..., RunningSink], tmp_path: Path
) -> None:
    orders, _events = sources()
    topic = log.topics[ORDERS.id]
    changes = start(sink="changes", inputs=(SinkInput(topic, ORDERS.id, None, "changes", "append"),))
    mirror = start(inputs=(SinkInput(topic, ORDERS.id, None, "orders"),))
    sent = 0
    for lsn in range(10, 110, 10):
        batches = with_lsn(orders.transaction(25), lsn)
        sent += sum(map(len, batches))
        log.publish(*batches, lsn=lsn)
    for sink in (changes, mirror):
        sink.wait_for_lsn(100)
        sink.end()
    assert scan_delta(str(tmp_path / "lake/changes")).num_rows == sent
    assert_mirrors(scan_delta(str(tmp_path / "lake/orders")), orders)


def with_lsn(batches: list[Any], lsn: int, start: int = 0) -> list[Any]:
    """The batches as part of a source transaction that ends at `lsn`; their places go on from `start`."""
    return [
        replace(
            batch,
            lsn=np.full(len(batch), lsn, np.int64),
            seq=batch.seq + start * 10_000,
            timestamp=np.full(len(batch), time.time_ns() // 1000, np.int64),
        )
        for batch in batches
    ]
