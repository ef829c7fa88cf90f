"""What a transform could not see stops the source, instead of making the transform silently wrong."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

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
from tailrace.connectors.prepare import ChangePreparer

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


def preparer(sql: str) -> ChangePreparer:
    transformed = {DOCS: sql} if sql else {}
    return ChangePreparer(Schemas(), {DOCS: "raw.docs"}, {"raw.docs": 1}, transformed)


def update_without_body() -> ChangeSet:
    rows = pa.record_batch([pa.array([1], pa.int64()), pa.array([None], pa.string())], schema=SCHEMA.arrow)
    one = np.ones(1, np.int64)
    batch = ChangeBatch(
        SCHEMA,
        rows,
        np.array([OP_UPDATE], np.uint8),
        77 * one,
        0 * one,
        one,
        one,
        np.zeros(1, np.int16),
        (("body",),),
    )
    return ChangeSet((batch,), 77, 1)


@pytest.mark.parametrize("sql", ["SELECT id, Body FROM docs", "SELECT * FROM docs"])
def test_an_unchanged_toasted_value_that_a_transform_reads_stops_the_source(sql: str) -> None:
    with pytest.raises(SourceDataError, match=r"public\.docs at LSN 0/4D .* body.*REPLICA IDENTITY FULL"):
        preparer(sql).prepare(update_without_body())


@pytest.mark.parametrize("sql", ["", "SELECT id FROM docs"])
def test_an_unchanged_value_that_no_transform_reads_passes(sql: str) -> None:
    assert preparer(sql).prepare(update_without_body()).changes == {DOCS: 1}


def test_a_truncate_of_a_table_that_a_transform_reads_stops_the_source() -> None:
    truncate = ChangeSet((Truncate((DOCS,), 99, 0, 1),), 99, 1)
    with pytest.raises(TailraceError, match=r"public\.docs was truncated at LSN 0/63"):
        preparer("SELECT id FROM docs").prepare(truncate)
    assert preparer("").prepare(truncate).steps
