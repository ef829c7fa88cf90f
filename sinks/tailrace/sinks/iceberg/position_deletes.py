"""Position delete files (Iceberg table specification, "Position Delete Files"): sorted by file_path, pos.

file_path  string  field id 2147483546
pos        long    field id 2147483545
"""

import struct
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyroaring import BitMap

_PATH_ID, _POS_ID = 2147483546, 2147483545
_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": str(_PATH_ID)}),
    pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": str(_POS_ID)}),
]
_SCHEMA = pa.schema(_FIELDS)


def write_position_deletes(table: Table, deleted: Mapping[str, BitMap]) -> DataFile:
    """Write one durable file of deleted positions and describe it for a manifest."""
    paths = sorted(path for path, positions in deleted.items() if positions)
    counts = [len(deleted[path]) for path in paths]
    positions = np.concatenate([np.asarray(deleted[path].to_array(), np.int64) for path in paths])
    codes = np.repeat(np.arange(len(paths), dtype=np.int32), counts)
    names = pa.DictionaryArray.from_arrays(codes, pa.array(paths, pa.string())).cast(pa.string())
    rows = pa.table([names, pa.array(positions)], schema=_SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, compression="zstd", store_schema=False)
    data = buffer.getvalue()
    location = table.location_provider().new_data_location(f"{uuid.uuid4()}-deletes.parquet")
    with table.io.new_output(location).create() as stream:
        stream.write(data.to_pybytes())
    bounds = (paths[0].encode(), paths[-1].encode())
    ends = (struct.pack("<q", int(positions.min())), struct.pack("<q", int(positions.max())))
    described = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(positions),
        file_size_in_bytes=data.size,
        lower_bounds={_PATH_ID: bounds[0], _POS_ID: ends[0]},
        upper_bounds={_PATH_ID: bounds[1], _POS_ID: ends[1]},
        value_counts={_PATH_ID: len(positions), _POS_ID: len(positions)},
        null_value_counts={_PATH_ID: 0, _POS_ID: 0},
    )
    described.spec_id = table.metadata.default_spec_id
    return described
