"""ChangeBatches through record batches and back, and records that others wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.registry.avro_rows import batch_of, integers_of, types, values

from tailrace.broker.records.batch import finish_batch, set_base_offset
from tailrace.broker.records.columnar import BytesColumn
from tailrace.broker.records.columnar_build import build_batch
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.changes import (
    OP_CREATE,
    OP_DELETE,
    ChangeBatch,
    ConfigError,
    TableId,
    TableSchema,
    TailraceError,
)
from tailrace.registry.avro_encode import encode_rows
from tailrace.registry.avro_plan import plan_rows
from tailrace.registry.avro_schema import arrow_to_avro
from tailrace.registry.envelope import (
    ChangeDecoder,
    ChangeEncoder,
    ControlMark,
    SnapshotMark,
    SourcePosition,
    TruncateMark,
    control_batch,
    parse_control,
)
from tailrace.registry.envelope.partitioner import partition_of
from tailrace.registry.envelope.schemas import frame

TOPIC = "raw.shop.orders"
ORDERS = TableId("public", "orders")


@dataclass
class Registered:
    """A schema registry in memory: ids by text, newest per subject."""

    ids: dict[str, int] = field(default_factory=dict)
    subjects: dict[str, int] = field(default_factory=dict)
    calls: int = 0

    def register(self, subject: str, schema: str, /) -> int:
        self.calls += 1
        schema_id = self.ids.setdefault(schema, len(self.ids) + 1)
        self.subjects[subject] = schema_id
        return schema_id

    def schema(self, schema_id: int, /) -> str:
        return next(text for text, known in self.ids.items() if known == schema_id)

    def latest(self, subject: str, /) -> tuple[int, str] | None:
        schema_id = self.subjects.get(subject)
        return None if schema_id is None else (schema_id, self.schema(schema_id))


def stored(built: list[tuple[bytearray, int]], *, base_offset: int = 0) -> list[memoryview]:
    """Built batches as a fetch gives them."""
    views = []
    for batch, count in built:
        finish_batch(batch, -1, -1, -1, transactional=False)
        set_base_offset(batch, base_offset, 0)
        base_offset += count
        views.append(memoryview(bytes(batch)))
    return views


def table_of(columns: list[Any], key: tuple[str, ...]) -> TableSchema:
    return TableSchema(ORDERS, pa.schema(columns), key)


def changes_of(table: TableSchema, rows: list[dict[str, Any]], op: bytes, **given: Any) -> ChangeBatch:
    """Changes with plain numbers as metadata; a delete's row holds its key alone."""
    count = len(rows)
    kept = [
        {
            name: row.get(name) if name in table.key or letter != OP_DELETE else None
            for name in table.arrow.names
        }
        for row, letter in zip(rows, op, strict=True)
    ]
    metadata: dict[str, Any] = {
        "lsn": np.arange(count, dtype=np.int64) + 1000,
        "seq": np.arange(count, dtype=np.int64),
        "xid": np.arange(count, dtype=np.int64) + 7,
        "timestamp": np.arange(count, dtype=np.int64) + 1_700_000_000_123_456,
        "unchanged": np.full(count, -1, np.int16),
    }
    return ChangeBatch(table, batch_of(table.arrow, kept), np.frombuffer(op, np.uint8), **(metadata | given))


_METADATA = ("op", "lsn", "seq", "xid", "timestamp")
_KEY_TYPES = [pa.int64(), pa.string(), pa.int16(), pa.bool_(), pa.date32(), pa.decimal128(20, 3)]


@st.composite
def change_batches(draw: st.DrawFn) -> ChangeBatch:
    keys = draw(st.lists(st.sampled_from(_KEY_TYPES), min_size=1, max_size=2))
    columns: list[Any] = [pa.field(f"k{i}", kind, nullable=False) for i, kind in enumerate(keys)]
    columns += [
        pa.field(f"v {i}", draw(types()), draw(st.booleans())) for i in range(draw(st.integers(0, 3)))
    ]
    table = table_of(draw(st.permutations(columns)), tuple(f"k{i}" for i in range(len(keys))))
    row = st.fixed_dictionaries({column.name: values(column.type, column.nullable) for column in table.arrow})
    rows = draw(st.lists(row, min_size=1, max_size=12))
    count = len(rows)

    def numbers(of: st.SearchStrategy[int]) -> np.ndarray[Any, Any]:
        return np.array(draw(st.lists(of, min_size=count, max_size=count)), np.int64)

    prior = None
    if draw(st.booleans()):
        row_of_key = st.fixed_dictionaries(
            {name: values(table.arrow.field(name).type, False) for name in table.key}
        )
        priors = draw(st.lists(st.one_of(st.none(), row_of_key), min_size=count, max_size=count))
        absent = dict.fromkeys(table.key)
        prior = batch_of(table.key_schema(), [given or absent for given in priors])
    return changes_of(
        table,
        rows,
        bytes(draw(st.lists(st.sampled_from(list(b"cudr")), min_size=count, max_size=count))),
        lsn=numbers(st.integers(0, (1 << 63) - 1)),
        seq=numbers(st.integers(0, 1 << 40)),
        xid=numbers(st.integers(0, (1 << 32) - 1)),
        timestamp=numbers(integers_of(52).map(abs)),
        unchanged=numbers(st.integers(-1, 1)).astype(np.int16),
        unchanged_sets=(("note",), ("größe", 'a"b')),
        prior_key=prior,
    )


def sets_of(batch: ChangeBatch) -> list[tuple[str, ...]]:
    return [() if i < 0 else batch.unchanged_sets[i] for i in batch.unchanged.tolist()]


@settings(max_examples=100, deadline=None)
@given(change_batches(), st.integers(1, 4), st.sampled_from([1, 300, 1 << 20]))
def test_changes_come_back_as_they_were_in_order_within_each_partition(
    batch: ChangeBatch, partitions: int, limit: int
) -> None:
    registry = Registered()
    written = ChangeEncoder(registry, TOPIC, limit=limit).encode(batch, partitions)
    seen = 0
    for partition, built in written.items():
        decoder = ChangeDecoder(registry, TOPIC, ORDERS)
        for decoded in decoder.decode(stored(built), partition=partition):
            got = decoded.batch
            taken = [
                i for i in range(len(batch)) if _partition_of(registry, batch, i, partitions) == partition
            ]
            assert decoded.offsets.tolist() == list(range(len(taken)))
            assert got.table == batch.table
            got.rows.validate(full=True)
            assert got.rows.equals(batch.rows.take(pa.array(taken, pa.int64())))
            for name in _METADATA:
                assert getattr(got, name).tolist() == getattr(batch, name)[taken].tolist()
            assert sets_of(got) == [sets_of(batch)[i] for i in taken]
            assert _prior_rows(got).equals(_prior_rows(batch).take(pa.array(taken, pa.int64())))
            seen += len(got)
    assert seen == len(batch)


def _prior_rows(batch: ChangeBatch) -> pa.RecordBatch:
    if batch.prior_key is not None:
        return batch.prior_key
    key = batch.table.key_schema()
    return pa.RecordBatch.from_arrays([pa.nulls(len(batch), column.type) for column in key], schema=key)


def _partition_of(registry: Registered, batch: ChangeBatch, row: int, partitions: int) -> int:
    key = batch.rows.slice(row, 1).select(list(batch.table.key))
    newest = registry.latest(f"{TOPIC}-key")
    assert newest is not None
    plan = plan_rows(newest[1])
    encoded = encode_rows(key.cast(plan.schema), plan, prefix=frame(newest[0])).to_strings()[0]
    assert encoded is not None
    return _murmur2_partition(encoded, partitions)


def _murmur2_partition(key: bytes, partitions: int) -> int:
    """Kafka's partitioner, written from its definition with Python's integers."""
    mask = 0xFFFFFFFF
    hashed = 0x9747B28C ^ len(key)
    for at in range(0, len(key) - len(key) % 4, 4):
        word = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 & mask
        hashed = (hashed * 0x5BD1E995 & mask) ^ ((word ^ word >> 24) * 0x5BD1E995 & mask)
    if tail := key[len(key) - len(key) % 4 :]:
        hashed = (hashed ^ int.from_bytes(tail, "little")) * 0x5BD1E995 & mask
    hashed = (hashed ^ hashed >> 13) * 0x5BD1E995 & mask
    return ((hashed ^ hashed >> 15) & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_the_one_of_kafkas_own_test(key: bytes, hashed: int) -> None:
    many = (1 << 31) - 1
    assert partition_of(BytesColumn.from_strings([key]), many).tolist() == [(hashed & 0x7FFFFFFF) % many]


ID = pa.field("id", pa.int64(), nullable=False)
NOTE = pa.field("note", pa.string())


def test_schemas_are_registered_once_and_again_only_when_they_change() -> None:
    registry = Registered()
    encoder = ChangeEncoder(registry, TOPIC)
    batch = changes_of(table_of([ID, NOTE], ("id",)), [{"id": 1, "note": "x"}], b"c")
    for _ in range(3):
        encoder.encode(batch, 1)
    same = table_of([ID, NOTE], ("id",))
    encoder.encode(changes_of(same, [{"id": 1, "note": "x"}], b"c"), 1)
    assert (registry.calls, set(registry.subjects)) == (2, {f"{TOPIC}-key", f"{TOPIC}-value"})
    wider = table_of([ID, NOTE, pa.field("extra", pa.int32())], ("id",))
    encoder.encode(changes_of(wider, [{"id": 1}], b"c"), 1)
    assert (registry.calls, len(registry.ids)) == (4, 3)


def test_a_longer_varchar_key_keeps_its_bytes_and_its_partition() -> None:
    registry = Registered()
    encoder = ChangeEncoder(registry, TOPIC)
    found = []
    for pg_type in ("character varying(10)", "character varying(20)"):
        column = pa.field("id", pa.string(), nullable=False, metadata={"pg_type": pg_type})
        built = encoder.encode(changes_of(table_of([column], ("id",)), [{"id": "a"}], b"c"), 8)
        ((partition, batches),) = built.items()
        found.append((partition, parse_batches(stored(batches)).key(0)))
    assert found[0] == found[1]


def test_rows_of_two_schemas_come_as_two_batches_and_deletes_go_with_the_row_before() -> None:
    registry = Registered()
    encoder = ChangeEncoder(registry, TOPIC)
    old = table_of([ID, NOTE], ("id",))
    new = table_of([ID, NOTE, pa.field("extra", pa.int32())], ("id",))
    rows = [{"id": i, "note": "n", "extra": i} for i in range(4)]
    first = encoder.encode(changes_of(old, rows, b"dcud"), 1)[0]
    second = encoder.encode(changes_of(new, rows, b"dcdc"), 1)[0]
    views = stored(first + second, base_offset=50)
    decoded = ChangeDecoder(registry, TOPIC, ORDERS).decode(views, partition=0)
    assert [(d.batch.table.arrow.names, d.offsets.tolist()) for d in decoded] == [
        (["id", "note"], [50, 51, 52, 53, 54]),
        (["id", "note", "extra"], [55, 56, 57]),
    ]
    assert bytes(decoded[0].batch.op) == b"dcudd"
    assert decoded[0].batch.rows.to_pydict() == {"id": [0, 1, 2, 3, 0], "note": [None, "n", "n", None, None]}


def test_a_fetch_from_the_middle_of_a_record_batch_starts_at_its_offset() -> None:
    registry = Registered()
    rows = [{"id": i} for i in range(5)]
    built = ChangeEncoder(registry, TOPIC).encode(
        changes_of(table_of([ID, NOTE], ("id",)), rows, b"c" * 5), 1
    )[0]
    decoder = ChangeDecoder(registry, TOPIC, ORDERS)
    (decoded,) = decoder.decode(stored(built, base_offset=10), partition=0, start_offset=13)
    assert (decoded.offsets.tolist(), decoded.batch.rows["id"].to_pylist()) == ([13, 14], [3, 4])
    assert decoder.decode(stored(built, base_offset=10), partition=0, start_offset=15) == []


def test_deletes_before_any_row_have_the_newest_schema() -> None:
    registry = Registered()
    table = table_of([ID, NOTE], ("id",))
    built = ChangeEncoder(registry, TOPIC).encode(changes_of(table, [{"id": 5}, {"id": 6}], b"dd"), 1)[0]
    (decoded,) = ChangeDecoder(registry, TOPIC, ORDERS).decode(stored(built), partition=0)
    assert decoded.batch.table == table
    assert decoded.batch.rows.to_pydict() == {"id": [5, 6], "note": [None, None]}
    del registry.subjects[f"{TOPIC}-value"]
    (decoded,) = ChangeDecoder(registry, TOPIC, ORDERS).decode(stored(built), partition=0)
    assert decoded.batch.rows.to_pydict() == {"id": [5, 6]}


def test_a_table_without_a_key_stays_in_order_in_one_partition() -> None:
    registry = Registered()
    table = table_of([NOTE], ())
    notes = [{"note": f"n{i}"} for i in range(50)]
    built = ChangeEncoder(registry, TOPIC).encode(changes_of(table, notes, b"c" * 50), 3)
    assert list(built) == [0] and list(registry.subjects) == [f"{TOPIC}-value"]
    views = stored(built[0])
    assert parse_batches(views).key(0) is None
    (decoded,) = ChangeDecoder(registry, TOPIC, ORDERS).decode(views, partition=0)
    assert decoded.batch.table.key == ()
    assert decoded.batch.rows.to_pylist() == notes


def foreign(
    registry: Registered, rows: list[tuple[bytes | None, bytes | None]], at_ms: int
) -> list[memoryview]:
    keys = BytesColumn.from_strings([key for key, _ in rows])
    payloads = BytesColumn.from_strings([value for _, value in rows])
    return stored(build_batch(keys, payloads, None, np.full(len(rows), at_ms, np.int64)), base_offset=9)


def avro_row(registry: Registered, part: str, row: dict[str, Any], columns: list[Any]) -> bytes:
    """A row as Flink's avro-confluent format writes it."""
    avro = arrow_to_avro(pa.schema(columns), name="record", namespace="org.apache.flink.avro.generated")
    schema_id = registry.register(f"{TOPIC}-{part}", json.dumps(avro))
    batch = pa.RecordBatch.from_pylist([row], schema=pa.schema(columns))
    encoded = encode_rows(batch, plan_rows(avro), prefix=frame(schema_id)).to_strings()[0]
    assert encoded is not None
    return encoded


def test_records_without_our_headers_are_creates_and_deletes() -> None:
    registry = Registered()
    keys = [avro_row(registry, "key", {"id": i}, [ID]) for i in range(2)]
    value = avro_row(registry, "value", {"id": 0, "note": "x"}, [ID, NOTE])
    views = foreign(registry, [(keys[0], value), (keys[1], None)], 5000)
    (decoded,) = ChangeDecoder(registry, TOPIC, ORDERS).decode(views, partition=0)
    batch = decoded.batch
    assert batch.op.tolist() == [OP_CREATE, OP_DELETE]
    assert batch.table.key == ("id",)
    assert batch.rows.to_pydict() == {"id": [0, 1], "note": ["x", None]}
    assert (batch.lsn.tolist(), batch.seq.tolist(), batch.xid.tolist()) == ([0, 0], [9, 10], [0, 0])
    assert (batch.timestamp.tolist(), batch.unchanged.tolist()) == ([5_000_000] * 2, [-1, -1])
    assert batch.prior_key is None


def test_key_columns_by_name_need_no_record_key() -> None:
    registry = Registered()
    value = avro_row(registry, "value", {"id": 0, "note": "x"}, [ID, NOTE])
    decoder = ChangeDecoder(registry, TOPIC, ORDERS, key=["id"])
    (decoded,) = decoder.decode(foreign(registry, [(None, value), (b"plain", value)], 0), partition=0)
    assert decoded.batch.table.key == ("id",) and decoded.batch.rows["id"].to_pylist() == [0, 0]


def test_deletes_whose_keys_have_an_older_schema_are_widened() -> None:
    registry = Registered()
    narrow = pa.field("id", pa.int32(), nullable=False)
    keys = [avro_row(registry, "key", {"id": i}, [ID if i % 2 else narrow]) for i in range(4)]
    value = avro_row(registry, "value", {"id": 0, "note": "x"}, [ID, NOTE])
    views = foreign(registry, [(keys[1], value), *((key, None) for key in keys)], 0)
    (decoded,) = ChangeDecoder(registry, TOPIC, ORDERS).decode(views, partition=0)
    assert decoded.batch.rows["id"].to_pylist() == [0, 0, 1, 2, 3]


def damaged(registry: Registered) -> dict[str, tuple[bytes | None, bytes | None, str]]:
    key = avro_row(registry, "key", {"id": 1}, [ID])
    value = avro_row(registry, "value", {"id": 0, "note": "x"}, [ID, NOTE])
    other_key = avro_row(registry, "key", {"code": 1}, [pa.field("code", pa.int64(), nullable=False)])
    return {
        "plain value": (key, b"hello world", "offset 10: not Avro in Confluent's wire format"),
        "short value": (key, value[:4], "offset 10: not Avro in Confluent's wire format"),
        "cut value": (key, value[:-1], "offset 10: the bytes are not Avro"),
        "plain key": (b"plain-key", None, "offset 10, key: not Avro in Confluent's wire format"),
        "cut key": (key[:-1], None, "offset 10, key: the bytes are not Avro"),
        "no key": (None, None, "offset 10, key: neither key nor value"),
        "other key": (other_key, None, "offset 10, key: the key column 'id' is not in it"),
    }


@pytest.mark.parametrize("case", list(damaged(Registered())))
def test_a_record_that_is_not_ours_to_read_is_named_by_its_offset(case: str) -> None:
    registry = Registered()
    key, value, says = damaged(registry)[case]
    good_key = avro_row(registry, "key", {"id": 1}, [ID])
    good_value = avro_row(registry, "value", {"id": 0, "note": "x"}, [ID, NOTE])
    views = foreign(registry, [(good_key, good_value), (key, value)], 0)
    with pytest.raises(TailraceError, match=f"topic {TOPIC}, partition 3, {says}"):
        ChangeDecoder(registry, TOPIC, ORDERS).decode(views, partition=3)


def test_a_key_column_that_may_be_null_is_refused() -> None:
    table = table_of([pa.field("id", pa.int64())], ("id",))
    with pytest.raises(ConfigError, match="key column 'id' may be null"):
        ChangeEncoder(Registered(), TOPIC).encode(changes_of(table, [{"id": 1}], b"c"), 1)


def test_key_columns_that_the_rows_do_not_have_are_named() -> None:
    registry = Registered()
    value = avro_row(registry, "value", {"note": "x"}, [NOTE])
    views = foreign(registry, [(avro_row(registry, "key", {"id": 1}, [ID]), value)], 0)
    with pytest.raises(TailraceError, match="offset 9: the rows of schema 1 have no key column 'id'"):
        ChangeDecoder(registry, TOPIC, ORDERS).decode(views, partition=0)


def test_a_batch_without_rows_is_no_record_batch() -> None:
    table = table_of([ID, pa.field("tags", pa.list_(pa.field("element", pa.string())))], ("id",))
    assert ChangeEncoder(Registered(), TOPIC).encode(changes_of(table, [], b""), 2) == {}


def test_nothing_fetched_is_nothing_decoded() -> None:
    assert ChangeDecoder(Registered(), TOPIC, ORDERS).decode([], partition=0) == []


OFFSETS = st.dictionaries(st.integers(0, 50), st.integers(0, 1 << 62), max_size=3)
TABLES = st.builds(TableId, st.sampled_from(["public", "größe"]), st.text("ab.c", min_size=1, max_size=4))
NUMBERS = st.integers(0, (1 << 63) - 1)
MARKS: st.SearchStrategy[ControlMark] = st.one_of(
    st.builds(
        SourcePosition,
        NUMBERS,
        NUMBERS,
        st.dictionaries(st.text(max_size=5), OFFSETS, max_size=3),
        st.dictionaries(TABLES, st.text(max_size=5), max_size=3),
    ),
    st.builds(TruncateMark, TABLES, st.text(max_size=5), NUMBERS, NUMBERS, NUMBERS, OFFSETS),
    st.builds(SnapshotMark, st.sampled_from(["started", "done"]), st.text(max_size=5), NUMBERS),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(MARKS, min_size=1, max_size=4))
def test_control_marks_come_back_as_they_were(marks: list[Any]) -> None:
    records = parse_batches(stored(control_batch(marks, timestamp_ms=77)))
    assert [parse_control(records.value(i), where="t") for i in range(len(records))] == marks
    assert records.timestamp_ms.tolist() == [77] * len(marks)


def test_control_records_have_the_documented_form() -> None:
    position = SourcePosition(123, 5, {TOPIC: {0: 4711}}, {ORDERS: TOPIC})
    assert position.to_record() == (
        b"position",
        (
            b'{"type":"position","lsn":123,"timestamp":5,"offsets":{"raw.shop.orders":{"0":4711}},'
            b'"tables":{"public.orders":"raw.shop.orders"}}'
        ),
    )
    truncate = TruncateMark(ORDERS, TOPIC, 9, 2, 5, {0: 100})
    assert truncate.to_record() == (
        b"truncate/public.orders/9/2",
        (
            b'{"type":"truncate","table":"public.orders","topic":"raw.shop.orders","lsn":9,"seq":2,'
            b'"timestamp":5,"offsets":{"0":100}}'
        ),
    )
    assert SnapshotMark("done", "slot_a", 9).to_record() == (
        b"snapshot",
        b'{"type":"snapshot","state":"done","slot":"slot_a","lsn":9}',
    )


def test_control_records_of_tomorrow_and_tombstones_are_passed_over() -> None:
    assert parse_control(b'{"type":"holiday"}', where="t") is None
    assert parse_control(None, where="t") is None


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"[]", b"{}", b'{"type":"position","lsn":"x"}', b'{"type":"snapshot","state":"?"}'],
)
def test_a_control_record_that_cannot_be_read_is_named(value: bytes) -> None:
    with pytest.raises(TailraceError, match="topic c, offset 3 does not hold a control record"):
        parse_control(value, where="topic c, offset 3")
