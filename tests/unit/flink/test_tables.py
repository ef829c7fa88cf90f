"""CREATE TABLE statements of topics."""

import json

import pytest

from tailrace.changes.errors import ConfigError
from tailrace.flink.columns import Column
from tailrace.flink.tables import TopicSchemas, planned_sink, sink_ddl, source_ddl

KEY = json.dumps({"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]})
VALUE = json.dumps(
    {
        "type": "record",
        "name": "v",
        "fields": [{"name": "id", "type": ["null", "long"]}, {"name": "note", "type": ["null", "string"]}],
    }
)
PLANNED = (Column("id", "BIGINT", nullable=True), Column("note", "VARCHAR(2147483647)", nullable=True))


def source(key: str | None) -> str:
    schemas = TopicSchemas("raw.shop.it's", key, VALUE)
    return source_ddl(schemas, bootstrap="h:1", security={}, registry_url="http://h:2", group="g")


def sink(key: tuple[str, ...], *, commit_time: bool = True) -> str:
    return sink_ddl(
        planned_sink("out", PLANNED, key, commit_time=commit_time),
        "`__target`",
        bootstrap="h:1",
        security={},
        key_id=7 if key else None,
        value_id=8,
        transactional_prefix="tailrace.shop.out",
        transaction_timeout_ms=900_000,
    )


def test_a_keyed_topic_is_a_table_whose_null_values_are_deletes() -> None:
    ddl = source(KEY)
    assert "`id` BIGINT NOT NULL" in ddl and "`note` STRING," in ddl
    assert "PRIMARY KEY (`id`) NOT ENFORCED" in ddl
    assert "'value.tailrace-avro.changelog' = 'upsert'" in ddl
    assert "'key.fields' = 'id'" in ddl


def test_of_a_keyed_topic_only_the_key_is_not_null_because_deletes_carry_nothing_else() -> None:
    amount = {"name": "amount", "type": "long"}
    value = json.dumps({"type": "record", "name": "v", "fields": [{"name": "id", "type": "long"}, amount]})
    nullable = [column.nullable for column in TopicSchemas("t", KEY, value).columns]
    assert nullable == [False, True]
    assert [column.nullable for column in TopicSchemas("t", None, value).columns] == [False, False]


def test_only_committed_records_are_read_from_the_beginning() -> None:
    for ddl in (source(KEY), source(None)):
        assert "'properties.isolation.level' = 'read_committed'" in ddl
        assert "'scan.startup.mode' = 'earliest-offset'" in ddl


def test_a_keyless_topic_is_a_stream_of_rows() -> None:
    ddl = source(None)
    assert "PRIMARY KEY" not in ddl and "upsert" not in ddl and "key." not in ddl
    assert "`id` BIGINT," in ddl


def test_the_commit_time_is_a_metadata_column_only_without_a_key() -> None:
    assert "METADATA" not in source(KEY), "a metadata column would keep the whole table in state"
    assert "`__commit_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL" in source(None)


def test_names_are_quoted() -> None:
    assert "'topic' = 'raw.shop.it''s'" in source(KEY)


def test_a_sink_commits_with_the_checkpoint() -> None:
    ddl = sink(("id",))
    assert "'sink.delivery-guarantee' = 'exactly-once'" in ddl
    assert "'sink.transactional-id-prefix' = 'tailrace.shop.out'" in ddl
    assert "'properties.transaction.timeout.ms' = '900000'" in ddl
    assert "`id` BIGINT NOT NULL" in ddl and "PRIMARY KEY (`id`)" in ddl
    assert "'key.tailrace-avro.schema-id' = '7'" in ddl and "'value.tailrace-avro.schema-id' = '8'" in ddl


def test_an_appending_sink_has_no_key() -> None:
    ddl = sink((), commit_time=False)
    assert "PRIMARY KEY" not in ddl and "key." not in ddl and "METADATA" not in ddl and "upsert" not in ddl


def test_the_key_schema_holds_the_key_columns_in_the_order_of_the_key() -> None:
    made = planned_sink("a.out", PLANNED, ("note", "id"), commit_time=True)
    assert made.key_schema is not None
    key, value = json.loads(made.key_schema), json.loads(made.value_schema)
    assert [(field["name"], field["type"]) for field in key["fields"]] == [("note", "string"), ("id", "long")]
    assert [(field["name"], field["type"]) for field in value["fields"]] == [
        ("id", "long"),
        ("note", "string"),
    ]
    assert (key["name"], value["name"]) == ("out_key", "out")


def test_a_key_column_that_the_result_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="key column ident is not in the result"):
        planned_sink("out", PLANNED, ("ident",), commit_time=True)
