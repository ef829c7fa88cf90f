"""What a sink must pass."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tailrace.changes import ConfigError, FencedError, TableSchema, TailraceError, Truncate
from tailrace.sinks.sink import Mode, Sink, TableWriter, Target
from tailrace.sinks.testing.model import EVENTS, ORDERS, ModelSource, plain_batch, with_unchanged
from tailrace.sinks.testing.rows import OFFSETS, Scan, assert_mirrors, comparable, rows_by_key
from tailrace.sinks.testing.types import KEY_COLUMNS, every_type

MakeSink = Callable[[], Sink]
"""Makes a sink of the same place and owner each time, as a newly started process does."""


class SinkContract:
    """What `tailrace.sinks.sink` promises.  Fixtures: make_sink, scan."""

    @pytest.fixture(params=[ORDERS, EVENTS], ids=["integer-key", "composite-key"])
    def source(self, request: pytest.FixtureRequest) -> ModelSource:
        """A source table with an integer key, and one with a composite key."""
        return ModelSource(request.param, seed=7)

    @pytest.fixture
    def writer(self, make_sink: MakeSink, source: ModelSource) -> TableWriter:
        """The mirror of `source`, empty."""
        return self.open(make_sink, source)

    def open(self, make_sink: MakeSink, source: ModelSource, mode: Mode = "mirror") -> TableWriter:
        """Open the table as a newly started process does."""
        return make_sink().open_table(Target("orders", source.table, mode))

    def test_a_new_table_is_empty_and_starts_at_nothing(self, writer: TableWriter, scan: Scan) -> None:
        assert scan(writer.location).num_rows == 0
        assert (dict(writer.checkpoint.offsets), writer.checkpoint.lsn) == ({}, 0)

    def test_the_mirror_equals_the_source_after_every_commit(
        self, make_sink: MakeSink, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        for step in range(25):
            for size in (0, 3, 30)[: 1 + step % 3]:
                writer.stage(source.transaction(size))
            result = writer.commit({("raw", 0): step}, source.lsn)
            assert_mirrors(scan(writer.location), source)
            assert result.rows == len(source.rows)
            writer.upkeep()
            if step % 9 == 8:
                writer.close()
                writer = self.open(make_sink, source)

    def test_nothing_staged_is_visible_before_commit(
        self, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        writer.stage(source.transaction(50))
        assert scan(writer.location).num_rows == 0
        writer.commit(OFFSETS, source.lsn)
        assert_mirrors(scan(writer.location), source)

    def test_reopening_gives_the_offsets_and_lsn_of_the_last_commit(
        self, make_sink: MakeSink, writer: TableWriter, source: ModelSource
    ) -> None:
        writer.stage(source.transaction(5))
        writer.commit(OFFSETS, 4711)
        writer.stage(source.transaction(5))
        again = self.open(make_sink, source).checkpoint
        assert (dict(again.offsets), again.lsn) == (OFFSETS, 4711)

    def test_replaying_after_a_crash_neither_doubles_nor_loses(
        self, make_sink: MakeSink, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        writer.stage(source.transaction(60))
        writer.commit(OFFSETS, source.lsn)
        lost = source.transaction(60)
        writer.stage(lost)
        again = self.open(make_sink, source)
        again.stage(lost)
        again.commit(OFFSETS, source.lsn)
        assert_mirrors(scan(again.location), source)

    def test_an_older_writer_is_fenced(
        self, make_sink: MakeSink, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        writer.stage(source.insert(5))
        newer = self.open(make_sink, source)
        with pytest.raises(FencedError):
            writer.commit(OFFSETS, source.lsn)
        assert scan(newer.location).num_rows == 0
        assert not newer.checkpoint.offsets

    def test_an_empty_commit_moves_lsn_and_offsets(
        self, make_sink: MakeSink, writer: TableWriter, source: ModelSource
    ) -> None:
        writer.stage([])
        writer.commit(OFFSETS, 5)
        writer.commit({}, 6)
        again = self.open(make_sink, source).checkpoint
        assert (dict(again.offsets), again.lsn) == (OFFSETS, 6)

    def test_offsets_and_lsn_never_go_back(self, writer: TableWriter) -> None:
        writer.commit(OFFSETS, 5)
        with pytest.raises(ValueError):
            writer.commit({place: offset - 1 for place, offset in OFFSETS.items()}, 6)
        with pytest.raises(ValueError):
            writer.commit({}, 4)

    def test_truncate_empties_what_came_before_it_and_nothing_after(
        self, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        writer.stage(source.transaction(80))
        writer.commit({}, source.lsn)
        writer.stage(source.transaction(80))
        source.rows.clear()
        writer.truncate(Truncate((source.table.id,), source.lsn + 1, 0, 0))
        writer.stage(source.transaction(80))
        writer.commit({}, source.lsn)
        assert_mirrors(scan(writer.location), source)

    def test_deleting_every_row_leaves_an_empty_table(
        self, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        writer.stage(source.insert(40))
        writer.commit({}, source.lsn)
        writer.stage(source.delete_all())
        writer.commit({}, source.lsn)
        assert scan(writer.location).num_rows == 0

    def test_an_unchanged_cell_without_an_old_row_stops_the_sink(
        self, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        batch = with_unchanged(source.insert(3)[0], ("doc",))
        with pytest.raises(TailraceError, match="doc"):
            writer.stage([batch])
        assert scan(writer.location).num_rows == 0

    def test_a_column_added_at_the_source_appears(
        self, make_sink: MakeSink, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        writer.stage(source.transaction(60))
        writer.commit({}, source.lsn)
        source.add_column(pa.field("extra", pa.int32()))
        writer.stage(source.transaction(60))
        writer.commit({}, source.lsn)
        assert_mirrors(scan(writer.location), source)
        writer = self.open(make_sink, source)
        writer.stage(source.transaction(60))
        writer.commit({}, source.lsn)
        assert_mirrors(scan(writer.location), source)

    def test_a_column_widened_at_the_source_is_widened(
        self, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        source.add_column(pa.field("extra", pa.int16()))
        writer.stage(source.transaction(60))
        writer.commit({}, source.lsn)
        source.widen_column(pa.field("extra", pa.int64()))
        writer.stage(source.transaction(60))
        writer.commit({}, source.lsn)
        assert_mirrors(scan(writer.location), source)

    def test_a_column_dropped_at_the_source_stays_with_nulls(
        self, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        writer.stage(source.insert(30))
        writer.commit({}, source.lsn)
        old = {key: row["note"] for key, row in source.rows.items()}
        source.drop_column("note")
        writer.stage(source.transaction(40))
        writer.commit({}, source.lsn)
        table = scan(writer.location)
        assert_mirrors(table, source)
        for key, row in rows_by_key(table, source.table.key).items():
            assert row["note"] in (None, old.get(key))

    def test_a_column_of_another_type_stops_the_sink(
        self, writer: TableWriter, source: ModelSource, scan: Scan
    ) -> None:
        source.widen_column(pa.field("amount", pa.string()))
        with pytest.raises(TailraceError, match="amount"):
            writer.stage(source.insert(3))
        assert scan(writer.location).num_rows == 0

    def test_every_arrow_type_comes_back_unchanged(self, make_sink: MakeSink, scan: Scan) -> None:
        table, rows = every_type()
        writer = make_sink().open_table(Target("types", table, "mirror"))
        writer.stage([plain_batch(table, rows)])
        writer.commit({}, 1)
        found = rows_by_key(scan(writer.location), table.key)
        expected = rows_by_key(pa.table(rows.to_pydict(), schema=table.arrow), table.key)
        for key, row in expected.items():
            assert {name: comparable(found[key][name]) for name in row} == {
                name: comparable(value) for name, value in row.items()
            }

    @pytest.mark.parametrize("name", KEY_COLUMNS)
    def test_a_key_of_any_type_finds_its_row(self, make_sink: MakeSink, scan: Scan, name: str) -> None:
        table, rows = every_type()
        keyed = TableSchema(table.id, table.arrow, (name,))
        writer = make_sink().open_table(Target("keyed", keyed, "mirror"))
        whole = rows.filter(pc.is_valid(rows.column(name)))
        for _ in range(2):
            writer.stage([plain_batch(keyed, whole)])
            writer.commit({}, 1)
        assert scan(writer.location).num_rows == whole.num_rows

    def test_a_mirror_without_a_key_is_refused(self, make_sink: MakeSink) -> None:
        table = TableSchema(ORDERS.id, ORDERS.arrow, ())
        with pytest.raises(ConfigError, match="key"):
            make_sink().open_table(Target("orders", table, "mirror"))

    def test_a_table_of_another_key_or_mode_is_refused(
        self, make_sink: MakeSink, writer: TableWriter
    ) -> None:
        other = TableSchema(ORDERS.id, ORDERS.arrow, ("customer",))
        with pytest.raises(ConfigError):
            make_sink().open_table(Target("orders", other, "mirror"))
        with pytest.raises(ConfigError):
            make_sink().open_table(Target("orders", ORDERS, "append"))

    def test_append_keeps_every_change_once_in_order(
        self, make_sink: MakeSink, source: ModelSource, scan: Scan
    ) -> None:
        writer = self.open(make_sink, source, "append")
        sent: list[tuple[int, int, str]] = []
        for step in range(6):
            batches = source.transaction(40)
            for batch in batches:
                sent += zip(batch.lsn.tolist(), batch.seq.tolist(), map(chr, batch.op.tolist()), strict=True)
            writer.stage(batches)
            writer.commit({("raw", 0): step}, source.lsn)
            lost = source.transaction(10)
            writer.stage(lost)
            writer.close()
            writer = self.open(make_sink, source, "append")
            writer.stage(lost)
            for batch in lost:
                sent += zip(batch.lsn.tolist(), batch.seq.tolist(), map(chr, batch.op.tolist()), strict=True)
            writer.commit({("raw", 0): step}, source.lsn)
        found = scan(writer.location).select(["_lsn", "_seq", "_op"]).to_pylist()
        assert sorted(tuple(row.values()) for row in found) == sorted(sent)

    def test_append_names_the_cells_that_it_does_not_know(
        self, make_sink: MakeSink, source: ModelSource, scan: Scan
    ) -> None:
        writer = self.open(make_sink, source, "append")
        writer.stage([with_unchanged(source.insert(1)[0], ("doc", "note"))])
        writer.commit({}, source.lsn)
        (row,) = scan(writer.location).to_pylist()
        assert (row["_op"], row["_unchanged"], row["doc"]) == ("c", ["doc", "note"], None)

    def test_append_survives_upkeep_truncate_and_new_columns(
        self, make_sink: MakeSink, source: ModelSource, scan: Scan
    ) -> None:
        writer = self.open(make_sink, source, "append")
        for step in range(24):
            writer.stage(source.insert(2))
            if step == 5:
                writer.truncate(Truncate((source.table.id,), source.lsn, 9, 1_000_000))
            if step == 9:
                source.add_column(pa.field("extra", pa.int16()))
            if step == 15:
                source.widen_column(pa.field("extra", pa.int32()))
            writer.commit({}, source.lsn)
            writer.upkeep()
        ops = scan(writer.location)["_op"].to_pylist()
        assert (ops.count("c"), ops.count("t"), len(ops)) == (48, 1, 49)
