"""Older rows under newer columns."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from tailrace.changes import TailraceError
from tailrace.registry.avro_project import project_rows


def test_a_missing_column_is_null_and_a_dropped_one_is_gone() -> None:
    old = pa.RecordBatch.from_pydict({"id": pa.array([1, 2]), "gone": pa.array(["x", "y"])})
    fields: list[Any] = [pa.field("new", pa.string()), pa.field("id", pa.int64(), nullable=False)]
    schema = pa.schema(fields)
    assert project_rows(old, schema).to_pydict() == {"new": [None, None], "id": [1, 2]}


WIDENED: list[tuple[Any, Any, Any, Any]] = [
    (pa.int16(), pa.int64(), -5, -5),
    (pa.int32(), pa.float64(), 7, 7.0),
    (pa.float32(), pa.float64(), 0.5, 0.5),
    (pa.decimal128(5, 2), pa.decimal128(7, 3), Decimal("-999.99"), Decimal("-999.990")),
    (pa.timestamp("ms"), pa.timestamp("us"), 5, 5000),
    (pa.time32("ms"), pa.time64("us"), 5, 5000),
]


@pytest.mark.parametrize(("old", "new", "value", "widened"), WIDENED)
def test_a_narrower_type_is_widened_without_loss(old: Any, new: Any, value: Any, widened: Any) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([value, None], old)], names=["c"])
    column = project_rows(batch, pa.schema([pa.field("c", new)])).column(0)
    assert column.equals(pa.array([widened, None], new))


NARROWED: list[tuple[Any, Any]] = [
    (pa.int64(), pa.int32()),
    (pa.int64(), pa.float64()),
    (pa.string(), pa.int32()),
    (pa.int32(), pa.string()),
    (pa.decimal128(5, 2), pa.decimal128(6, 4)),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.timestamp("us"), pa.timestamp("ms")),
]


@pytest.mark.parametrize(("old", "new"), NARROWED)
def test_what_may_lose_something_is_refused_by_name(old: Any, new: Any) -> None:
    batch = pa.RecordBatch.from_arrays([pa.nulls(1, old)], names=["c"])
    with pytest.raises(TailraceError, match=r"column 'c' was .* and is now"):
        project_rows(batch, pa.schema([pa.field("c", new)]))


def test_a_timestamp_outside_the_finer_range_is_refused() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1 << 62], pa.timestamp("ms"))], names=["c"])
    with pytest.raises(TailraceError, match="outside the range"):
        project_rows(batch, pa.schema([pa.field("c", pa.timestamp("us"))]))
