"""What a table back end must pass."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from pyroaring import BitMap

from tailrace.sinks.backend import CommitConflict, TableBackend, TableCommit, TableState
from tailrace.sinks.checkpoint import Checkpoint
from tailrace.sinks.testing.rows import OFFSETS, Scan, values

MakeBackend = Callable[[], TableBackend]
"""Makes a back end of the same table each time, as a newly started process does."""


class BackendContract:
    """What `tailrace.sinks.backend` promises.  Fixtures: make_backend, scan."""

    fields: ClassVar[list[Any]] = [pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string())]
    schema: ClassVar[pa.Schema] = pa.schema(fields)

    @pytest.fixture
    def backend(self, make_backend: MakeBackend) -> TableBackend:
        """A back end of a table that does not exist yet."""
        return make_backend()

    @pytest.fixture
    def created(self, backend: TableBackend) -> TableState:
        """The empty table."""
        return backend.create(self.schema, Checkpoint(epoch=1, sequence=1))

    def rows(self, *keys: int) -> pa.Table:
        """Rows of `schema`."""
        return pa.table([list(keys), [f"name {key}" for key in keys]], schema=self.schema)

    def test_a_table_that_is_not_there_loads_as_none(self, backend: TableBackend) -> None:
        assert backend.load() is None

    def test_a_new_table_loads_with_its_schema_and_checkpoint(
        self, make_backend: MakeBackend, created: TableState
    ) -> None:
        state = make_backend().load()
        assert state is not None
        assert state == created
        assert state.schema.equals(self.schema)
        assert state.checkpoint == Checkpoint(epoch=1, sequence=1)

    def test_creating_a_table_that_appeared_meanwhile_conflicts(
        self, make_backend: MakeBackend, created: TableState
    ) -> None:
        with pytest.raises(CommitConflict):
            make_backend().create(self.schema, Checkpoint(epoch=1, sequence=1))

    def test_a_commit_stores_rows_deletions_and_checkpoint_together(
        self, make_backend: MakeBackend, backend: TableBackend, created: TableState, scan: Scan
    ) -> None:
        file = backend.write_data_file(self.rows(1, 2, 3))
        checkpoint = created.checkpoint.advanced(OFFSETS, 99)
        state = backend.commit(created, TableCommit(checkpoint, [file], {file.path: BitMap([1])}))
        assert state.checkpoint == checkpoint
        assert state.live_rows() == 2
        again = make_backend().load()
        assert again is not None
        assert again.checkpoint == checkpoint
        assert again.files.keys() == {file.path}
        assert again.deleted == {file.path: BitMap([1])}
        assert values(scan(backend.location), "id") == [1, 3]

    def test_deletions_add_up_over_commits(
        self, make_backend: MakeBackend, backend: TableBackend, created: TableState, scan: Scan
    ) -> None:
        state = self.committed(backend, created, backend.write_data_file(self.rows(*range(10))))
        path = next(iter(state.files))
        for position in (7, 2, 5):
            deleted = {path: BitMap([position])}
            state = backend.commit(state, TableCommit(_next(state), deleted=deleted))
        again = make_backend().load()
        assert again is not None
        assert again.deleted == {path: BitMap([2, 5, 7])}
        assert values(scan(backend.location), "id") == [0, 1, 3, 4, 6, 8, 9]

    def test_a_removed_file_is_gone_with_its_deletions(
        self, make_backend: MakeBackend, backend: TableBackend, created: TableState, scan: Scan
    ) -> None:
        state = self.committed(backend, created, backend.write_data_file(self.rows(1, 2)))
        path = next(iter(state.files))
        state = backend.commit(state, TableCommit(_next(state), deleted={path: BitMap([0])}))
        other = backend.write_data_file(self.rows(5))
        state = backend.commit(state, TableCommit(_next(state), [other], removed=[path]))
        again = make_backend().load()
        assert again is not None
        assert list(again.files) == [other.path]
        assert not again.deleted
        assert scan(backend.location)["id"].to_pylist() == [5]

    def test_a_commit_on_an_old_base_conflicts_and_changes_nothing(
        self, make_backend: MakeBackend, backend: TableBackend, created: TableState, scan: Scan
    ) -> None:
        self.committed(backend, created, backend.write_data_file(self.rows(1)))
        late = make_backend()
        late.load()
        file = late.write_data_file(self.rows(2))
        with pytest.raises(CommitConflict):
            late.commit(created, TableCommit(created.checkpoint.advanced(OFFSETS, 5), [file]))
        assert scan(backend.location)["id"].to_pylist() == [1]

    def test_files_that_no_commit_names_are_invisible(
        self, make_backend: MakeBackend, backend: TableBackend, created: TableState, scan: Scan
    ) -> None:
        file = backend.write_data_file(self.rows(1))
        assert scan(backend.location).num_rows == 0
        backend.discard([file])
        assert make_backend().load() == created

    def test_a_column_added_is_null_in_old_files(
        self, make_backend: MakeBackend, backend: TableBackend, created: TableState, scan: Scan
    ) -> None:
        state = self.committed(backend, created, backend.write_data_file(self.rows(1)))
        wider = self.schema.append(pa.field("extra", pa.int32()))
        rows = pa.table([[2], ["name 2"], [20]], schema=wider)
        added = backend.write_data_file(rows)
        backend.commit(state, TableCommit(_next(state), [added], schema=wider))
        again = make_backend().load()
        assert again is not None
        assert again.schema.equals(wider)
        old = again.files[next(iter(state.files))]
        assert _read_anew(make_backend, old, wider)["extra"].to_pylist() == [None]
        found = sorted(scan(backend.location).to_pylist(), key=lambda row: int(row["id"]))
        assert [row["extra"] for row in found] == [None, 20]

    def test_read_gives_the_rows_at_positions_in_their_order(
        self, backend: TableBackend, created: TableState
    ) -> None:
        file = backend.write_data_file(self.rows(*range(100)))
        positions = np.array([70, 3, 99, 3])
        fields = pa.schema([self.schema.field("id")])
        assert backend.read(file, fields, positions)["id"].to_pylist() == [70, 3, 99, 3]

    def test_read_gives_nulls_where_a_file_lacks_every_column(
        self, backend: TableBackend, created: TableState
    ) -> None:
        file = backend.write_data_file(self.rows(*range(5)))
        fields = pa.schema({"later": pa.string()})
        assert backend.read(file, fields)["later"].to_pylist() == [None] * 5
        assert backend.read(file, fields, np.array([4, 0]))["later"].to_pylist() == [None] * 2

    def test_a_commit_without_rows_moves_the_checkpoint_only(
        self, make_backend: MakeBackend, backend: TableBackend, created: TableState, scan: Scan
    ) -> None:
        backend.commit(created, TableCommit(created.checkpoint.taken_over()))
        again = make_backend().load()
        assert again is not None
        assert again.checkpoint.epoch == 2
        assert scan(backend.location).num_rows == 0

    def test_checkpoint_and_rows_survive_upkeep(
        self, make_backend: MakeBackend, backend: TableBackend, created: TableState, scan: Scan
    ) -> None:
        state = created
        for key in range(70):
            state = self.committed(backend, state, backend.write_data_file(self.rows(key)))
            state = backend.upkeep(state)
        again = make_backend().load()
        assert again is not None
        assert again.checkpoint == state.checkpoint
        assert again.files.keys() == state.files.keys()
        assert values(scan(backend.location), "id") == list(range(70))

    def committed(self, backend: TableBackend, state: TableState, file: Any) -> TableState:
        """Commit one file."""
        return backend.commit(state, TableCommit(_next(state), [file]))


def _next(state: TableState) -> Checkpoint:
    """The checkpoint of another commit at the same offsets."""
    return state.checkpoint.advanced({}, state.checkpoint.lsn)


def _read_anew(make_backend: MakeBackend, file: Any, schema: pa.Schema) -> pa.Table:
    """Read a file with a back end that did not write it."""
    backend = make_backend()
    backend.load()
    return backend.read(file, schema)
