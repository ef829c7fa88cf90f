"""Values of every type, from real Postgres through each of our three ways, against the values psycopg reads."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.connectors.tap import Tap, batches, feed

from tailrace.changes import SourceDataError
from tailrace.connectors.postgres.config import TableOptions
from tailrace.connectors.postgres.copy_binary import CopyDecoder
from tailrace.connectors.postgres.decode import Array
from tailrace.connectors.postgres.stream_decoder import NeedsTextFormat

pytestmark = pytest.mark.postgres

_MICROS = "(extract(epoch FROM {}) * 1000000)::int8"


def _same(array: Array) -> list[Any]:
    return array.to_pylist()


def _as_integers(array: Array) -> list[Any]:
    """Days or microseconds: Python's own dates end at the years 1 and 9999."""
    return array.cast(pa.int32() if pa.types.is_date(array.type) else pa.int64()).to_pylist()


def _list_as_integers(array: Array) -> list[Any]:
    whole: Array = array.cast(pa.list_(pa.int64()))
    return whole.to_pylist()


def _bits(array: Array) -> list[object]:
    """Floats by their bits, because NaN is not equal to itself and -0.0 equals 0.0."""
    return [None if value is None else struct.pack("d", value) for value in array.to_pylist()]


def _interval(array: Array) -> list[object]:
    return [None if v is None else (v["months"], v["days"], v["micros"]) for v in array.to_pylist()]


@dataclass(frozen=True)
class Column:
    """A column under test: its type, literals for it, what to ask psycopg for, and how to compare."""

    pg_type: str
    literals: st.SearchStrategy[object]
    expected: str = "{}"
    actual: Callable[[Array], list[Any]] = _same


def _digits(precision: int, scale: int) -> st.SearchStrategy[object]:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda n: f"{n}e-{scale}")


def _integers(bits: int) -> st.SearchStrategy[object]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(str)


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
_DATES = st.builds(
    "{:04d}-{:02d}-{:02d}{}".format,
    st.integers(1, 4713) | st.integers(1, 9999),
    st.integers(1, 12),
    st.integers(1, 28),
    st.sampled_from(["", "", " BC"]),
).filter(lambda text: not (text.endswith("BC") and text[:4] > "4712"))
_CLOCK = st.times().map(lambda t: t.isoformat("microseconds"))
_MOMENTS = st.builds(lambda d, t: f"{d[:10]} {t}{d[10:]}", _DATES, _CLOCK)
_FLOATS = st.floats().map(repr)
_FLOATS4 = st.floats(width=32).map(repr)
_NUMERICS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: abs(d.adjusted()) < 200).map(str),
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "0", "-0.00", "10000", "0.0001", "1e-40", "1e130", "99990000"]
    ),
)
_INTERVALS = st.builds(
    "{} months {} days {} microseconds".format,
    st.integers(-(10**6), 10**6),
    st.integers(-(10**6), 10**6),
    st.integers(-(10**15), 10**15),
)
_INTERVAL_PARTS = (
    "CASE WHEN {} IS NOT NULL THEN (extract(year FROM {})::int * 12 + extract(month FROM {})::int,"
    " extract(day FROM {})::int, extract(hour FROM {})::int8 * 3600000000"
    " + extract(minute FROM {})::int8 * 60000000 + extract(microseconds FROM {})::int8) END"
)


def _array(element: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(st.none() | element, max_size=4)


COLUMNS = {
    "a_bool": Column("bool", st.booleans().map(str)),
    "a_int2": Column("int2", _integers(16)),
    "a_int4": Column("int4", _integers(32)),
    "a_int8": Column("int8", _integers(64)),
    "a_float4": Column("float4", _FLOATS4, actual=_bits),
    "a_float8": Column("float8", _FLOATS, actual=_bits),
    "a_money": Column("numeric(12,2)", _digits(12, 2)),
    "a_fraction": Column("numeric(3,3)", _digits(3, 3)),
    "a_decimal": Column("numeric(18,7)", _digits(18, 7)),
    "a_widest": Column("numeric(38,9)", _digits(38, 9)),
    "a_whole": Column("numeric(38)", _digits(38, 0)),
    "a_numeric": Column("numeric", _NUMERICS, "{}::text"),
    "a_wide": Column("numeric(50,10)", _digits(50, 10), "{}::text"),
    "a_rounded": Column("numeric(5,-2)", _integers(20), "{}::text"),
    "a_text": Column("text", _TEXT),
    "a_varchar": Column("varchar(60)", _TEXT),
    "a_char": Column("char(5)", st.text("abc ", max_size=5)),
    "a_name": Column("name", st.text("abc", max_size=9)),
    "a_bytea": Column("bytea", st.binary(max_size=40).map(lambda b: "\\x" + b.hex())),
    "a_date": Column("date", _DATES, "{} - date '1970-01-01'", _as_integers),
    "a_time": Column("time", _CLOCK, _MICROS, _as_integers),
    "a_timestamp": Column("timestamp", _MOMENTS, _MICROS, _as_integers),
    "a_timestamptz": Column("timestamptz", _MOMENTS, _MICROS, _as_integers),
    "a_interval": Column("interval", _INTERVALS, _INTERVAL_PARTS, _interval),
    "a_uuid": Column("uuid", st.uuids().map(str), "{}::text"),
    "a_json": Column("json", _JSON, "{}::text"),
    "a_jsonb": Column("jsonb", _JSON, "{}::text"),
    "a_mood": Column("mood", st.sampled_from(["happy", "so so", 'an "odd" one']), "{}::text"),
    "a_domain": Column("price", _digits(10, 2)),
    "a_bools": Column("bool[]", _array(st.booleans().map(str))),
    "a_int4s": Column("int4[]", _array(_integers(32))),
    "a_float8s": Column("float8[]", _array(st.floats(allow_nan=False).map(repr))),
    "a_decimals": Column("numeric(8,3)[]", _array(_digits(8, 3))),
    "a_numerics": Column("numeric[]", _array(_NUMERICS), "{}::text[]"),
    "a_texts": Column("text[]", _array(_TEXT | st.sampled_from(["NULL", "", "{", '"', "\\", "a,b", " "]))),
    "a_byteas": Column("bytea[]", _array(st.binary(max_size=5).map(lambda b: "\\x" + b.hex()))),
    "a_timestamptzs": Column(
        "timestamptz[]",
        _array(_MOMENTS),
        "CASE WHEN {} IS NOT NULL THEN ARRAY(SELECT " + _MICROS.format("x") + " FROM unnest({}) x) END",
        _list_as_integers,
    ),
    "a_uuids": Column("uuid[]", _array(st.uuids().map(str)), "{}::text[]"),
    "a_jsonbs": Column("jsonb[]", _array(_JSON), "{}::text[]"),
    "a_moods": Column("mood[]", _array(st.sampled_from(["happy", "so so", 'an "odd" one'])), "{}::text[]"),
}
_PRINTED = "CASE num_nulls({}) WHEN 0 THEN format('%s', {}) END"
TEXT_ONLY = {
    "b_inet": Column("inet", st.ip_addresses().map(str), _PRINTED),
    "b_point": Column("point", st.tuples(st.integers(), st.integers()).map(str), _PRINTED),
    "b_range": Column(
        "int4range", st.tuples(st.integers(0, 5), st.integers(6, 9)).map("[{0[0]},{0[1]})".format), _PRINTED
    ),
    "b_matrix": Column(
        "pair",
        st.tuples(st.integers(0, 99), st.just("x")).map("({0[0]},{0[1]})".format)
        | st.sampled_from(["(,)", "(1,)"]),
        _PRINTED,
    ),
    "b_timetz": Column("timetz", _CLOCK.map("{}+05:30".format), _PRINTED),
    "b_bits": Column("varbit", st.text("01", max_size=20), _PRINTED),
    "b_inets": Column("inet[]", _array(st.ip_addresses().map(str)), _PRINTED),
    "b_vector": Column("int2vector", st.just("1 2 3"), _PRINTED),
}
TYPES = """
CREATE TYPE mood AS ENUM ('happy', 'so so', 'an "odd" one');
CREATE DOMAIN base_price AS numeric(10, 2);
CREATE DOMAIN price AS base_price;
CREATE TYPE pair AS (a int, b text);
"""

Values = list[dict[str, object]]


class Table:
    """A table of the columns under test, with a tap on its database."""

    def __init__(self, dsn: str, columns: dict[str, Column]) -> None:
        self.columns = columns
        self.tap = Tap(dsn)
        self.tap.sql.execute(TYPES)
        definitions = ", ".join(f"{name} {column.pg_type}" for name, column in columns.items())
        self.tap.sql.execute(f"CREATE TABLE t (id int PRIMARY KEY, {definitions})".encode())

    def fill(self, values: Values) -> None:
        casts = [
            f"%({name})s::text[]::{column.pg_type}"
            if column.pg_type.endswith("[]")
            else f"%({name})s::{column.pg_type}"
            for name, column in self.columns.items()
        ]
        statement = f"INSERT INTO t VALUES (%(id)s, {', '.join(casts)})"
        rows = [{"id": number, **row} for number, row in enumerate(values)]
        with self.tap.sql.transaction(), self.tap.sql.cursor() as cursor:
            cursor.execute("TRUNCATE t")
            cursor.executemany(statement.encode(), rows)

    def expected(self) -> dict[str, list[object]]:
        """What psycopg reads."""
        asked = ", ".join(
            column.expected.replace("{}", name) + f" AS {name}" for name, column in self.columns.items()
        )
        cursor = self.tap.sql.cursor(binary=True)
        found = cursor.execute(f"SELECT {asked} FROM t ORDER BY id".encode()).fetchall()
        result: dict[str, list[object]] = {}
        for number, (name, column) in enumerate(self.columns.items()):
            cells = [row[number] for row in found]
            bits = (
                [None if cell is None else struct.pack("d", cell) for cell in cells]
                if column.actual is _bits
                else cells
            )
            result[name] = bits
        return result

    def actual(self, found: list[pa.RecordBatch]) -> dict[str, list[object]]:
        table = pa.Table.from_batches(found).sort_by("id").combine_chunks()
        return {
            name: column.actual(table.column(name).combine_chunks()) for name, column in self.columns.items()
        }

    def streamed(self, tmp_path: Path, *, binary: bool) -> dict[str, list[object]]:
        return self.actual([batch.rows for batch in batches(self.tap.decode(tmp_path, binary=binary))])

    def copied(self) -> dict[str, list[object]]:
        plan = self.tap.plan("t")
        decoder = CopyDecoder(plan)
        found = list(decoder.feed(self.tap.copied_bytes(plan)))
        decoder.finish()
        return self.actual(found)


def rows_of(columns: dict[str, Column]) -> st.SearchStrategy[Values]:
    row = st.fixed_dictionaries({name: st.none() | column.literals for name, column in columns.items()})
    return st.lists(row, min_size=1, max_size=8)


@pytest.fixture
def carried(postgres: str) -> Iterator[Table]:
    table = Table(postgres, COLUMNS)
    with table.tap:
        yield table


@pytest.fixture
def text_only(postgres: str) -> Iterator[Table]:
    table = Table(postgres, TEXT_ONLY)
    with table.tap:
        yield table


_PROPERTY = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(values=rows_of(COLUMNS))
@_PROPERTY
def test_every_type_is_the_same_through_copy_and_both_stream_formats(
    carried: Table, tmp_path: Path, values: Values
) -> None:
    carried.tap.advance()
    carried.fill(values)
    expected = carried.expected()
    assert carried.copied() == expected
    assert carried.streamed(tmp_path, binary=True) == expected
    assert carried.streamed(tmp_path, binary=False) == expected


@given(values=rows_of(TEXT_ONLY))
@_PROPERTY
def test_a_type_without_a_columnar_form_is_carried_as_postgres_prints_it(
    text_only: Table, tmp_path: Path, values: Values
) -> None:
    text_only.tap.advance()
    text_only.fill(values)
    expected = text_only.expected()
    assert text_only.copied() == expected
    assert text_only.streamed(tmp_path, binary=False) == expected


def test_a_binary_stream_with_a_type_we_cannot_read_asks_for_text(text_only: Table, tmp_path: Path) -> None:
    text_only.fill([dict.fromkeys(TEXT_ONLY)])
    assert not text_only.tap.plan("t").binary
    assert len(text_only.tap.plan("t").warnings) == len(TEXT_ONLY)
    with pytest.raises(NeedsTextFormat, match=r"inet of public.t.b_inet"):
        text_only.tap.decode(tmp_path, binary=True)


BAD_VALUES = [
    ("numeric(10,2)", "NaN", "NaN"),
    ("timestamp", "infinity", "infinity"),
    ("timestamptz", "-infinity", "infinity"),
    ("timestamp", "294276-12-31 00:00:00", "64 bits"),
    ("date", "infinity", "infinity"),
    ("date", "-infinity", "infinity"),
    ("time", "24:00:00", "24:00:00"),
    ("interval", "infinity", "infinity"),
    ("interval", "-infinity", "infinity"),
    ("int4[]", "{{1,2},{3,4}}", "more than one dimension"),
    ("text[]", "[0:1]={a,b}", "first index is not 1"),
    ("date[]", "{2020-01-01,infinity}", "infinity"),
]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("pg_type", "value", "words"), BAD_VALUES)
def test_a_value_that_the_plan_cannot_hold_names_table_column_and_lsn(
    postgres: str, tmp_path: Path, pg_type: str, value: str, words: str, binary: bool
) -> None:
    with Tap(postgres) as tap:
        tap.sql.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {pg_type})".encode())
        tap.sql.execute(f"INSERT INTO t VALUES (1, NULL), (2, '{value}')".encode())
        with pytest.raises(
            SourceDataError, match=rf"column v of public\.t holds .*{words}.* ends at 0/[0-9A-F]+"
        ):
            tap.decode(tmp_path, binary=binary)
        with pytest.raises(
            SourceDataError, match=rf"column v of public\.t holds .*{words}.*initial snapshot"
        ):
            tap.copy(tap.plan("t"))
        tap.options["t"] = TableOptions(as_text=("v",))
        printed = {"id": 2, "v": value.replace("+", "")}
        assert tap.copy(tap.plan("t"))[1] == printed
        sets = feed(tap.decoder(tmp_path, binary=False), tap.frames(binary=False))
        assert batches(sets)[0].rows.to_pylist()[1] == printed


def test_an_excluded_column_is_in_no_batch(postgres: str, tmp_path: Path) -> None:
    with Tap(postgres) as tap:
        tap.options["t"] = TableOptions(exclude=("secret", "place"))
        tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, secret text, a int, place inet, b text)")
        tap.sql.execute("INSERT INTO t VALUES (1, 'x', 2, '::1', 'y')")
        (batch,) = batches(tap.decode(tmp_path))
        assert batch.rows.to_pylist() == tap.copy(tap.plan("t")) == [{"id": 1, "a": 2, "b": "y"}]
