"""Binary COPY on hand-made bytes: cut anywhere, broken off, and of another shape than planned."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.changes import TableId, TailraceError
from tailrace.connectors.postgres.config import TableOptions
from tailrace.connectors.postgres.copy_binary import CopyDecoder
from tailrace.connectors.postgres.relation import Relation, RelationColumn
from tailrace.connectors.postgres.type_plan import plan_relation

_COLUMNS = (RelationColumn("id", 23, -1, True), RelationColumn("v", 25, -1, False))
PLAN = plan_relation(Relation(1, TableId("public", "t"), "d", _COLUMNS), [], {}, TableOptions())
HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)

Row = tuple[int | None, str | None]


def tuple_of(row: Row) -> bytes:
    fields = [
        None if row[0] is None else struct.pack(">i", row[0]),
        None if row[1] is None else row[1].encode(),
    ]
    packed = struct.pack(">h", len(fields))
    for field in fields:
        packed += struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field
    return packed


def read(decoder: CopyDecoder, *blocks: bytes) -> list[Row]:
    found = [row for block in blocks for batch in decoder.feed(block) for row in batch.to_pylist()]
    return [(row["id"], row["v"]) for row in found]


_ROWS = st.lists(
    st.tuples(
        st.integers(-(2**31), 2**31 - 1), st.none() | st.text(st.characters(codec="utf-8"), max_size=9)
    ),
    max_size=8,
)


@given(_ROWS, st.lists(st.floats(0, 1), max_size=8))
@settings(deadline=None)  # the first call may compile
def test_rows_are_found_once_wherever_the_bytes_are_cut(sent: list[Row], shares: list[float]) -> None:
    whole = HEADER + b"".join(map(tuple_of, sent)) + TRAILER
    cuts = [0, *sorted(int(share * len(whole)) for share in shares), len(whole)]
    decoder = CopyDecoder(PLAN)
    assert read(decoder, *(whole[a:b] for a, b in pairwise(cuts))) == sent
    decoder.finish()


def test_a_header_extension_is_skipped() -> None:
    header = HEADER[:-4] + struct.pack(">i", 5) + b"extra"
    assert read(CopyDecoder(PLAN), header[:-2], header[-2:] + tuple_of((1, "x")) + TRAILER) == [(1, "x")]


def test_a_null_in_a_not_null_column_relaxes_the_plan() -> None:
    decoder = CopyDecoder(PLAN)
    assert not decoder.plan.schema.arrow.field("id").nullable
    assert read(decoder, HEADER + tuple_of((None, "x")) + TRAILER) == [(None, "x")]
    assert decoder.plan.schema.arrow.field("id").nullable


WHOLE = HEADER + tuple_of((1, "x")) + TRAILER


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_a_copy_that_broke_off_anywhere_is_refused(cut: int) -> None:
    decoder = CopyDecoder(PLAN)
    read(decoder, WHOLE[:cut])
    with pytest.raises(TailraceError, match=r"COPY of public\.t broke off"):
        decoder.finish()


@pytest.mark.parametrize(
    "wrong",
    [
        HEADER + struct.pack(">hi", 1, -1) + TRAILER,
        HEADER + struct.pack(">hii", 2, -1, -2) + TRAILER,
        WHOLE + b"more",
        b"1\tx\n2\ty\n",
    ],
)
def test_bytes_of_another_shape_are_refused(wrong: bytes) -> None:
    with pytest.raises(TailraceError, match="COPY"):
        read(CopyDecoder(PLAN), wrong)
