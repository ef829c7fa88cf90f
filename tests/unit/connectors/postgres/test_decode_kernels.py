"""Column kernels against Python's own arithmetic, for inputs that a server would rarely send."""

import struct
from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.connectors.postgres.arrow_types import Kind, ValueType
from tailrace.connectors.postgres.cells import BINARY, TEXT, BadCell, Cells, Reason
from tailrace.connectors.postgres.decode import Array, decode_column

_NO_DEADLINE = settings(deadline=None)  # the first call may compile
_NUMERIC = ValueType(Kind.NUMERIC_TEXT, pa.string())


def cells(values: list[bytes | None], wire_format: int) -> Cells:
    length = np.array([-1 if value is None else len(value) for value in values], np.int32)
    start = np.concatenate([[7], 7 + np.cumsum(np.maximum(length, 0))[:-1]]).astype(np.int64)
    data = np.frombuffer(b"padding" + b"".join(value or b"" for value in values), np.uint8)
    return Cells(data, start, length, wire_format, bool((length < 0).any()))


def decode(values: list[bytes | None], value: ValueType, wire_format: int) -> Array:
    array = decode_column(cells(values, wire_format), value)
    array.validate(full=True)
    return array


def numeric_send(text: str) -> bytes:
    """The binary form of a finite number, built as numeric.c stores it: no leading or trailing zero digits."""
    sign, whole = (0x4000, text[1:]) if text.startswith("-") else (0, text)
    head, _, tail = whole.partition(".")
    head = head.rjust(-(-len(head) // 4) * 4, "0")
    padded = tail.ljust(-(-len(tail) // 4) * 4, "0")
    digits = [int((head + padded)[at : at + 4]) for at in range(0, len(head + padded), 4)]
    weight = len(head) // 4 - 1
    while digits and digits[0] == 0:
        digits, weight = digits[1:], weight - 1
    while digits and digits[-1] == 0:
        digits = digits[:-1]
    if not digits:
        weight, sign = 0, 0
    return struct.pack(f">HhHH{len(digits)}H", len(digits), weight, sign, len(tail), *digits)


def sent(texts: list[str | None]) -> list[bytes | None]:
    return [None if text is None else numeric_send(text) for text in texts]


@st.composite
def _fitting(draw: st.DrawFn) -> tuple[int, int, list[str | None]]:
    precision = draw(st.integers(1, 38))
    scale = draw(st.integers(0, precision))
    numbers = st.integers(-(10**precision) + 1, 10**precision - 1)
    return precision, scale, draw(st.lists(st.none() | numbers.map(lambda n: plain(n, scale)), min_size=1))


def plain(unscaled: int, scale: int) -> str:
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    text = digits[: len(digits) - scale] + ("." + digits[len(digits) - scale :] if scale else "")
    return "-" + text if unscaled < 0 else text


@given(_fitting())
@_NO_DEADLINE
def test_a_numeric_that_fits_its_decimal_is_exact_in_both_formats(
    given_: tuple[int, int, list[str | None]],
) -> None:
    precision, scale, texts = given_
    value = ValueType(Kind.DECIMAL, pa.decimal128(precision, scale))
    with localcontext(prec=80):
        expected = [None if text is None else Decimal(text) for text in texts]
    assert decode(sent(texts), value, BINARY).to_pylist() == expected
    assert (
        decode([None if text is None else text.encode() for text in texts], value, TEXT).to_pylist()
        == expected
    )


@given(_fitting())
@_NO_DEADLINE
def test_a_numeric_prints_as_it_was_written(given_: tuple[int, int, list[str | None]]) -> None:
    _, _, texts = given_
    assert decode(sent(texts), _NUMERIC, BINARY).to_pylist() == texts


@given(st.integers(1, 38), st.data())
@_NO_DEADLINE
def test_a_numeric_that_does_not_fit_is_refused_not_cut(precision: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, precision))
    value = ValueType(Kind.DECIMAL, pa.decimal128(precision, scale))
    too_large = st.integers(10**precision, 10 ** (precision + 20)).map(lambda n: plain(n, scale))
    too_fine = st.integers(1, 10**precision).filter(lambda n: n % 10).map(lambda n: plain(n, scale + 1))
    text = data.draw(too_large | too_fine)
    for form, wire_format in ((numeric_send(text), BINARY), (text.encode(), TEXT)):
        with pytest.raises(BadCell) as caught:
            decode([None, form], value, wire_format)
        assert (caught.value.row, caught.value.reason) == (1, Reason.TOO_MANY_DIGITS)


_SIZED = [
    ValueType(Kind.BOOL, pa.bool_()),
    ValueType(Kind.INT2, pa.int16()),
    ValueType(Kind.INT4, pa.int32()),
    ValueType(Kind.INT8, pa.int64()),
    ValueType(Kind.FLOAT4, pa.float32()),
    ValueType(Kind.FLOAT8, pa.float64()),
    ValueType(Kind.DECIMAL, pa.decimal128(10, 2)),
    _NUMERIC,
    ValueType(Kind.DATE, pa.date32()),
    ValueType(Kind.TIME, pa.time64("us")),
    ValueType(Kind.TIMESTAMP, pa.timestamp("us")),
    ValueType(Kind.UUID, pa.string()),
    ValueType(Kind.ARRAY, pa.list_(pa.field("element", pa.int32())), True, ValueType(Kind.INT4, pa.int32())),
]


@pytest.mark.parametrize("value", _SIZED, ids=lambda value: value.kind.value)
def test_a_value_of_the_wrong_size_is_refused(value: ValueType) -> None:
    with pytest.raises(BadCell) as caught:
        decode([None, b"\0\0\0\1\0\0\0\0\0\0\0\0\0"], value, BINARY)
    assert (caught.value.row, caught.value.reason) == (1, Reason.MALFORMED)


_READ_AS_TEXT = [value for value in _SIZED if value.kind not in (Kind.NUMERIC_TEXT, Kind.UUID)]
_READ_AS_TEXT += [ValueType(Kind.BYTEA, pa.binary())]


@pytest.mark.parametrize("value", _READ_AS_TEXT, ids=lambda value: value.kind.value)
@pytest.mark.parametrize("text", [b"", b"-", b"1-", b"2020-1", b"\\x0", b"{", b"1:2", b" "])
def test_text_that_is_no_value_is_refused(value: ValueType, text: bytes) -> None:
    with pytest.raises(BadCell):
        decode([None, text], value, TEXT)


_BYTES = ValueType(Kind.TEXT, pa.binary())
_ARRAY_OF_BYTES = ValueType(Kind.ARRAY, pa.list_(pa.field("element", pa.binary())), True, _BYTES)


@given(st.lists(st.none() | st.binary(max_size=30), min_size=1, max_size=5), st.sampled_from([BINARY, TEXT]))
@_NO_DEADLINE
def test_whatever_bytes_an_array_has_it_is_refused_or_keeps_its_nulls(
    values: list[bytes | None], wire_format: int
) -> None:
    if wire_format == TEXT:
        values = [value if value is None else b"{" + value + b"}" for value in values]
    try:
        found = decode(values, _ARRAY_OF_BYTES, wire_format)
    except BadCell as bad:
        assert values[bad.row] is not None
    else:
        assert [item is None for item in found.to_pylist()] == [value is None for value in values]
