"""Crash points are names with a meaning: each one is declared once and passed somewhere."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOTS = ("connectors", "broker", "pipeline", "sinks")


def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for root in ROOTS for path in (ROOT / root).rglob("*.py")]


def declared() -> list[str]:
    found: list[str] = []
    for _, tree in trees():
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            if any(isinstance(target, ast.Name) and target.id == "CRASH_POINTS" for target in targets):
                assert isinstance(node, ast.Assign | ast.AnnAssign)
                found += [
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
    return found


def passed() -> set[str]:
    return {
        node.args[0].value
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "crash_point"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def test_every_declared_crash_point_is_passed_and_every_passed_one_declared() -> None:
    names = declared()
    assert len(names) == len(set(names))
    assert set(names) == passed()


def test_there_are_at_least_twenty_crash_points() -> None:
    assert len(declared()) >= 20
