"""Rows of Avro binary against fastavro, both ways, and against bytes that are not Avro."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.registry.avro_rows import batch_of, batches, schemas, values

from tailrace.broker.records.columnar import BytesColumn
from tailrace.changes import TailraceError
from tailrace.registry.avro_decode import decode_rows
from tailrace.registry.avro_encode import encode_rows
from tailrace.registry.avro_plan import RowPlan, plan_rows
from tailrace.registry.avro_schema import arrow_to_avro


def _without_logical_types(avro: Any) -> Any:
    """The schema as bytes mean it, so that fastavro gives numbers where Python's types have no room."""
    if isinstance(avro, dict):
        return {key: _without_logical_types(value) for key, value in avro.items() if key != "logicalType"}
    return [_without_logical_types(part) for part in avro] if isinstance(avro, list) else avro


def _record(avro: dict[str, Any], row: dict[str, Any], arrow_fields: list[pa.Field[Any]]) -> dict[str, Any]:
    """A plain row as fastavro takes and gives it."""
    return {
        member["name"]: _value(member["type"], field.type, row[field.name])
        for member, field in zip(avro["fields"], arrow_fields, strict=True)
    }


def _value(avro: Any, arrow: Any, value: Any) -> Any:
    if value is None:
        return None
    avro = avro[1] if isinstance(avro, list) else avro
    if isinstance(arrow, pa.StructType):
        return _record(avro, value, [arrow.field(i) for i in range(arrow.num_fields)])
    if isinstance(arrow, pa.ListType):
        return [_value(avro["items"], arrow.value_type, item) for item in value]
    if isinstance(arrow, pa.MapType):
        return {key: _value(avro["values"], arrow.item_type, item) for key, item in value.items()}
    if isinstance(arrow, pa.Decimal128Type):
        size = next(n for n in range(1, 17) if -(1 << (8 * n - 1)) <= value < 1 << (8 * n - 1))
        return value.to_bytes(size, "big", signed=True)
    return value


def _decode(rows: list[bytes], plan: RowPlan) -> pa.RecordBatch:
    column = BytesColumn.from_strings([*rows])
    return decode_rows(column.data, column.offsets[:-1], np.diff(column.offsets), plan)


@settings(max_examples=120, deadline=None)
@given(batches(), st.integers(0, 3))
def test_fastavro_reads_the_rows_that_we_write(
    sample: tuple[pa.RecordBatch, list[dict[str, Any]]], skip: int
) -> None:
    batch, rows = sample
    avro = arrow_to_avro(batch.schema, name="Value", namespace="raw.shop")
    parsed = fastavro.parse_schema(_without_logical_types(avro))
    encoded = encode_rows(batch.slice(skip), plan_rows(avro), prefix=b"\0id").to_strings()
    assert len(encoded) == len(rows[skip:])
    for got, row in zip(encoded, rows[skip:], strict=True):
        assert got is not None and got[:3] == b"\0id"
        stream = io.BytesIO(got[3:])
        assert fastavro.schemaless_reader(stream, parsed, None) == _record(avro, row, list(batch.schema))
        assert stream.read() == b""


@settings(max_examples=120, deadline=None)
@given(batches())
def test_we_read_the_rows_that_fastavro_writes(sample: tuple[pa.RecordBatch, list[dict[str, Any]]]) -> None:
    batch, rows = sample
    avro = arrow_to_avro(batch.schema, name="Value", namespace="raw.shop")
    parsed = fastavro.parse_schema(_without_logical_types(avro))
    encoded = []
    for row in rows:
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, parsed, _record(avro, row, list(batch.schema)))
        encoded.append(stream.getvalue())
    decoded = _decode(encoded, plan_rows(avro))
    decoded.validate(full=True)
    assert decoded.equals(batch)


@settings(max_examples=100, deadline=None)
@given(batches(), st.data())
def test_bytes_that_are_not_avro_never_read_outside_the_row(
    sample: tuple[pa.RecordBatch, list[dict[str, Any]]], data: st.DataObject
) -> None:
    batch, _ = sample
    plan = plan_rows(arrow_to_avro(batch.schema, name="Value", namespace="raw.shop"))
    good = [row or b"" for row in encode_rows(batch, plan).to_strings()]
    rows = [*good, data.draw(st.binary(max_size=60))]
    victim = data.draw(st.integers(0, len(rows) - 1))
    rows[victim] = rows[victim][: data.draw(st.integers(0, len(rows[victim])))] + data.draw(
        st.binary(max_size=3)
    )
    try:
        _decode(rows, plan).validate(full=True)
    except TailraceError as error:
        assert "the bytes are not Avro of the row's schema" in error.what


_ROW = {"type": "record", "name": "R", "fields": [{"name": "c", "type": "int"}]}


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("int", b""),
        ("int", b"\x80"),
        ("int", b"\x80\x80\x80\x80\x80\x01"),
        ("long", b"\xff" * 9 + b"\x02"),
        ("long", b"\x80" * 11),
        ({"type": "int", "connect.type": "int16"}, b"\x80\x80\x04"),
        ("boolean", b"\x02"),
        ("double", bytes(7)),
        ("string", b"\x04a"),
        ("string", b"\x01"),
        ("string", b"\x02\xff"),
        ("string", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (["null", "int"], b"\x04\x02"),
        (["null", "int"], b"\x01\x02"),
        ({"type": "array", "items": "int"}, b"\x02\x02"),
        ({"type": "array", "items": "int"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ({"type": "array", "items": "int"}, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"),
        ({"type": "array", "items": "string"}, b"\x02\x0aab"),
        ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, b"\x04"),
        ({"type": "fixed", "name": "f", "size": 4}, b"abc"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 0}, b"\x02\x64"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0}, b"\x22\x01" + bytes(16)),
        ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0}, b"\x20\x80" + bytes(15)),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0},
            b"\x22\x00\x80" + bytes(15),
        ),
        ("int", b"\x02\x02"),
    ],
)
def test_a_damaged_row_is_an_error_that_names_its_offset(kind: Any, row: bytes) -> None:
    plan = plan_rows({"type": "record", "name": "R", "fields": [{"name": "c", "type": kind}]})
    data = np.frombuffer(row + b"\x02" * 32, np.uint8)
    with pytest.raises(
        TailraceError, match=r"^topic t, offset 70: the bytes are not Avro.*(column 'c|last field)"
    ):
        decode_rows(
            data, np.array([0]), np.array([len(row)]), plan, where=lambda i: f"topic t, offset {70 + i}"
        )


def test_an_error_inside_a_list_names_the_row() -> None:
    plan = plan_rows(
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": "c", "type": {"type": "array", "items": "string"}}],
        }
    )
    rows = [b"\x04\x02a\x02b\x00", b"\x00", b"\x02\x02\xff\x00"]
    with pytest.raises(TailraceError, match=r"row 2: .*column 'c.element', which is not UTF-8"):
        _decode(rows, plan)


def test_blocks_with_a_size_and_several_blocks_are_one_list() -> None:
    array = {"type": "array", "items": "int"}
    plan = plan_rows({"type": "record", "name": "R", "fields": [{"name": "c", "type": array}]})
    assert _decode([b"\x03\x04\x02\x04\x02\x06\x00"], plan).to_pydict() == {"c": [[1, 2, 3]]}


def test_both_orders_of_an_optional_union_are_read() -> None:
    fields = [{"name": "a", "type": ["null", "int"]}, {"name": "b", "type": ["int", "null"]}]
    plan = plan_rows({"type": "record", "name": "R", "fields": fields})
    rows = [b"\x00\x02", b"\x02\x02\x00\x04"]
    assert _decode(rows, plan).to_pydict() == {"a": [None, 1], "b": [None, 2]}


def test_enums_and_fixed_decimals_go_both_ways() -> None:
    fixed = {"type": "fixed", "name": "m", "size": 20, "logicalType": "decimal", "precision": 38, "scale": 2}
    enum = {"type": "enum", "name": "side", "symbols": ["BUY", "SELL"]}
    plan = plan_rows(
        {
            "type": "record",
            "name": "R",
            "fields": [{"name": "m", "type": fixed}, {"name": "s", "type": ["null", enum]}],
        }
    )
    amounts = [Decimal("-0.01"), Decimal(10**36 - 1), Decimal("0")]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(amounts, pa.decimal128(38, 2)), pa.array(["SELL", None, "BUY"])], schema=plan.schema
    )
    rows = encode_rows(batch, plan).to_strings()
    assert rows[0] == b"\xff" * 20 + b"\x02\x02"
    assert _decode([row or b"" for row in rows], plan).equals(batch)


def test_a_symbol_outside_the_enum_is_refused() -> None:
    enum = {"type": "enum", "name": "side", "symbols": ["BUY"]}
    plan = plan_rows({"type": "record", "name": "R", "fields": [{"name": "s", "type": enum}]})
    batch = pa.RecordBatch.from_arrays([pa.array(["SELL"])], schema=plan.schema)
    with pytest.raises(TailraceError, match="column 's' holds a value that its Avro enum does not list"):
        encode_rows(batch, plan)


def test_a_null_where_the_schema_has_none_is_refused() -> None:
    schema = pa.schema([pa.field("a", pa.struct([pa.field("b", pa.int32(), nullable=False)]))])
    plan = plan_rows(arrow_to_avro(schema, name="Value", namespace="raw"))
    batch = pa.RecordBatch.from_pylist([{"a": None}, {"a": {"b": None}}], schema=schema)
    with pytest.raises(TailraceError, match=r"column 'a\.b' holds a null, but its Avro schema has none"):
        encode_rows(batch, plan)


def test_a_batch_of_another_schema_is_refused() -> None:
    plan = plan_rows(_ROW)
    with pytest.raises(TailraceError, match=r"has the schema \[c int64\], .* needs \[c int32 not null\]"):
        encode_rows(pa.RecordBatch.from_pydict({"c": [1]}), plan)


@settings(max_examples=60, deadline=None)
@given(schemas(), st.data())
def test_rows_that_are_not_present_are_null_both_ways(schema: pa.Schema, data: st.DataObject) -> None:
    row = st.fixed_dictionaries({field.name: values(field.type, field.nullable) for field in schema})
    rows = data.draw(st.lists(row, min_size=1, max_size=5))
    present = np.array(
        data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows))), np.uint8
    )
    plan = plan_rows(json.dumps(arrow_to_avro(schema, name="Value", namespace="raw")))
    batch = batch_of(schema, rows)
    encoded = encode_rows(batch, plan, prefix=b"12345", present=present)
    assert [string is not None for string in encoded.to_strings()] == present.tolist()
    framed = 5 * present.astype(np.int64)
    starts = encoded.offsets[:-1] + framed
    decoded = decode_rows(encoded.data, starts, np.diff(encoded.offsets) - framed, plan, present=present)
    kept = pa.array(present == 1)
    assert decoded.filter(kept).equals(batch.filter(kept))
    absent = decoded.filter(pa.array(present == 0))
    assert all(column.null_count == absent.num_rows for column in absent.columns)


def test_a_time_outside_the_day_is_refused_both_ways() -> None:
    schema = pa.schema([pa.field("t", pa.time64("us"))])
    plan = plan_rows(arrow_to_avro(schema, name="Value", namespace="raw"))
    day_end = pa.array([None, 86_400_000_000], pa.int64()).view(pa.time64("us"))
    with pytest.raises(TailraceError, match="column 't' holds a time of 24:00 or later"):
        encode_rows(pa.RecordBatch.from_arrays([day_end], schema=schema), plan)
    stream = io.BytesIO()
    fastavro.schemaless_writer(
        stream,
        {"type": "record", "name": "R", "fields": [{"name": "t", "type": ["null", "long"]}]},
        {"t": 86_400_000_000},
    )
    with pytest.raises(TailraceError, match="column 't'"):
        _decode([stream.getvalue()], plan)
