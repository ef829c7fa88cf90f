"""A change log replayed: the newest row of every key that was not deleted last."""

import duckdb
import pyarrow as pa

from tailrace.pipeline.verify.canonical import quoted

META = ("_op", "_lsn", "_seq", "_xid", "_commit_ts", "_unchanged")


def replayed(log: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """What a mirror would hold after the change log; the metadata columns are left out.

    A cell that a change left as it was takes the newest given value of its key; what lies before the last
    TRUNCATE is gone.
    """
    keys = ", ".join(f"log.{quoted(name)}" for name in key)
    names = [name for name in log.column_names if name not in META and name not in key]
    order = "struct_pack(lsn := _lsn, seq := _seq)"
    columns = "".join(
        f", arg_max_null(log.{quoted(name)}, {order}) FILTER (NOT list_contains(coalesce(_unchanged, []), {_literal(name)}))"
        f" AS {quoted(name)}"
        for name in names
    )
    with duckdb.connect() as database:
        database.register("log", log)
        return database.execute(
            "WITH emptied AS (SELECT max(struct_pack(lsn := _lsn, seq := _seq)) AS at FROM log WHERE _op = 't') "
            f"SELECT {keys}{columns} FROM log, emptied "
            f"WHERE _op <> 't' AND (emptied.at IS NULL OR {order} > emptied.at) "
            f"GROUP BY {keys} HAVING arg_max(_op, {order}) <> 'd'"
        ).to_arrow_table()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
