"""Arrow schemas as Avro schemas and back, and the schemas that others write."""

import json
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from tests.unit.registry.avro_rows import INTERVAL, schemas

from tailrace.changes import ConfigError
from tailrace.registry.avro_schema import arrow_to_avro, avro_to_arrow


@settings(max_examples=150, deadline=None)
@given(schemas())
def test_an_arrow_schema_survives_the_way_through_avro(schema: pa.Schema) -> None:
    avro = arrow_to_avro(schema, name="Value", namespace="raw.shop.orders")
    assert avro_to_arrow(json.dumps(avro)).equals(schema, check_metadata=True)


@settings(max_examples=100, deadline=None)
@given(schemas())
def test_what_we_write_is_a_legal_avro_schema(schema: pa.Schema) -> None:
    fastavro.parse_schema(arrow_to_avro(schema, name="1 Value", namespace="raw.a-b.orders"))


def test_the_table_in_the_architecture_holds() -> None:
    columns: list[Any] = [
        pa.field("small", pa.int16(), nullable=False),
        pa.field("price", pa.decimal128(12, 2)),
        pa.field("at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("local", pa.timestamp("us"), nullable=False),
        pa.field("clock", pa.time64("us"), nullable=False),
        pa.field("day", pa.date32(), nullable=False),
        pa.field("key", pa.string(), nullable=False, metadata={"pg_type": "uuid"}),
        pa.field("tags", pa.list_(pa.field("element", pa.int32())), nullable=False),
        pa.field("span", INTERVAL, nullable=False),
    ]
    fields = arrow_to_avro(pa.schema(columns), name="Value", namespace="raw.shop")["fields"]
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
    assert fields == [
        {"name": "small", "type": {"type": "int", "connect.type": "int16"}},
        {"name": "price", "type": ["null", decimal], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "clock", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "key", "type": {"type": "string", "logicalType": "uuid"}, "pg_type": "uuid"},
        {"name": "tags", "type": {"type": "array", "items": ["null", "int"]}},
        {
            "name": "span",
            "type": {
                "type": "record",
                "name": "Value_span",
                "fields": [
                    {"name": "months", "type": "int"},
                    {"name": "days", "type": "int"},
                    {"name": "micros", "type": "long"},
                ],
            },
        },
    ]


def test_names_that_avro_forbids_stay_apart_and_come_back() -> None:
    names = ["a b", "a_b", "a-b", "1st", "größe", "_1st"]
    schema = pa.schema([pa.field(name, pa.int32(), nullable=False) for name in names])
    avro = arrow_to_avro(schema, name="Value", namespace="raw.shop")
    assert [field["name"] for field in avro["fields"]] == ["a_b_2", "a_b", "a_b_3", "_1st_2", "gr__e", "_1st"]
    assert avro_to_arrow(avro).names == names


def test_a_key_schema_does_not_carry_postgres_types() -> None:
    schema = pa.schema([pa.field("id", pa.string(), nullable=False, metadata={"pg_type": "varchar(10)"})])
    avro = arrow_to_avro(schema, name="Key", namespace="raw.shop", pg_types=False)
    assert avro["fields"] == [{"name": "id", "type": "string"}]


def test_the_schema_of_flinks_sink_is_read() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 3}
    inner = {
        "type": "record",
        "name": "record_address",
        "fields": [{"name": "city", "type": ["null", "string"], "default": None}],
    }
    fixed = {
        "type": "fixed",
        "name": "money",
        "size": 8,
        "logicalType": "decimal",
        "precision": 18,
        "scale": 4,
    }
    kinds: list[tuple[str, Any]] = [
        ("id", "long"),
        ("at", ["null", {"type": "long", "logicalType": "timestamp-millis"}]),
        ("micros", [{"type": "long", "logicalType": "timestamp-micros"}, "null"]),
        ("clock", {"type": "int", "logicalType": "time-millis"}),
        ("amount", ["null", decimal]),
        ("paid", fixed),
        ("address", ["null", inner]),
        ("again", ["null", "record_address"]),
        ("scores", {"type": "map", "values": ["null", "int"]}),
        ("tags", ["null", {"type": "array", "items": ["null", "string"]}]),
        ("side", {"type": "enum", "name": "side", "symbols": ["BUY", "SELL"]}),
        ("digest", {"type": "fixed", "name": "digest", "size": 16}),
        ("note", {"type": "string", "avro.java.string": "String"}),
    ]
    avro = {
        "type": "record",
        "name": "record",
        "namespace": "org.apache.flink.avro.generated",
        "fields": [{"name": name, "type": kind} for name, kind in kinds],
    }
    address = pa.struct([pa.field("city", pa.string())])
    item: Any = pa.field("value", pa.int32())
    columns: list[Any] = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("at", pa.timestamp("ms", "UTC")),
        pa.field("micros", pa.timestamp("us", "UTC")),
        pa.field("clock", pa.time32("ms"), nullable=False),
        pa.field("amount", pa.decimal128(10, 3)),
        pa.field("paid", pa.decimal128(18, 4), nullable=False),
        pa.field("address", address),
        pa.field("again", address),
        pa.field("scores", pa.map_(pa.string(), item), nullable=False),
        pa.field("tags", pa.list_(pa.field("element", pa.string()))),
        pa.field("side", pa.string(), nullable=False),
        pa.field("digest", pa.binary(16), nullable=False),
        pa.field("note", pa.string(), nullable=False),
    ]
    assert avro_to_arrow(avro) == pa.schema(columns)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (["null", "int", "string"], "union"),
        ({"type": "array", "items": "null"}, "without bytes"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 2}, "40 digits"),
        ("unknown", "does not define"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "v", "type": ["null", "R"]}]},
            "contains itself",
        ),
        (5, "not an Avro schema"),
        ({"type": "fixed", "name": "f", "size": "wide"}, "valid Avro schema"),
    ],
)
def test_what_has_no_column_is_refused_by_name(kind: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        avro_to_arrow({"type": "record", "name": "R", "fields": [{"name": "c", "type": kind}]})


@pytest.mark.parametrize("text", ["", "{", '"string"', "[]", '{"type":"record","name":"R","fields":[{}]}'])
def test_text_that_is_no_record_schema_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Avro schema"):
        avro_to_arrow(text)


def test_a_schema_that_unfolds_without_end_is_refused() -> None:
    fields = [
        {"name": "f0", "type": {"type": "record", "name": "R0", "fields": [{"name": "v", "type": "int"}]}}
    ]
    for i in range(1, 20):
        doubled = [{"name": "a", "type": f"R{i - 1}"}, {"name": "b", "type": f"R{i - 1}"}]
        fields.append({"name": f"f{i}", "type": {"type": "record", "name": f"R{i}", "fields": doubled}})
    with pytest.raises(ConfigError, match="more than 10000 parts"):
        avro_to_arrow({"type": "record", "name": "R", "fields": fields})


def test_an_arrow_type_that_topics_do_not_carry_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"column 'a\.b' has the Arrow type uint8"):
        arrow_to_avro(
            pa.schema([pa.field("a", pa.struct([pa.field("b", pa.uint8())]))]), name="Value", namespace="raw"
        )
