"""What a change is: operations, keys, TOAST, identities, truncation, DDL, order and positions, from real Postgres."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.connectors.tap import Tap, batches, feed, rows

from tailrace.changes import ChangeBatch, TableId, Truncate, parse_lsn

pytestmark = pytest.mark.postgres

BIG = "SELECT string_agg(md5((i * {salt})::text), '') FROM generate_series(1, 400) i"
"""Text that does not compress below the TOAST threshold."""


@pytest.fixture
def tap(postgres: str) -> Iterator[Tap]:
    with Tap(postgres) as opened:
        yield opened


def big(tap: Tap, salt: int) -> str:
    row = tap.sql.execute(BIG.format(salt=salt).encode()).fetchone()
    assert row is not None
    return str(row[0])


def run(tap: Tap, *statements: str) -> None:
    """One transaction."""
    with tap.sql.transaction():
        for statement in statements:
            tap.sql.execute(statement.encode())


@pytest.mark.parametrize("binary", [True, False])
def test_insert_update_and_delete_are_c_u_and_d_in_order(tap: Tap, tmp_path: Path, binary: bool) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL)")
    run(tap, "INSERT INTO t VALUES (1, 'a'), (2, 'b')", "UPDATE t SET v = 'c' WHERE id = 1")
    run(tap, "DELETE FROM t WHERE id = 2")
    sets = tap.decode(tmp_path, binary=binary)
    assert rows(sets) == [
        ("c", {"id": 1, "v": "a"}),
        ("c", {"id": 2, "v": "b"}),
        ("u", {"id": 1, "v": "c"}),
        ("d", {"id": 2, "v": None}),
    ]
    (batch,) = batches(sets)
    assert batch.seq.tolist() == [0, 1, 2, 0]
    assert not batch.table.arrow.field("id").nullable
    assert batch.table.arrow.field("v").nullable  # it may be TOASTed
    assert batch.table.key == ("id",)


def test_the_lsn_of_a_row_is_the_end_of_its_transaction_and_grows(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    ends = []
    for number in range(3):
        run(tap, f"INSERT INTO t VALUES ({number})")
        row = tap.sql.execute("SELECT pg_current_wal_insert_lsn()::text, txid_current()").fetchone()
        assert row is not None
        ends.append(parse_lsn(row[0]))
    sets = tap.decode(tmp_path)
    (batch,) = batches(sets)
    assert len(set(batch.lsn.tolist())) == len(set(batch.xid.tolist())) == 3
    for lsn, end, after in zip(batch.lsn.tolist(), ends, [*ends[1:], 1 << 62], strict=True):
        assert lsn <= end < after
    assert sorted(batch.timestamp.tolist()) == batch.timestamp.tolist()
    assert sets[-1].position is not None
    assert sets[-1].position > batch.lsn.max()
    known = tap.sql.execute("SELECT extract(epoch FROM now())::float8").fetchone()
    assert known is not None
    assert abs(int(batch.timestamp[-1]) / 1e6 - known[0]) < 60


def test_transactions_at_or_before_the_durable_position_are_dropped_whole(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    for number in range(4):
        run(tap, f"INSERT INTO t VALUES ({2 * number}), ({2 * number + 1})")
    received = tap.frames()
    (batch,) = batches(feed(tap.decoder(tmp_path), received))
    durable = int(batch.lsn[3])
    again = feed(tap.decoder(tmp_path, skip_through=durable), received)
    assert [row["id"] for _, row in rows(again)] == [4, 5, 6, 7]
    assert not feed(tap.decoder(tmp_path, skip_through=1 << 62), received)


def test_a_key_change_is_a_delete_of_the_old_key_and_a_create(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (a int, v text, b text, PRIMARY KEY (b, a))")
    run(tap, "INSERT INTO t VALUES (1, 'x', 'k')", "UPDATE t SET b = 'm', v = 'y'", "UPDATE t SET v = 'z'")
    sets = tap.decode(tmp_path)
    assert rows(sets) == [
        ("c", {"a": 1, "v": "x", "b": "k"}),
        ("d", {"a": 1, "v": None, "b": "k"}),
        ("c", {"a": 1, "v": "y", "b": "m"}),
        ("u", {"a": 1, "v": "z", "b": "m"}),
    ]
    (batch,) = batches(sets)
    assert batch.seq.tolist() == [0, 1, 2, 3]
    assert batch.prior_key is None


def test_an_unchanged_toasted_value_is_named_and_never_taken_for_null(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, a text, n int, b text)")
    run(tap, f"INSERT INTO t SELECT 1, ({BIG.format(salt=1)}), 0, ({BIG.format(salt=2)})")
    run(tap, "UPDATE t SET n = 1", "UPDATE t SET a = NULL", "UPDATE t SET b = 'short'")
    (batch,) = batches(tap.decode(tmp_path))
    sets = [batch.unchanged_sets[k] if k >= 0 else () for k in batch.unchanged.tolist()]
    assert sets == [(), ("a", "b"), ("b",), ()]
    assert [(row["a"], row["n"], row["b"]) for row in batch.rows.to_pylist()[1:]] == [
        (None, 1, None),
        (None, 1, None),
        (None, 1, "short"),
    ]


def test_with_identity_full_the_old_value_fills_an_unchanged_cell(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, a text, n int)")
    tap.sql.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    run(
        tap, f"INSERT INTO t SELECT 1, ({BIG.format(salt=1)}), 0", "UPDATE t SET n = 1", "UPDATE t SET id = 2"
    )
    run(tap, "DELETE FROM t")
    sets = tap.decode(tmp_path)
    value = big(tap, 1)
    assert rows(sets) == [
        ("c", {"id": 1, "a": value, "n": 0}),
        ("u", {"id": 1, "a": value, "n": 1}),
        ("d", {"id": 1, "a": None, "n": None}),
        ("c", {"id": 2, "a": value, "n": 1}),
        ("d", {"id": 2, "a": None, "n": None}),
    ]
    assert batches(sets)[0].unchanged.tolist() == [-1] * 5


def test_a_key_change_with_an_unchanged_cell_carries_the_prior_key(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (a int, big text, b text, PRIMARY KEY (b, a))")
    run(
        tap,
        f"INSERT INTO t SELECT 1, ({BIG.format(salt=1)}), 'k'",
        "UPDATE t SET a = 7",
        "INSERT INTO t VALUES (2, '', 'z')",
    )
    (batch,) = batches(tap.decode(tmp_path))
    assert bytes(batch.op) == b"cdcc"
    assert batch.unchanged.tolist() == [-1, -1, 0, -1]
    assert batch.unchanged_sets == (("big",),)
    assert batch.prior_key is not None
    assert batch.prior_key.to_pylist() == [
        {"b": None, "a": None},
        {"b": None, "a": None},
        {"b": "k", "a": 1},
        {"b": None, "a": None},
    ]


def test_a_toasted_key_that_did_not_change_is_taken_from_the_old_key(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (k text PRIMARY KEY, n int)")
    tap.sql.execute("ALTER TABLE t ALTER k SET STORAGE EXTERNAL")
    key = big(tap, 1)[:2500]
    tap.sql.execute("INSERT INTO t VALUES (%s, 0)", (key,))
    run(tap, "UPDATE t SET n = 1", "DELETE FROM t")
    sets = tap.decode(tmp_path)
    assert rows(sets) == [("c", {"k": key, "n": 0}), ("u", {"k": key, "n": 1}), ("d", {"k": key, "n": None})]


def test_the_identity_index_is_the_key(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE)")
    tap.sql.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key")
    run(
        tap,
        "INSERT INTO t VALUES (1, 'x')",
        "UPDATE t SET id = 2",
        "UPDATE t SET code = 'y'",
        "DELETE FROM t",
    )
    sets = tap.decode(tmp_path)
    assert batches(sets)[0].table.key == ("code",)
    assert tap.plan("t").schema.key == ("code",)
    assert rows(sets) == [
        ("c", {"id": 1, "code": "x"}),
        ("u", {"id": 2, "code": "x"}),
        ("d", {"id": None, "code": "x"}),
        ("c", {"id": 2, "code": "y"}),
        ("d", {"id": None, "code": "y"}),
    ]


def test_a_table_without_a_key_has_no_key_columns_and_full_deletes(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (a int, b text)")
    tap.sql.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    run(tap, "INSERT INTO t VALUES (1, 'x')", "UPDATE t SET a = 2", "DELETE FROM t")
    sets = tap.decode(tmp_path)
    assert batches(sets)[0].table.key == ()
    assert rows(sets) == [("c", {"a": 1, "b": "x"}), ("u", {"a": 2, "b": "x"}), ("d", {"a": 2, "b": "x"})]


def test_an_identity_changed_in_mid_stream_is_obeyed_from_there(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    run(tap, f"INSERT INTO t SELECT 1, ({BIG.format(salt=1)})", "UPDATE t SET id = 2")
    tap.sql.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    run(tap, "UPDATE t SET id = 3")
    found = batches(tap.decode(tmp_path))
    assert [bytes(batch.op) for batch in found] == [b"cdc", b"dc"]
    assert found[0].unchanged.tolist() == [-1, -1, 0]
    assert found[1].unchanged.tolist() == [-1, -1]


def test_truncate_stands_at_its_place_between_batches(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE p (id int PRIMARY KEY)")
    tap.sql.execute("CREATE TABLE q (id int PRIMARY KEY, p int REFERENCES p)")
    run(
        tap,
        "INSERT INTO p VALUES (1)",
        "INSERT INTO q VALUES (1, 1)",
        "TRUNCATE p CASCADE",
        "INSERT INTO p VALUES (2)",
    )
    sets = tap.decode(tmp_path)
    changes = [change for one in sets for change in one.changes]
    kinds = [type(change) for change in changes]
    assert kinds == [ChangeBatch, ChangeBatch, Truncate, ChangeBatch]
    truncate, last = changes[2], changes[3]
    assert isinstance(truncate, Truncate)
    assert isinstance(last, ChangeBatch)
    assert set(truncate.tables) == {TableId("public", "p"), TableId("public", "q")}
    assert truncate.seq == 2
    assert last.seq.tolist() == [3]
    assert (truncate.lsn, truncate.timestamp) == (int(last.lsn[0]), int(last.timestamp[0]))


def test_rows_carry_the_schema_in_force_at_their_place(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, a int)")
    run(
        tap,
        "INSERT INTO t VALUES (1, 1)",
        "ALTER TABLE t ADD COLUMN b numeric(6,2) NOT NULL DEFAULT 7",
        "INSERT INTO t VALUES (2, 2, 2.5)",
        "ALTER TABLE t DROP COLUMN a",
        "INSERT INTO t VALUES (3, 3)",
        "ALTER TABLE t RENAME COLUMN b TO c",
        "INSERT INTO t VALUES (4, 4)",
    )
    run(tap, "ALTER TABLE t ALTER c TYPE int8", "INSERT INTO t VALUES (5, 5)")
    tap.sql.execute("DROP TABLE t")
    found = batches(tap.decode(tmp_path))
    shapes = [[(field.name, str(field.type)) for field in batch.table.arrow] for batch in found]
    assert shapes == [
        [("id", "int32"), ("a", "int32")],
        [("id", "int32"), ("a", "int32"), ("b", "decimal128(6, 2)")],
        [("id", "int32"), ("b", "decimal128(6, 2)")],
        [("id", "int32"), ("c", "decimal128(6, 2)")],
        [("id", "int32"), ("c", "int64")],
    ]
    assert [batch.rows.column(0).to_pylist() for batch in found] == [[1], [2], [3], [4], [5]]
    assert [batch.table.arrow.field(1).metadata for batch in found] == [
        {b"pg_type": name} for name in (b"integer", b"integer", b"numeric(6,2)", b"numeric(6,2)", b"bigint")
    ]
    assert {batch.table.key for batch in found} == {("id",)}


def test_a_null_from_before_a_not_null_constraint_relaxes_the_schema(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, a int)")
    run(tap, "INSERT INTO t VALUES (1, NULL), (2, 2)")
    run(tap, "UPDATE t SET a = 0 WHERE a IS NULL")
    tap.sql.execute("ALTER TABLE t ALTER a SET NOT NULL")
    run(tap, "INSERT INTO t VALUES (3, 3)")
    assert not tap.plan("t").schema.arrow.field("a").nullable
    sets = tap.decode(tmp_path)
    assert [row["a"] for _, row in rows(sets)] == [None, 2, 0, 3]
    assert {batch.table.arrow.field("a").nullable for batch in batches(sets)} == {True}


def test_a_deleted_row_does_not_relax_a_not_null_column(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL)")
    run(tap, "INSERT INTO t VALUES (1, 1)", "DELETE FROM t")
    (batch,) = batches(tap.decode(tmp_path))
    assert bytes(batch.op) == b"cd"
    assert not batch.table.arrow.field("a").nullable


def test_generated_columns_are_in_neither_snapshot_nor_stream(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED, v text)")
    run(tap, "INSERT INTO t (id, v) VALUES (1, 'x')")
    assert [row for _, row in rows(tap.decode(tmp_path))] == tap.copy(tap.plan("t")) == [{"id": 1, "v": "x"}]


def test_rows_of_a_table_that_is_not_ours_are_left_out_but_counted(tap: Tap, tmp_path: Path) -> None:
    tap.sql.execute("CREATE TABLE ours (id int PRIMARY KEY)")
    tap.sql.execute("CREATE TABLE other (id int PRIMARY KEY)")
    run(
        tap,
        "INSERT INTO ours VALUES (1)",
        "INSERT INTO other VALUES (1)",
        "TRUNCATE other",
        "INSERT INTO ours VALUES (2)",
    )
    assert len(batches(tap.decode(tmp_path))) == 3
    only = tap.decoder(tmp_path, only="ours")
    found = batches(sets := feed(only, tap.frames()))
    assert [batch.seq.tolist() for batch in found] == [[0], [3]]
    assert not any(isinstance(change, Truncate) for one in sets for change in one.changes)


def test_an_empty_set_moves_the_position_where_nothing_is_ours(tap: Tap, tmp_path: Path) -> None:
    sets = tap.decode(tmp_path)
    assert [one.changes for one in sets] == [()]
    assert sets[0].position is not None
