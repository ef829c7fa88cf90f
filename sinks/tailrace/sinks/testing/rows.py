"""Rows of tables as Python values, compared with the source's."""

from collections.abc import Callable, Sequence
from datetime import time
from typing import Any

import pyarrow as pa

from tailrace.sinks.checkpoint import TopicPartition
from tailrace.sinks.testing.model import Key, ModelSource, Row

Scan = Callable[[str], pa.Table]
"""Reads the whole table at a location, as users do."""

OFFSETS: dict[TopicPartition, int] = {("raw.shop.orders", 0): 10, ("raw.shop.orders", 1): 7}


def rows_by_key(table: pa.Table, key: Sequence[str]) -> dict[Key, Row]:
    """Rows of a table by key; fails on a key that stands twice."""
    rows = {tuple(row[name] for name in key): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows, "a key stands twice in the table"
    return rows


def assert_mirrors(table: pa.Table, source: ModelSource) -> None:
    """The table holds exactly the rows of the source: every key, every column."""
    rows = rows_by_key(table, source.table.key)
    assert rows.keys() == source.rows.keys()
    for key, expected in source.rows.items():
        found = {name: rows[key].get(name) for name in expected}
        assert found == expected, f"row {key}"


def comparable(value: Any) -> Any:
    """A value as every format gives it back: a time of day may come as microseconds since midnight."""
    if isinstance(value, time):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return value


def values(table: pa.Table, column: str) -> list[Any]:
    """One column, sorted."""
    found: list[Any] = table.column(column).to_pylist()
    return sorted(found)
