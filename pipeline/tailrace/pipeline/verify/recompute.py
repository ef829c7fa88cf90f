"""A transform computed a second time, by another engine: DuckDB runs the SQL over the source's own rows."""

import importlib.util
import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling

from tailrace.changes import TailraceError
from tailrace.pipeline.spec import TransformSpec, UdfSpec

_SQL_TYPES = {float: "DOUBLE", int: "BIGINT", str: "VARCHAR", bool: "BOOLEAN", bytes: "BLOB"}


class NotRecomputable(TailraceError):
    """DuckDB cannot run this transform, so it cannot be checked independently; nothing is said about its rows."""


def recompute(transform: TransformSpec, inputs: Mapping[str, pa.Table], base_dir: Path) -> pa.Table:
    """The transform's result over `inputs` (SQL name -> typed rows); raise NotRecomputable with the reason."""
    with duckdb.connect() as database:
        for alias, rows in inputs.items():
            database.register(alias, rows)
        for name, udf in transform.udfs.items():
            _register(database, name, udf, base_dir)
        try:
            return database.execute(transform.sql).to_arrow_table()
        except duckdb.Error as error:
            raise NotRecomputable(
                f"DuckDB cannot run the transform's SQL: {str(error).splitlines()[0]}",
                fix="only SQL that DuckDB and Flink share is verified independently",
            ) from error


def _register(database: duckdb.DuckDBPyConnection, name: str, udf: UdfSpec, base_dir: Path) -> None:
    function = _load(udf, base_dir)
    hints = get_type_hints(function)
    parameters: list[Any] = []
    for parameter in inspect.signature(function).parameters:
        known = _SQL_TYPES.get(_bare(hints.get(parameter)))
        if known is None:
            raise NotRecomputable(
                f"the argument {parameter} of {udf.python} has no type that DuckDB knows",
                fix="annotate it with float, int, str, bool or bytes",
            )
        parameters.append(known)
    database.create_function(
        name, function, parameters, udf.returns, null_handling=FunctionNullHandling.SPECIAL
    )


def _load(udf: UdfSpec, base_dir: Path) -> Callable[..., Any]:
    file, _, function = udf.python.rpartition(":")
    spec = importlib.util.spec_from_file_location("tailrace_verified_udf", base_dir / file)
    if spec is None or spec.loader is None:
        raise NotRecomputable(f"cannot load {base_dir / file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = getattr(module, function)
    return found


def _bare(hint: Any) -> Any:
    """`float | None` -> float."""
    if get_origin(hint) in (Union, types.UnionType):
        rest = [item for item in get_args(hint) if item is not type(None)]
        return rest[0] if len(rest) == 1 else None
    return hint
