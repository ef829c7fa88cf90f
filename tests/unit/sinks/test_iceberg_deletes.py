"""Position deletes: whatever is deleted in whatever portions, pyiceberg reads what is left."""

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap
from tests.fixtures.tables import scan_iceberg

from tailrace.sinks.backend import TableCommit
from tailrace.sinks.checkpoint import Checkpoint
from tailrace.sinks.iceberg.catalog import open_catalog
from tailrace.sinks.iceberg.config import IcebergConfig
from tailrace.sinks.iceberg.table import IcebergTable

ROWS = 50
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False)])

portions = st.lists(
    st.tuples(st.integers(0, 2), st.sets(st.integers(0, ROWS - 1), max_size=ROWS)), max_size=6
)


@given(portions)
@settings(max_examples=25, deadline=None)
def test_pyiceberg_reads_what_was_not_deleted(portions: list[tuple[int, set[int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = IcebergConfig(warehouse="lake")
        catalog = open_catalog(config, Path(folder))
        backend = IcebergTable(catalog, ("default", "t"), "o/s", config)
        state = backend.create(SCHEMA, Checkpoint().taken_over())
        files = [
            backend.write_data_file(pa.table({"id": range(n * ROWS, (n + 1) * ROWS)}, schema=SCHEMA))
            for n in range(3)
        ]
        checkpoint = state.checkpoint.advanced({("t", 0): 1}, 1)
        state = backend.commit(state, TableCommit(checkpoint, added=files))
        left = set(range(3 * ROWS))
        for number, (file, positions) in enumerate(portions):
            fresh = {position for position in positions if file * ROWS + position in left}
            left -= {file * ROWS + position for position in fresh}
            checkpoint = state.checkpoint.advanced({("t", 0): number + 2}, number + 2)
            deleted = {files[file].path: BitMap(fresh)} if fresh else {}
            state = backend.commit(state, TableCommit(checkpoint, deleted=deleted))
        assert set(scan_iceberg(backend.location)["id"].to_pylist()) == left
        reloaded = IcebergTable(catalog, ("default", "t"), "o/s", config).load()
        assert reloaded is not None
        assert reloaded.live_rows() == len(left)
        assert dict(reloaded.deleted) == dict(state.deleted)
        catalog.close()
