"""How data files are written: zstd, statistics, integer keys delta-packed (0.01 bytes a row if serial)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tailrace.sinks.evolve import conform

_ROW_GROUP_ROWS = 1_000_000
_ROW_GROUP_BYTES = 32 << 20


def encode(rows: pa.Table, key: Sequence[str]) -> tuple[pa.Buffer, pq.FileMetaData]:
    """A Parquet file of `rows`, in order, in memory; field metadata `PARQUET:field_id` becomes field ids."""
    packed = [name for name in key if pa.types.is_integer(rows.schema.field(name).type)]
    dictionary = [
        field.name
        for field in rows.schema
        if pa.types.is_string(field.type) or pa.types.is_nested(field.type)
    ]
    # Groups of wide rows are small: to read one old cell a whole group is decoded.
    row_bytes = max(1, rows.nbytes // max(1, rows.num_rows))
    out = pa.BufferOutputStream()
    pq.write_table(
        rows,
        out,
        row_group_size=max(1000, min(_ROW_GROUP_ROWS, _ROW_GROUP_BYTES // row_bytes)),
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
    if not columns:
        count = source.metadata.num_rows if rows is None else len(rows)
        return pa.table([pa.nulls(count, field.type) for field in schema], schema=schema)
    if rows is None:
        return conform(source.read(columns), schema)
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    parts, first = [], 0
    for group in range(source.num_row_groups):
        end = first + source.metadata.row_group(group).num_rows
        start, stop = np.searchsorted(ascending, [first, end]).tolist()
        if stop > start:
            wanted = pa.array(ascending[start:stop] - first, pa.int64())
            parts.append(source.read_row_group(group, columns).take(wanted))
        first = end
    found = pa.concat_tables(parts) if parts else source.schema_arrow.empty_table().select(columns)
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows))
    return conform(found.take(pa.array(place, pa.int64())), schema)
