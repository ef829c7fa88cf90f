"""A pipeline with a name of its own, from a database of the test's own into a broker that tests share."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from tests.fixtures.registry import Stack
from tests.integration.connectors import mirror

from tailrace.broker.client import Client
from tailrace.changes import TableId, parse_lsn
from tailrace.connectors import service
from tailrace.connectors.service import SourcePartConfig
from tailrace.registry.client import RegistryClient

DEADLINE_S = 30.0
_NUMBERS = itertools.count(1)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll `condition` until it holds; AssertionError naming `what` after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S:.0f} s"
        time.sleep(0.02)


class Shop:
    """The source part of the pipeline, as a thread that can be started and stopped, and the log that it fills."""

    def __init__(
        self, dsn: str, stack: Stack, data_dir: Path, tables: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.name = f"shop{next(_NUMBERS)}"
        self.control = f"_tailrace.{self.name}.control"
        self.dsn = dsn
        self.tables = {TableId.parse(name): dict(options) for name, options in tables.items()}
        self.stack = stack
        self.data_dir = data_dir
        self.options: dict[str, Any] = {"dsn": dsn, "tables": dict(tables)}
        self.partitions = 2
        self.transformed: dict[TableId, str] = {}
        self.client = Client(stack.bootstrap, client_id="test")
        self.registry = RegistryClient(stack.registry_url)
        self.failure: BaseException | None = None

    @property
    def config(self) -> SourcePartConfig:
        """What the source part is told."""
        return SourcePartConfig(
            pipeline=self.name,
            source_type="postgres",
            options=self.options,
            topics={table: self.topic(table) for table in self.tables},
            control_topic=self.control,
            bootstrap=self.stack.bootstrap,
            registry_url=self.stack.registry_url,
            data_dir=self.data_dir,
            tables_needing_keys=frozenset(self.tables),
            transformed_tables=self.transformed,
            partitions=self.partitions,
        )

    def topic(self, table: TableId) -> str:
        """The raw topic of a table."""
        return f"raw.{self.name}.{table.name}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """The source runs inside the block and is stopped cleanly after it; what ended it early is raised."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(DEADLINE_S)
        assert not thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def _run(self, stop: threading.Event) -> None:
        try:
            service.run(self.config, stop)
        except BaseException as error:  # noqa: BLE001 - raised by `running`
            self.failure = error

    def close(self) -> None:
        """End the test's own connections."""
        self.client.close()
        self.registry.close()

    def catch_up(self) -> None:
        """Wait until the log is complete through what the source holds now."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        assert row is not None
        target = parse_lsn(row[0])
        wait_until(
            lambda: self.failure is not None or mirror.durable_position(self.client, self.control) >= target,
            "catching up",
        )
        if self.failure is not None:
            raise self.failure

    def changes(self, table: str) -> list[mirror.Change]:
        """The committed changes of a table."""
        table_id = TableId.parse(table)
        return mirror.read_changes(self.client, self.registry, self.topic(table_id), table_id)

    def rows(self, table: str) -> mirror.Rows:
        """What the topic of a table adds up to."""
        marks = mirror.read_truncates(self.client, self.control)
        return mirror.apply(self.changes(table), [mark for mark in marks if str(mark.table) == table])

    def assert_equal(self, table: str, key: str = "id") -> None:
        """The topic of the table adds up to the table in the database."""
        assert self.rows(table) == mirror.read_table(self.dsn, table, key)
