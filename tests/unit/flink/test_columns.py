"""Avro schemas of topics <-> columns of Flink tables."""

import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.changes.errors import ConfigError
from tailrace.flink.columns import Column, from_avro, literal, quoted, record_name, to_avro

INTERVAL = {
    "type": "record",
    "name": "interval",
    "fields": [
        {"name": "months", "type": "int"},
        {"name": "days", "type": "int"},
        {"name": "micros", "type": "long"},
    ],
}


def schema(**fields: Any) -> str:
    return json.dumps(
        {
            "type": "record",
            "name": "t",
            "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
        }
    )


@pytest.mark.parametrize(
    ("avro", "flink"),
    [
        ("boolean", "BOOLEAN"),
        ({"type": "int", "connect.type": "int16"}, "SMALLINT"),
        ("int", "INT"),
        ("long", "BIGINT"),
        ("float", "FLOAT"),
        ("double", "DOUBLE"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}, "DECIMAL(12, 2)"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 38}, "DECIMAL(38, 0)"),
        ("string", "STRING"),
        ({"type": "string", "logicalType": "uuid"}, "STRING"),
        ({"type": "enum", "name": "e", "symbols": ["a"]}, "STRING"),
        ("bytes", "BYTES"),
        ({"type": "int", "logicalType": "date"}, "DATE"),
        ({"type": "long", "logicalType": "time-micros"}, "BIGINT"),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, "TIMESTAMP(6)"),
        ({"type": "long", "logicalType": "timestamp-micros"}, "TIMESTAMP_LTZ(6)"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "TIMESTAMP_LTZ(3)"),
        (INTERVAL, "ROW<`months` INT NOT NULL, `days` INT NOT NULL, `micros` BIGINT NOT NULL>"),
        ({"type": "array", "items": ["null", "string"]}, "ARRAY<STRING>"),
        ({"type": "array", "items": "int"}, "ARRAY<INT NOT NULL>"),
        ({"type": "map", "values": "long"}, "MAP<STRING, BIGINT NOT NULL>"),
    ],
)
def test_every_avro_type_of_a_topic_has_a_column_type(avro: Any, flink: str) -> None:
    assert from_avro(
        schema(a=avro, b=["null", avro] if not isinstance(avro, dict) or "name" not in avro else "int"), "t"
    )[0] == Column("a", flink, nullable=False)


def test_a_column_is_not_null_exactly_where_avro_has_no_union_with_null() -> None:
    columns = from_avro(schema(a="int", b=["null", "int"], c=["int", "null"], d=["int"]), "t")
    assert [column.nullable for column in columns] == [False, True, True, False]


def test_a_named_type_is_found_where_it_is_used_again() -> None:
    columns = from_avro(schema(a=INTERVAL, b=["null", "interval"]), "t")
    assert columns[1].type == columns[0].type and columns[1].nullable


@pytest.mark.parametrize("avro", [["int", "string"], {"type": "long-lost"}])
def test_what_flink_cannot_hold_is_refused_with_the_column(avro: Any) -> None:
    with pytest.raises(ConfigError, match=r"orders\.strange"):
        from_avro(schema(strange=avro), "orders")


@pytest.mark.parametrize(
    ("flink", "avro"),
    [
        ("SMALLINT", {"type": "int", "connect.type": "int16"}),
        ("VARCHAR(2147483647)", "string"),
        ("CHAR(3)", "string"),
        ("VARBINARY(2147483647)", "bytes"),
        ("DECIMAL(12, 2)", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}),
        ("TIMESTAMP(3)", {"type": "long", "logicalType": "local-timestamp-micros"}),
        ("TIMESTAMP(6) WITH LOCAL TIME ZONE", {"type": "long", "logicalType": "timestamp-micros"}),
        ("ARRAY<INT>", {"type": "array", "items": ["null", "int"]}),
        (
            "ARRAY<ARRAY<BIGINT NOT NULL> NOT NULL>",
            {"type": "array", "items": {"type": "array", "items": "long"}},
        ),
    ],
)
def test_every_planned_type_is_written_as_the_format_table_says(flink: str, avro: Any) -> None:
    fields = json.loads(
        to_avro((Column("a", flink, nullable=False), Column("b", flink, nullable=True)), "t", "n")
    )["fields"]
    assert fields == [{"name": "a", "type": avro}, {"name": "b", "type": ["null", avro], "default": None}]


def test_a_row_becomes_a_record_with_a_name_of_its_own() -> None:
    kind = "ROW<`months` INT NOT NULL, `of ``day``` BIGINT>"
    first, second = json.loads(to_avro((Column("a", kind, False), Column("b", kind, True)), "t", "n"))[
        "fields"
    ]
    assert first["type"]["name"] == "t_a" and second["type"][1]["name"] == "t_b"
    assert [field["name"] for field in first["type"]["fields"]] == ["months", "of `day`"]


@pytest.mark.parametrize(
    "kind", ["TIME(0)", "MAP<INT, INT>", "INTERVAL DAY(2) TO SECOND(6)", "RAW('x', 'y')"]
)
def test_a_type_that_no_topic_carries_is_refused_with_the_column(kind: str) -> None:
    with pytest.raises(ConfigError, match="column odd of the result"):
        to_avro((Column("odd", kind, nullable=True),), "t", "n")


scalars = st.sampled_from(
    [
        "BOOLEAN",
        "SMALLINT",
        "INT",
        "BIGINT",
        "FLOAT",
        "DOUBLE",
        "STRING",
        "BYTES",
        "DATE",
        "DECIMAL(9, 4)",
        "TIMESTAMP(6)",
        "TIMESTAMP_LTZ(6)",
    ]
)
nested = st.recursive(
    scalars,
    lambda kinds: st.builds("ARRAY<{}{}>".format, kinds, st.sampled_from(["", " NOT NULL"])),
    max_leaves=4,
)


@given(st.lists(st.tuples(nested, st.booleans()), min_size=1, max_size=6))
def test_columns_survive_the_way_through_avro(kinds: list[tuple[str, bool]]) -> None:
    columns = tuple(Column(f"c{i}", kind, nullable) for i, (kind, nullable) in enumerate(kinds))
    written = to_avro(columns, "t", "tailrace")
    fastavro.parse_schema(json.loads(written))
    assert from_avro(written, "t") == columns


@given(st.text(max_size=20))
def test_names_and_literals_are_quoted(text: str) -> None:
    assert quoted(text)[1:-1].replace("``", "").count("`") == 0
    assert literal(text)[1:-1].replace("''", "").count("'") == 0


def test_a_record_is_named_after_its_topic() -> None:
    assert record_name("enriched.shop.2nd-orders") == ("_2nd_orders", "tailrace.enriched.shop")
    assert record_name("orders") == ("orders", "tailrace")
