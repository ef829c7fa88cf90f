"""Per-file statistics of an `add` action (Delta protocol, "Per-file Statistics"), from the Parquet footer.

Bounds are given for integers, dates, timestamps and short strings, all exact; a reader that prunes by them
never loses a row.  Decimals have none, because JSON numbers do not carry them; floats none, because NaN.
"""

import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow.parquet as pq

_MAX_STRING = 32


def statistics(metadata: pq.FileMetaData) -> str:
    """The `stats` JSON of a data file without deleted rows."""
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    for index in range(metadata.num_columns):
        column = metadata.schema.column(index)
        chunks: list[Any] = [group.column(index).statistics for group in groups]
        if column.max_repetition_level or "." in column.path or any(c is None for c in chunks) or not chunks:
            continue
        if all(chunk.has_null_count for chunk in chunks):
            nulls[column.path] = sum(chunk.null_count for chunk in chunks)
        if not all(chunk.has_min_max for chunk in chunks):
            continue
        try:
            low, high = _bound(min(c.min for c in chunks)), _bound(max(c.max for c in chunks))
        except (ValueError, OverflowError):
            # Postgres knows dates that Python does not
            continue
        if low is not None and high is not None:
            lows[column.path], highs[column.path] = low, high
    return json.dumps(
        {
            "numRecords": metadata.num_rows,
            "minValues": lows,
            "maxValues": highs,
            "nullCount": nulls,
            "tightBounds": True,
        },
        separators=(",", ":"),
    )


def loosened(stats: str) -> str:
    """The same statistics once rows are deleted: bounds still hold, but may not be met."""
    return json.dumps({**json.loads(stats), "tightBounds": False}, separators=(",", ":"))


def _bound(value: Any) -> int | str | None:
    """A bound in Delta's JSON form, None for one that has no exact form."""
    match value:
        case bool():
            return None
        case int():
            return value
        case str() if len(value) <= _MAX_STRING:
            return value
        case datetime(tzinfo=None):
            return value.isoformat(timespec="microseconds")
        case datetime():
            return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        case date():
            return value.isoformat()
        case _:
            return None
