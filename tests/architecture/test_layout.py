"""The shape of the tree: small files, small functions, and nothing heavy where it does not belong."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("connectors", "broker", "pipeline", "sinks")

FILE_LINES = 500  # aim at 400
FUNCTION_LINES = 60

# Where a heavy library may be imported; the demo and its Postgres drive a database by themselves.
EDGES = {
    "psycopg": ("connectors/tailrace/connectors/postgres/", "pipeline/tailrace/pipeline/demo/"),
    "deltalake": ("sinks/tailrace/sinks/delta/",),
    "pyiceberg": ("sinks/tailrace/sinks/iceberg/",),
    "pyflink": ("pipeline/tailrace/flink/",),
    "duckdb": ("pipeline/tailrace/pipeline/verify/",),
}


def sources() -> list[Path]:
    return sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_no_file_is_longer_than_one_can_hold_in_mind() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources()}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno > FUNCTION_LINES
    }
    assert long == {}


def test_heavy_libraries_stay_at_their_edge() -> None:
    strays = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources()
        for name in imports(path)
        for library, homes in EDGES.items()
        if name.split(".")[0] == library and not str(path.relative_to(ROOT)).startswith(homes)
    ]
    assert strays == []


def test_the_namespace_has_no_init_and_every_package_is_typed() -> None:
    for root in ROOTS:
        namespace = ROOT / root / "tailrace"
        assert not (namespace / "__init__.py").exists()
        for package in namespace.iterdir():
            if package.is_dir() and package.name != "__pycache__":
                assert (package / "py.typed").exists(), package


def test_help_is_there_in_half_a_second() -> None:
    def once() -> float:
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "tailrace.pipeline.cli", "--help"], check=True, capture_output=True
        )
        return time.monotonic() - started

    assert min(once() for _ in range(5)) < 0.5


@pytest.mark.parametrize("module", ["pyarrow", "numba", "duckdb", "deltalake", "pyiceberg", "pydantic"])
def test_the_command_line_imports_nothing_heavy_by_itself(module: str) -> None:
    code = f"import sys, tailrace.pipeline.cli; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
