"""Merging changes: the net effect equals applying them one by one."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.changes import ChangeBatch, TableSchema, TailraceError
from tailrace.sinks.evolve import stored_schema
from tailrace.sinks.keys import KeyCodec
from tailrace.sinks.merge import gather, merge
from tailrace.sinks.testing.model import EVENTS, ORDERS, Key, ModelSource, Row, with_unchanged

SECRET = (0x0123456789ABCDEF, 0xFEDCBA9876543210)


def codec_of(table: TableSchema) -> tuple[KeyCodec, pa.Schema]:
    schema = stored_schema(table, lambda arrow: arrow, keyed=True)
    return KeyCodec(table.key, schema, SECRET), schema


def apply(base: dict[Key, Row], batches: list[ChangeBatch], table: TableSchema) -> dict[Key, Row]:
    """What a writer does with the merged changes, on a dict."""
    codec, schema = codec_of(table)
    merged = merge(gather(batches, schema), codec)
    upserts: list[Row] = merged.upserts.to_pylist()
    codes = {}
    if base:
        old = pa.Table.from_pylist(list(base.values()), schema)
        encoded = codec.encode(old)
        checks = encoded.check if encoded.check is not None else np.zeros(len(encoded), np.uint64)
        codes = dict(
            zip(zip(encoded.code.tolist(), checks.tolist(), strict=True), base.values(), strict=True)
        )
    wanted = merged.wanted
    check = wanted.check if wanted.check is not None else np.zeros(len(wanted), np.uint64)
    for lookup in merged.lookups:
        for row, key in zip(lookup.row.tolist(), lookup.key.tolist(), strict=True):
            upserts[row][lookup.column] = codes[int(wanted.code[key]), int(check[key])][lookup.column]
    result = dict(base)
    for row in merged.deletes.to_pylist():
        result.pop(tuple(row[name] for name in table.key), None)
    for row in upserts:
        result[tuple(row[name] for name in table.key)] = row
    assert len(upserts) == len({tuple(row[name] for name in table.key) for row in upserts})
    return result


@pytest.mark.parametrize("table", [ORDERS, EVENTS], ids=["integer-key", "composite-key"])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    partitions=st.integers(1, 4),
    keys=st.integers(2, 40),
)
def test_merged_changes_equal_changes_applied_one_by_one(
    table: TableSchema, seed: int, sizes: list[int], partitions: int, keys: int
) -> None:
    source = ModelSource(table, seed=seed, partitions=partitions, keys=keys)
    base = apply({}, source.insert(keys // 2), table) if keys > 2 else {}
    assert base == source.rows
    batches = [batch for size in sizes for batch in source.transaction(size)]
    random.Random(seed).shuffle(batches)
    if batches:
        assert apply(base, batches, table) == source.rows


def test_a_key_that_moves_twice_keeps_its_unchanged_cell() -> None:
    schema = stored_schema(ORDERS, lambda arrow: arrow, keyed=True)
    rows = [order(1, "kept"), order(1), order(2), order(2), order(3)]
    batch = changes(rows, "cdcdc", unchanged=[2, 4], prior={2: 1, 4: 2})
    merged = merge(gather([batch], schema), codec_of(ORDERS)[0])
    assert [(row["id"], row["doc"]) for row in merged.upserts.to_pylist()] == [(3, "kept")]
    assert {row["id"] for row in merged.deletes.to_pylist()} == {1, 2}
    assert not merged.lookups


def test_a_moved_key_asks_the_table_for_the_prior_key() -> None:
    schema = stored_schema(ORDERS, lambda arrow: arrow, keyed=True)
    batch = changes([order(7), order(8)], "dc", unchanged=[1], prior={1: 7})
    merged = merge(gather([batch], schema), codec_of(ORDERS)[0])
    assert merged.wanted.code.tolist() == [7]
    assert [lookup.column for lookup in merged.lookups] == ["doc"]


def test_an_update_of_a_deleted_row_that_keeps_cells_is_refused() -> None:
    schema = stored_schema(ORDERS, lambda arrow: arrow, keyed=True)
    batch = changes([order(1), order(1)], "du", unchanged=[1], prior={})
    with pytest.raises(TailraceError, match="doc"):
        merge(gather([batch], schema), codec_of(ORDERS)[0])


def test_rows_without_metadata_keep_the_order_of_their_partition() -> None:
    schema = stored_schema(ORDERS, lambda arrow: arrow, keyed=True)
    batch = changes([order(1, "first"), order(1, "second")], "cc", unchanged=[], prior={}, lsn=0)
    merged = merge(gather([batch], schema), codec_of(ORDERS)[0])
    assert merged.upserts["doc"].to_pylist() == ["second"]


def test_unchanged_columns_that_the_table_does_not_have_are_ignored() -> None:
    source = ModelSource(seed=1, partitions=1)
    (batch,) = source.insert(3)
    schema = stored_schema(source.table, lambda arrow: arrow, keyed=True)
    assert not gather([with_unchanged(batch, ("gone",))], schema).missing


def order(key: int, doc: str | None = None) -> Row:
    return {"id": key, "doc": doc}


def changes(
    rows: list[Row], ops: str, *, unchanged: list[int], prior: dict[int, int], lsn: int = 9
) -> ChangeBatch:
    """Changes of `orders` in which some rows leave `doc` unchanged and some had another key."""
    n = len(rows)
    fields: list[Any] = [pa.field("id", pa.int64())]
    return ChangeBatch(
        table=ORDERS,
        rows=pa.RecordBatch.from_pylist(rows, ORDERS.arrow),
        op=np.frombuffer(ops.encode(), np.uint8),
        lsn=np.full(n, lsn, np.int64),
        seq=np.arange(n, dtype=np.int64),
        xid=np.zeros(n, np.int64),
        timestamp=np.zeros(n, np.int64),
        unchanged=np.array([0 if i in unchanged else -1 for i in range(n)], np.int16),
        unchanged_sets=(("doc",),),
        prior_key=pa.RecordBatch.from_pylist([{"id": prior.get(i)} for i in range(n)], pa.schema(fields)),
    )
