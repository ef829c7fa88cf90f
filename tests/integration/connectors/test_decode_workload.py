"""Random workloads over two tables: however the stream comes and is cut, its changes add up to the tables."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.connectors.tap import Connection, Tap, feed, rows

from tailrace.changes import ChangeSet, Truncate

pytestmark = pytest.mark.postgres

_PROPERTY = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

_KEYS = st.integers(1, 6)
_INSERT = st.builds(
    "INSERT INTO t VALUES ({0}, 1, '') ON CONFLICT (id) DO UPDATE SET n = t.n + 1".format, _KEYS
)
_STATEMENTS = st.one_of(
    _INSERT,
    st.builds("INSERT INTO s VALUES ({0}, 'ü') ON CONFLICT DO NOTHING".format, _KEYS),
    st.builds("UPDATE t SET n = n + 1 WHERE id = {0}".format, _KEYS),
    st.builds("UPDATE t SET big = repeat('{0}', 3000) WHERE id > {0}".format, _KEYS),
    st.builds(
        "UPDATE t SET id = id + 100 WHERE id = {0} AND id + 100 NOT IN (SELECT id FROM t)".format, _KEYS
    ),
    st.builds("DELETE FROM t WHERE id = {0}".format, _KEYS),
    st.builds("DELETE FROM s WHERE id = {0}".format, _KEYS),
    st.sampled_from(["TRUNCATE s", "SAVEPOINT a", "ROLLBACK TO a"]),
)
_TRANSACTIONS = st.lists(st.lists(_STATEMENTS, min_size=1, max_size=8), min_size=1, max_size=6)

_SHARES = st.lists(st.floats(0, 1), max_size=12)
"""Where the received bytes are cut, as shares of them all."""

# Sessions that write at the same time: who acts, and what he does.  Each writes rows of his own, so none waits.
_SESSIONS = 3
_ACTS = st.lists(
    st.tuples(
        st.integers(0, _SESSIONS - 1),
        st.sampled_from(
            ["insert", "update", "delete", "rekey", "savepoint", "rollback to", "commit", "rollback"]
        ),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=40,
)


@pytest.fixture
def tap(postgres: str) -> Iterator[Tap]:
    with Tap(postgres) as opened:
        yield opened


def begin(tap: Tap) -> None:
    """Empty tables, and a slot that knows nothing of what was."""
    tap.sql.execute("DROP TABLE IF EXISTS t, s")
    tap.advance()
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, n int, big text)")
    tap.sql.execute("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    tap.sql.execute("CREATE TABLE s (id int PRIMARY KEY, v text)")


def tables_now(tap: Tap) -> dict[str, dict[int, dict[str, Any]]]:
    return {
        name: {
            row[0]: dict(zip(columns, row, strict=True))
            for row in tap.sql.execute(f"SELECT * FROM {name}".encode())
        }
        for name, columns in (("t", ("id", "n", "big")), ("s", ("id", "v")))
    }


def replayed(sets: Sequence[ChangeSet]) -> dict[str, dict[int, dict[str, Any]]]:
    """The tables that the changes add up to, as a mirror applies them."""
    tables: dict[str, dict[int, dict[str, Any]]] = {"t": {}, "s": {}}
    gone: dict[int, dict[str, Any]] = {}
    for change in (change for one in sets for change in one.changes):
        if isinstance(change, Truncate):
            for table in change.tables:
                tables[table.name].clear()
            continue
        mirror = tables[change.table.id.name]
        prior = change.prior_key.to_pylist() if change.prior_key else [{"id": None}] * len(change)
        for index, row in enumerate(change.rows.to_pylist()):
            if change.op[index] == ord("d"):
                gone[row["id"]] = mirror.pop(row["id"])
                continue
            if change.unchanged[index] >= 0:
                before = prior[index]["id"]
                old = mirror[row["id"]] if before is None else gone[before]
                row |= {name: old[name] for name in change.unchanged_sets[change.unchanged[index]]}
            mirror[row["id"]] = row
    return tables


def numbered(sets: Sequence[ChangeSet]) -> list[tuple[int, int, str, str]]:
    """(lsn, seq, table, operation) of every change, by place in the stream."""
    found: list[tuple[int, int, str, str]] = []
    for change in (change for one in sets for change in one.changes):
        if isinstance(change, Truncate):
            found.append((change.lsn, change.seq, "", "truncate"))
            continue
        for lsn, seq, op in zip(change.lsn.tolist(), change.seq.tolist(), change.op.tolist(), strict=True):
            found.append((lsn, seq, change.table.id.name, chr(op)))
    return sorted(found)


def is_in_order(sets: Sequence[ChangeSet]) -> bool:
    """Each table's changes ascend by (lsn, seq), and no set reaches beyond its position."""
    last: dict[object, tuple[int, int]] = {}
    for one in sets:
        for change in one.changes:
            if isinstance(change, Truncate):
                continue
            for place in zip(change.lsn.tolist(), change.seq.tolist(), strict=True):
                if place <= last.get(change.table.id, (0, -1)) or place[0] > (one.position or 1 << 62):
                    return False
                last[change.table.id] = place
    return True


@given(transactions=_TRANSACTIONS, shares=_SHARES)
@_PROPERTY
def test_changes_add_up_to_the_tables_wherever_the_bytes_are_cut(
    tap: Tap, tmp_path: Path, transactions: list[list[str]], shares: list[float]
) -> None:
    begin(tap)
    for statements in transactions:
        with tap.sql.transaction():
            tap.sql.execute("SAVEPOINT a")
            for statement in statements:
                tap.sql.execute(statement.encode())
    received = tap.frames()
    whole = feed(tap.decoder(tmp_path), received)
    cuts = [int(share * len(received)) for share in shares]
    torn = feed(tap.decoder(tmp_path, memory_limit=0), received, cuts)
    pieces = feed(tap.decoder(tmp_path, piece_bytes=300), received, cuts)
    expected = tables_now(tap)
    for sets in (whole, torn, pieces):
        assert replayed(sets) == expected
        assert numbered(sets) == numbered(whole)
        assert is_in_order(sets)


def act(session: Connection, number: int, what: str, key: int) -> None:
    """One statement of a session, on rows that only it writes."""
    row = 10 * number + key
    statements = {
        "insert": f"INSERT INTO t VALUES ({row}, 0, repeat('{key}', 3000)) ON CONFLICT DO NOTHING",
        "update": f"UPDATE t SET n = n + 1 WHERE id % 100 / 10 = {number}",
        "delete": f"DELETE FROM t WHERE id % 100 = {row}",
        "rekey": f"UPDATE t SET id = id + 100 WHERE id = {row} AND {row} + 100 NOT IN (SELECT id FROM t)",
        "savepoint": "SAVEPOINT s",
        "rollback to": "ROLLBACK TO s",
        "commit": "COMMIT; BEGIN; SAVEPOINT s",
        "rollback": "ROLLBACK; BEGIN; SAVEPOINT s",
    }
    session.execute(statements[what].encode())


@given(acts=_ACTS, shares=_SHARES, memory_limit=st.sampled_from([0, 5000, 1 << 20]))
@_PROPERTY
def test_interleaved_streamed_transactions_give_what_the_plain_stream_gives(
    tap: Tap, tmp_path: Path, acts: list[tuple[int, str, int]], shares: list[float], memory_limit: int
) -> None:
    begin(tap)
    sessions = [psycopg.connect(tap.dsn, autocommit=True) for _ in range(_SESSIONS)]
    with tap.receiving(streaming=True) as receiver:
        try:
            for session in sessions:
                session.execute("BEGIN; SAVEPOINT s")
            for number, what, key in acts:
                if what.startswith("rollback"):
                    receiver.catch_up()
                act(sessions[number], number, what, key)
        finally:
            for session in sessions[1:]:
                session.execute("COMMIT")
                session.close()
            sessions[0].execute("ROLLBACK")
            sessions[0].close()
        received = receiver.finish()
    plain = tap.decode(tmp_path)
    cuts = [int(share * len(received)) for share in shares]
    decoder = tap.decoder(tmp_path, memory_limit=memory_limit)
    streamed = feed(decoder, received, cuts)
    pieces = feed(tap.decoder(tmp_path, piece_bytes=300), received, cuts)
    for sets in (plain, streamed, pieces):
        assert replayed(sets) == tables_now(tap)
        assert numbered(sets) == numbered(plain)
        assert is_in_order(sets)
    assert decoder.open_streamed == decoder.spooled_bytes == 0


def test_rolled_back_subtransactions_of_a_streamed_transaction_leave_nothing(
    tap: Tap, tmp_path: Path
) -> None:
    begin(tap)
    with tap.receiving(streaming=True) as receiver, psycopg.connect(tap.dsn) as writer:
        for number in range(50):
            writer.execute("SAVEPOINT a")
            writer.execute("INSERT INTO s VALUES (%s, 'kept')", (2 * number,))
            writer.execute("SAVEPOINT b")
            writer.execute("INSERT INTO s VALUES (%s, 'gone')", (2 * number + 1,))
            receiver.catch_up()
            writer.execute("ROLLBACK TO b")
        writer.commit()
        received = receiver.finish()
    assert received.count(b"gone") == 50
    sets = feed(tap.decoder(tmp_path), received)
    assert [row["id"] for _, row in rows(sets)] == list(range(0, 100, 2))
    assert numbered(sets) == [(numbered(sets)[0][0], seq, "s", "c") for seq in range(50)]


def test_ddl_of_a_rolled_back_subtransaction_does_not_reach_its_siblings(tap: Tap, tmp_path: Path) -> None:
    begin(tap)
    with tap.receiving(streaming=True) as receiver, psycopg.connect(tap.dsn) as writer:
        writer.execute("INSERT INTO s VALUES (1, 'a')")
        writer.execute("SAVEPOINT a")
        writer.execute("ALTER TABLE s ADD COLUMN w int")
        writer.execute("INSERT INTO s VALUES (2, 'b', 2)")
        receiver.catch_up()
        writer.execute("ROLLBACK TO a")
        writer.execute("INSERT INTO s VALUES (3, 'c')")
        receiver.catch_up()
        writer.execute("ALTER TABLE s ADD COLUMN x int")
        writer.execute("INSERT INTO s VALUES (4, 'd', 4)")
        receiver.catch_up()
        writer.commit()
        streamed = receiver.finish()
    for received in (streamed, tap.frames()):
        assert rows(feed(tap.decoder(tmp_path), received)) == [
            ("c", {"id": 1, "v": "a"}),
            ("c", {"id": 3, "v": "c"}),
            ("c", {"id": 4, "v": "d", "x": 4}),
        ]


def test_a_large_transaction_comes_in_pieces_and_only_the_last_has_a_position(
    tap: Tap, tmp_path: Path
) -> None:
    begin(tap)
    tap.sql.execute("INSERT INTO t SELECT i, i, md5(i::text) FROM generate_series(1, 5000) i")
    for streaming in (False, True):
        received = tap.frames(streaming=streaming)
        cuts = range(0, len(received), 10_000)
        decoder = tap.decoder(tmp_path, memory_limit=50_000, piece_bytes=100_000)
        sets = feed(decoder, received, cuts)
        ours = [one for one in sets if one.changes]
        assert len(ours) > 3
        assert [one.position is None for one in ours] == [True] * (len(ours) - 1) + [False]
        assert [row["id"] for _, row in rows(sets)] == list(range(1, 5001))
        assert [place[1] for place in numbered(sets)] == list(range(5000))
        assert {place[0] for place in numbered(sets)} == {ours[-1].position}
