"""The user's Python functions, loaded from their files and registered under the names that SQL calls them by."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-not-found]
from pyflink.table import TableEnvironment
from pyflink.table.udf import udf


class BadFunction(Exception):
    """A function cannot be loaded; the message says which, where and why."""


def register(environment: TableEnvironment, database: str, functions: list[dict[str, Any]]) -> None:
    """Register `functions` ({name, file, function, returns, batch}) in a database of the catalog."""
    for function in functions:
        called = load(function)
        kind = "pandas" if function["batch"] == "arrow" else "general"
        try:
            wrapped = udf(called, result_type=function["returns"], func_type=kind)
            environment.create_temporary_function(f"`{database}`.`{function['name']}`", wrapped)
        except Exception as error:
            raise BadFunction(f"function {function['name']}: {error}") from error


def load(function: dict[str, Any]) -> Any:
    """Import the file and take the function out of it."""
    path = Path(function["file"])
    name = function["name"]
    if not path.is_file():
        raise BadFunction(f"function {name}: there is no file {path}")
    module = _module(name, path)
    called = getattr(module, function["function"], None)
    if not callable(called):
        raise BadFunction(f"function {name}: {path} defines no function {function['function']}")
    return called


def _module(name: str, path: Path) -> ModuleType:
    # a name of its own: files of the same name may lie in several folders
    module_name = f"tailrace_functions_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # a file may import its neighbours
    specification = importlib.util.spec_from_file_location(module_name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        line = _line_in(error, path)
        raise BadFunction(f"function {name}: {path}{line}: {type(error).__name__}: {error}") from error
    # by value: the workers of a cluster cannot import it by name
    cloudpickle.register_pickle_by_value(module)
    return module


def _line_in(error: BaseException, path: Path) -> str:
    """`:12`, the innermost line of the file in the error's traceback, or the line of a syntax error."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f":{error.lineno}"
    line = ""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = f":{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line
