"""What a transform could not see is read again, or stops the source; it never computes with a missing value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tailrace.broker.records.batch import finish_batch
from tailrace.broker.records.columnar import RecordColumns
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.changes import (
    OP_UPDATE,
    ChangeBatch,
    ChangeSet,
    SourceDataError,
    TableId,
    TableSchema,
    TailraceError,
    Truncate,
)
from tailrace.connectors.prepare import ChangePreparer, EncodedBatch, PreparedSet
from tailrace.connectors.source import Reselected

DOCS = TableId("public", "docs")
FIELDS: "list[pa.Field[Any]]" = [pa.field("id", pa.int64(), nullable=False), pa.field("body", pa.string())]
SCHEMA = TableSchema(DOCS, pa.schema(FIELDS), ("id",))


class Schemas:
    """A registry of one process."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def register(self, subject: str, schema: str) -> int:
        self.known.append(schema)
        return len(self.known)

    def schema(self, schema_id: int) -> str:
        return self.known[schema_id - 1]

    def latest(self, subject: str) -> tuple[int, str] | None:
        return None


class Source:
    """Row 1 holds `body` now, no other row exists."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Any], list[str]]] = []

    def reselect(self, table: TableSchema, keys: pa.RecordBatch, columns: Sequence[str]) -> Reselected:
        ids = keys.column("id").to_pylist()
        self.asked.append((ids, list(columns)))
        bodies = pa.array(["now" if number == 1 else None for number in ids], pa.string())
        return Reselected(pa.record_batch([bodies], names=["body"]), np.array([n == 1 for n in ids]))


def preparer(sql: str, source: Source | None = None, table: TableSchema = SCHEMA) -> ChangePreparer:
    transformed = {DOCS: sql} if sql else {}
    reselect = (source or Source()).reselect
    return ChangePreparer(Schemas(), {DOCS: "raw.docs"}, {"raw.docs": 1}, transformed, reselect)


def records(prepared: PreparedSet) -> RecordColumns:
    batches = [memoryview(step.data) for step in prepared.steps if isinstance(step, EncodedBatch)]
    for batch in batches:
        finish_batch(batch, 1, 0, 0, transactional=True)
    return parse_batches(batches, where="raw.docs")


def updates_without_body(ids: Sequence[int], schema: TableSchema = SCHEMA) -> ChangeSet:
    n = len(ids)
    rows = pa.record_batch([pa.array(ids, pa.int64()), pa.nulls(n, pa.string())], schema=schema.arrow)
    ones = np.ones(n, np.int64)
    unchanged = np.zeros(n, np.int16)
    batch = ChangeBatch(
        schema,
        rows,
        np.full(n, OP_UPDATE, np.uint8),
        77 * ones,
        np.arange(n),
        ones,
        ones,
        unchanged,
        (("body",),),
    )
    return ChangeSet((batch,), 77, 1)


@pytest.mark.parametrize("sql", ["SELECT id, Body FROM docs", "SELECT * FROM docs"])
def test_an_unchanged_toasted_value_that_a_transform_reads_is_selected_again_by_key(sql: str) -> None:
    source = Source()
    found = records(preparer(sql, source).prepare(updates_without_body([1, 2, 1])))
    assert source.asked == [([1, 2, 1], ["body"])]
    assert [b"now" in (found.value(i) or b"") for i in range(3)] == [True, False, True]
    ends = [*found.header_start[1:], len(found.buffer)]
    headers = [found.buffer[a:b].tobytes() for a, b in zip(found.header_start, ends, strict=True)]
    assert [b"gone" in text for text in headers] == [False, True, False]
    assert all(b"unchanged" in text for text in headers)


@pytest.mark.parametrize("sql", ["", "SELECT id FROM docs"])
def test_an_unchanged_value_that_no_transform_reads_is_left_alone(sql: str) -> None:
    source = Source()
    assert preparer(sql, source).prepare(updates_without_body([1])).changes == {DOCS: 1}
    assert source.asked == []


def test_an_unchanged_value_without_a_key_to_select_it_by_stops_the_source() -> None:
    keyless = TableSchema(DOCS, SCHEMA.arrow, ())
    with pytest.raises(SourceDataError, match=r"public\.docs at LSN 0/4D .* body.*REPLICA IDENTITY FULL"):
        preparer("SELECT * FROM docs").prepare(updates_without_body([1], keyless))


def test_a_truncate_of_a_table_that_a_transform_reads_stops_the_source() -> None:
    truncate = ChangeSet((Truncate((DOCS,), 99, 0, 1),), 99, 1)
    with pytest.raises(TailraceError, match=r"public\.docs was truncated at LSN 0/63"):
        preparer("SELECT id FROM docs").prepare(truncate)
    assert preparer("").prepare(truncate).steps
