"""The decoder on hand-made messages: what a healthy server never sends, and what a full disk does."""

import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.integration.connectors.tap import batches, rows

from tailrace.changes import ChangeSet, SourceDataError, TableId, TailraceError
from tailrace.connectors.postgres import decode
from tailrace.connectors.postgres.config import TableOptions
from tailrace.connectors.postgres.relation import Relation, RelationColumn, parse_relation
from tailrace.connectors.postgres.stream_decoder import StreamDecoder
from tailrace.connectors.postgres.type_plan import TablePlan, plan_relation

_OID = 16384
_INT4, _TEXT = 23, 25
_TABLE = TableId("public", "t")
_COLUMNS = (RelationColumn("id", _INT4, -1, True), RelationColumn("v", _TEXT, -1, False))


def begin(xid: int = 1) -> bytes:
    return struct.pack(">cqqI", b"B", 0, 0, xid)


def commit(lsn: int) -> bytes:
    return struct.pack(">cBqqq", b"C", 0, lsn - 1, lsn, 0)


def relation(*, streamed_by: int | None = None) -> bytes:
    head = b"R" if streamed_by is None else struct.pack(">cI", b"R", streamed_by)
    message = head + struct.pack(">I", _OID) + b"public\0t\0d" + struct.pack(">h", len(_COLUMNS))
    for column in _COLUMNS:
        message += bytes([column.identity]) + column.name.encode() + struct.pack(">xIi", column.type_oid, -1)
    return message


def cell(form: str, value: bytes) -> bytes:
    return form.encode() + struct.pack(">I", len(value)) + value


def insert(*cells: bytes, oid: int = _OID, streamed_by: int | None = None) -> bytes:
    head = b"I" if streamed_by is None else struct.pack(">cI", b"I", streamed_by)
    return head + struct.pack(">IcH", oid, b"N", len(cells)) + b"".join(cells)


def row(number: int, text: bytes = b"x", streamed_by: int | None = None) -> bytes:
    return insert(cell("b", struct.pack(">i", number)), cell("t", text), streamed_by=streamed_by)


def resolve(found: Relation) -> TablePlan:
    return plan_relation(found, [], {}, TableOptions())


def feed(decoder: StreamDecoder, *messages: bytes) -> list[ChangeSet]:
    ends = np.cumsum([len(message) for message in messages])
    starts = np.concatenate([[0], ends[:-1]])
    return list(decoder.feed(np.frombuffer(b"".join(messages), np.uint8), starts, ends))


@pytest.fixture
def decoder(tmp_path: Path) -> StreamDecoder:
    return StreamDecoder(resolve, tmp_path, binary=True)


def test_a_relation_message_is_parsed_with_and_without_an_xid() -> None:
    expected = Relation(_OID, _TABLE, "d", _COLUMNS)
    assert parse_relation(relation(), streamed=False) == expected
    assert parse_relation(relation(streamed_by=5), streamed=True) == expected


def test_a_column_may_come_as_text_and_as_binary_in_one_block(decoder: StreamDecoder) -> None:
    sets = feed(
        decoder,
        begin(),
        relation(),
        insert(cell("b", struct.pack(">i", -7)), cell("b", b"a")),
        insert(cell("t", b"123"), b"n"),
        insert(cell("b", struct.pack(">i", 9)), cell("t", b"c")),
        commit(10),
    )
    assert [found for _, found in rows(sets)] == [
        {"id": -7, "v": "a"},
        {"id": 123, "v": None},
        {"id": 9, "v": "c"},
    ]


def test_a_block_of_many_small_transactions_is_one_set_of_one_batch(decoder: StreamDecoder) -> None:
    messages = [relation_and for n in range(1, 501) for relation_and in (begin(n), row(n), commit(10 * n))]
    (one,) = feed(decoder, begin(0), relation(), commit(1), *messages)
    (batch,) = batches([one])
    assert batch.xid.tolist() == list(range(1, 501))
    assert batch.lsn.tolist() == list(range(10, 5010, 10))
    assert not batch.seq.any()
    assert one.position == 5000


def test_an_open_transaction_is_held_until_its_commit(decoder: StreamDecoder) -> None:
    assert feed(decoder, begin(), relation(), row(1)) == []
    assert feed(decoder, row(2)) == []
    assert (decoder.in_transaction, decoder.spooled_bytes > 0) == (True, True)
    (one,) = feed(decoder, row(3), commit(10), begin(), row(4), commit(20))
    assert (decoder.in_transaction, decoder.spooled_bytes) == (False, 0)
    assert one.position == 20
    assert [(found["id"]) for _, found in rows([one])] == [1, 2, 3, 4]


def test_a_streamed_block_counts_as_open_only_between_start_and_stop(decoder: StreamDecoder) -> None:
    feed(decoder, struct.pack(">cIB", b"S", 7, 1), relation(streamed_by=7), row(1, streamed_by=7))
    assert (decoder.in_transaction, decoder.open_streamed) == (True, 1)
    feed(decoder, b"E")
    assert (decoder.in_transaction, decoder.open_streamed) == (False, 1)
    (one,) = feed(decoder, struct.pack(">cIBqqq", b"c", 7, 0, 9, 10, 0))
    assert (one.position, decoder.open_streamed) == (10, 0)
    assert batches([one])[0].xid.tolist() == [7]


def test_a_column_beyond_its_offsets_is_split_over_batches(
    decoder: StreamDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32-bit Arrow offsets end at 2 GiB; the limit is lowered here to what a test can hold."""
    monkeypatch.setattr(decode, "_OFFSET_LIMIT", 20)
    sets = feed(decoder, begin(), relation(), *(row(n, b"y" * n) for n in range(1, 21)), commit(10))
    assert len(batches(sets)) > 5
    assert [(found["id"], len(str(found["v"]))) for _, found in rows(sets)] == [(n, n) for n in range(1, 21)]
    assert [n for batch in batches(sets) for n in batch.seq.tolist()] == list(range(20))
    with pytest.raises(SourceDataError, match=r"row of public\.t holds more than 2 GiB .* ends at 0/14"):
        feed(decoder, begin(), row(1, b"y" * 21), commit(20))


BROKEN: dict[str, tuple[bytes, ...]] = {
    "unknown kind": (b"Z" * 40,),
    "prepared transaction": (b"b" + bytes(40),),
    "undeclared relation": (begin(), row(1), commit(10)),
    "too few columns": (begin(), relation(), insert(cell("t", b"1")), commit(10)),
    "tuple cut short": (begin(), relation(), row(1)[:-1], commit(10)),
    "tuple too long": (begin(), relation(), row(1) + b"!", commit(10)),
    "length beyond the message": (
        begin(),
        relation(),
        insert(cell("t", b"1"), b"t\xff\xff\xff\xff"),
        commit(10),
    ),
    "begin cut short": (begin()[:-1],),
}


@pytest.mark.parametrize("messages", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_stream_is_refused(decoder: StreamDecoder, messages: tuple[bytes, ...]) -> None:
    with pytest.raises(TailraceError, match="the replication stream holds"):
        feed(decoder, *messages)


def spill(decoder: StreamDecoder) -> None:
    feed(decoder, begin(), relation(), *(row(n, b"y" * 1000) for n in range(100)))


def test_a_spool_that_has_no_folder_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    decoder = StreamDecoder(resolve, tmp_path / "file" / "spool", binary=True, memory_limit=1000)
    with pytest.raises(
        TailraceError, match=r"cannot be spooled to .*file/spool: Not a directory\. free space"
    ):
        spill(decoder)


def test_a_full_disk_under_the_spool_stops_with_its_reason(
    tmp_path: Path, file_size_limit: Callable[[int], None]
) -> None:
    decoder = StreamDecoder(resolve, tmp_path, binary=True, memory_limit=1000)
    file_size_limit(50_000)
    with pytest.raises(TailraceError, match=r"cannot be spooled to .*: File too large"):
        spill(decoder)


@pytest.fixture
def file_size_limit(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Makes writes beyond so many bytes of a file fail, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def restore() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)

    request.addfinalizer(restore)
    return lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))


def test_the_spools_file_has_no_name_and_goes_with_its_transaction(tmp_path: Path) -> None:
    decoder = StreamDecoder(resolve, tmp_path, binary=True, memory_limit=1000)
    spill(decoder)
    assert list(tmp_path.iterdir()) == []
    assert decoder.spooled_bytes > 100_000
    (one,) = feed(decoder, commit(10))
    assert len(rows([one])) == 100
    assert decoder.spooled_bytes == 0
