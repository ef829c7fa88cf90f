"""A change log replayed: the newest row of every key that was not deleted last."""

import duckdb
import pyarrow as pa

from tailrace.pipeline.verify.canonical import quoted

META = ("_op", "_lsn", "_seq", "_xid", "_commit_ts")


def replayed(log: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """What a mirror would hold after the change log; the metadata columns are left out.

    An unchanged TOAST cell is null in a change log: it takes the newest given value of the row's life.
    """
    keys = ", ".join(quoted(name) for name in key)
    names = [name for name in log.column_names if name not in META]
    with duckdb.connect() as database:
        database.register("log", log)
        columns = ", ".join(quoted(name) for name in names)
        return database.execute(
            f"SELECT {columns} FROM log QUALIFY row_number() OVER "
            f"(PARTITION BY {keys} ORDER BY _lsn DESC, _seq DESC) = 1 AND _op <> 'd'"
        ).to_arrow_table()
