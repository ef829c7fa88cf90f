"""What suites of Python clients share: the source package, an environment of its own, pytest's report."""

import tarfile
import venv
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.conformance.cache import cache_dir, call
from tests.conformance.outcome import Outcome, Status


def source_package(name: str, version: str) -> Path:
    """The unpacked source distribution of a package, as its registry has it."""
    home = cache_dir(f"{name}-{version}")
    if not (home / "source").exists():
        pip: list[str | Path] = [
            environment(name, version, ()),
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
        ]
        call([*pip, "--no-binary", ":all:", "--dest", home, f"{name}=={version}"])
        (archive,) = home.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(home / "new", filter="data")
        (unpacked,) = (home / "new").iterdir()
        unpacked.rename(home / "source")
    return home / "source"


def environment(name: str, version: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment of its own with the client and what its tests need."""
    home = cache_dir(f"{name}-{version}") / "environment"
    python, mark = home / "bin" / "python", home / "requirements"
    if not python.exists():
        venv.create(home, with_pip=True)
    wanted = "\n".join(requirements)
    if requirements and (not mark.exists() or mark.read_text() != wanted):
        call([python, "-m", "pip", "install", "--quiet", f"{name}=={version}", *requirements])
        mark.write_text(wanted)
    return python


def outcomes_of(report: Path) -> Iterator[Outcome]:
    """The tests of a JUnit report, as `module::Class::test`."""
    for case in ET.parse(report).iter("testcase"):
        place = case.get("classname", "").split(".")
        name = "::".join([*place[-2:], case.get("name", "")]) if place[-1][0].isupper() else ""
        name = name or f"{place[-1]}::{case.get('name', '')}"
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        left_out = case.find("skipped")
        if bad is not None:
            yield Outcome(name, Status.FAILED, (bad.get("message") or "")[:300])
        elif left_out is not None:
            yield Outcome(name, Status.SKIPPED, (left_out.get("message") or "")[:300])
        else:
            yield Outcome(name, Status.PASSED)
