"""The README keeps its word: every test that it names exists, every example it shows is accepted."""

import re
from pathlib import Path

import pytest

from tailrace.pipeline.load import load_spec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_test_named_in_the_readme_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", README)
    assert len(named) > 10
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or (name and f"def {name}(" not in (ROOT / file).read_text())
    ]
    assert missing == []


def test_the_pipeline_in_the_readme_is_accepted(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert found is not None
    assert len(found[1].splitlines()) <= 12
    file = tmp_path / "pipeline.yaml"
    file.write_text(found[1])
    load_spec(file, {"PG_DSN": "host=127.0.0.1"})


@pytest.mark.parametrize("target", ["demo", "test", "unit", "bench", "setup"])
def test_every_make_target_that_the_documents_name_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
