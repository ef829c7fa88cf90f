"""How data files are written: zstd, statistics, integer keys delta-packed (0.01 bytes a row if serial)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tailrace.sinks.evolve import conform

_ROW_GROUP_ROWS = 1_000_000


def encode(rows: pa.Table, key: Sequence[str]) -> tuple[pa.Buffer, pq.FileMetaData]:
    """A Parquet file of `rows`, in order, in memory; field metadata `PARQUET:field_id` becomes field ids."""
    packed = [name for name in key if pa.types.is_integer(rows.schema.field(name).type)]
    dictionary = [
        field.name
        for field in rows.schema
        if pa.types.is_string(field.type) or pa.types.is_nested(field.type)
    ]
    out = pa.BufferOutputStream()
    pq.write_table(
        rows,
        out,
        row_group_size=_ROW_GROUP_ROWS,
        compression="zstd",
        use_dictionary=dictionary,  # type: ignore[arg-type]
        column_encoding=dict.fromkeys(packed, "DELTA_BINARY_PACKED") or None,
        write_statistics=True,
        store_schema=False,
    )
    buffer = out.getvalue()
    return buffer, pq.read_metadata(pa.BufferReader(buffer))


def read(source: pq.ParquetFile, schema: pa.Schema, rows: npt.NDArray[np.int64] | None = None) -> pa.Table:
    """Rows of a data file in `schema`, at the given positions in the given order, else all.

    Only the row groups that hold `rows` are decoded; a column that the file lacks is null.
    """
    columns = [name for name in schema.names if name in source.schema_arrow.names]
    if rows is None:
        return conform(source.read(columns), schema)
    counts = np.array([source.metadata.row_group(i).num_rows for i in range(source.num_row_groups)], np.int64)
    ends = np.cumsum(counts)
    group_of = np.searchsorted(ends, rows, "right")
    groups = np.unique(group_of)
    before = np.zeros(len(counts), np.int64)
    before[groups] = np.concatenate([[0], np.cumsum(counts[groups])[:-1]])
    place = rows - (ends - counts)[group_of] + before[group_of]
    table = source.read_row_groups(groups.tolist(), columns)
    return conform(table.take(pa.array(place, pa.int64())), schema)
