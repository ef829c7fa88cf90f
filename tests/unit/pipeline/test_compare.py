"""The checker itself: it must object to a lost, a doubled, a stale and a wrong-column row, and to nothing else."""

import datetime
import decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.pipeline.verify.canonical import as_text, typed
from tailrace.pipeline.verify.compare import Difference, compare
from tailrace.pipeline.verify.replay import replayed

UTC = datetime.UTC


def table(rows: int = 50) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "region": pa.array([f"r{i % 3}" for i in range(rows)]),
            "amount": pa.array([decimal.Decimal(i) / 100 for i in range(rows)], pa.decimal128(12, 2)),
            "note": pa.array([None if i % 5 == 0 else f"note,\n{i}" for i in range(rows)]),
            "at": pa.array([datetime.datetime(2026, 1, 1, tzinfo=UTC)] * rows, pa.timestamp("us", "UTC")),
            "tags": pa.array(
                [None if i % 4 == 0 else [f"{i}", None] for i in range(rows)], pa.list_(pa.string())
            ),
            "ratio": pa.array([float("nan") if i % 7 == 0 else i / 3 for i in range(rows)]),
        }
    )


KEY = ("id", "region")


def check(found: pa.Table) -> Difference:
    return compare(as_text(table()), as_text(found), KEY)


def test_an_equal_table_passes_in_any_order() -> None:
    rows = table()
    assert check(rows.take(list(reversed(range(rows.num_rows))))).equal


def test_a_lost_row_is_objected_to() -> None:
    assert check(table().slice(1)).lost == {("0", "r0")}


def test_a_doubled_row_is_objected_to() -> None:
    rows = table()
    assert check(pa.concat_tables([rows, rows.slice(7, 1)])).doubled == {("7", "r1")}


def test_a_row_that_should_be_gone_is_objected_to() -> None:
    found = compare(as_text(table().slice(0, 49)), as_text(table()), KEY)
    assert found.unexpected == {("49", "r1")}
    assert not found.lost


@given(st.integers(0, 49), st.sampled_from(["amount", "note", "at", "tags", "ratio"]))
@settings(max_examples=40, deadline=None)
def test_any_stale_or_wrong_cell_is_objected_to_with_its_column(row: int, column: str) -> None:
    rows = table()
    cells = rows.column(column).to_pylist()
    kind = rows.schema.field(column).type
    other = {
        "amount": decimal.Decimal("-1.00"),
        "note": "",
        "at": datetime.datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        "tags": ["a", "b"],
        "ratio": -0.0,
    }
    cells[row] = other[column]
    position = rows.column_names.index(column)
    found = check(rows.set_column(position, column, pa.array(cells, kind)))
    assert found.wrong == {(str(row), f"r{row % 3}"): (column,)}


def test_a_missing_column_is_objected_to() -> None:
    found = check(table().drop_columns(["note"]))
    assert found.missing_columns == ("note",)
    assert not found.equal


def test_typed_undoes_the_canonical_text() -> None:
    rows = table().drop_columns(["tags"])
    again = typed(as_text(rows), rows.schema)
    assert as_text(again).equals(as_text(rows))


def test_a_replayed_change_log_is_the_newest_row_of_each_key() -> None:
    log = pa.table(
        {
            "id": [1, 2, 1, 3, 2],
            "v": ["a", "b", "c", "d", None],
            "_op": ["c", "c", "u", "c", "d"],
            "_lsn": [1, 1, 2, 2, 3],
            "_seq": [0, 1, 0, 1, 0],
            "_unchanged": pa.array([None] * 5, pa.list_(pa.string())),
        }
    )
    rows = replayed(log, ("id",)).sort_by("id").to_pylist()
    assert rows == [{"id": 1, "v": "c"}, {"id": 3, "v": "d"}]


def test_a_replayed_change_log_keeps_unchanged_cells_and_obeys_truncates() -> None:
    log = pa.table(
        {
            "id": [9, None, 1, 1, 1],
            "v": ["old", None, "a", None, None],
            "n": [1, None, 2, 3, None],
            "_op": ["c", "t", "c", "u", "u"],
            "_lsn": [1, 2, 3, 4, 5],
            "_seq": [0, 0, 0, 0, 0],
            "_unchanged": pa.array([None, None, None, ["v"], ["v"]], pa.list_(pa.string())),
        }
    )
    assert replayed(log, ("id",)).to_pylist() == [{"id": 1, "v": "a", "n": None}]


def test_a_change_log_may_have_columns_named_like_anything_in_the_query() -> None:
    names = ["log", "at", "emptied"]
    row = {"_op": "c", "_lsn": 1, "_seq": 0, "_xid": 1, "_commit_ts": 0, "_unchanged": None}
    log = pa.Table.from_pylist([dict.fromkeys(names, 7) | row])
    log = log.set_column(8, "_unchanged", pa.nulls(1, pa.list_(pa.string())))
    assert replayed(log, ("at",)).to_pylist() == [{"at": 7, "log": 7, "emptied": 7}]


@pytest.mark.parametrize("rows", [0, 1])
def test_small_tables_compare(rows: int) -> None:
    text = as_text(table(rows))
    assert compare(text, text, KEY).equal
