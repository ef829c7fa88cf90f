"""kcat, as Debian packages it (on its librdkafka), against a broker of ours; judged by what it prints."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.conformance.cache import MissingToolchain, cache_dir, call
from tests.conformance.cases import judged
from tests.conformance.outcome import SuiteRun
from tests.conformance.target import Target, running

NAME = "kcat"
_TIMEOUT_S = 60.0
_FORMAT = "%p %o %k %s %h\\n"


@dataclass(frozen=True)
class Kcat:
    """The program, the broker that it is pointed at, and the folder of the broker's logs."""

    bootstrap: str
    data: Path
    program: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What kcat printed; AssertionError when it failed."""
        done = subprocess.run(
            [self.program, "-b", self.bootstrap, "-m", "20", *arguments],
            env={**os.environ, **self.environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
        return done.stdout

    def produce(self, topic: str, lines: Sequence[str], *arguments: str) -> None:
        """One record a line."""
        self.run("-P", "-t", topic, *arguments, stdin="".join(f"{line}\n" for line in lines))

    def consume(self, topic: str, *arguments: str) -> list[str]:
        """Lines from the start to the end of the topic."""
        return self.run("-C", "-t", topic, "-e", "-q", *arguments).splitlines()


def metadata(kcat: Kcat) -> None:
    """-L, for people and as JSON."""
    kcat.produce("listed", ["x"])
    told = kcat.run("-L")
    assert re.search(r"broker 1 at 127.0.0.1:\d+ \(controller\)", told), told
    assert re.search(
        r'topic "listed" with 1 partitions:\n\s+partition 0, leader 1, replicas: 1, isrs: 1', told
    ), told
    document = json.loads(kcat.run("-L", "-J", "-t", "listed"))
    assert [topic["topic"] for topic in document["topics"]] == ["listed"]


def lines(kcat: Kcat) -> None:
    """-P and -C."""
    kcat.produce("lines", ["one", "two", "three"])
    assert kcat.consume("lines") == ["one", "two", "three"]
    assert kcat.consume("lines", "-o", "-1") == ["three"]
    assert kcat.consume("lines", "-o", "1", "-c", "1") == ["two"]


def keys_headers_and_tombstones(kcat: Kcat) -> None:
    """-K, -H, -Z, and what -f shows of them."""
    kcat.produce("keyed", ["k1:v1", "k2:"], "-K", ":", "-Z", "-H", "a=1", "-H", "b=2")
    assert kcat.consume("keyed", "-f", _FORMAT) == ["0 0 k1 v1 a=1,b=2", "0 1 k2  a=1,b=2"]
    assert [json.loads(line)["payload"] for line in kcat.consume("keyed", "-J")] == ["v1", None]


def _codec(codec: str) -> Callable[[Kcat], None]:
    def case(kcat: Kcat) -> None:
        text = [f"{codec} {number} " + "x" * 500 for number in range(200)]
        kcat.produce(codec, text, "-z", codec, "-X", "linger.ms=50")
        assert kcat.consume(codec) == text
        size = sum(log.stat().st_size for log in kcat.data.rglob(f"{codec}-0/*.log"))
        assert size < 20_000, f"{size} bytes: not compressed"  # librdkafka leaves a codec out in silence

    return case


def idempotent(kcat: Kcat) -> None:
    """-X enable.idempotence=true."""
    text = [str(number) for number in range(1000)]
    kcat.produce("idempotent", text, "-X", "enable.idempotence=true", "-X", "acks=all")
    assert kcat.consume("idempotent") == text


def transactional(kcat: Kcat) -> None:
    """-X transactional.id: read by whoever reads committed records."""
    text = [str(number) for number in range(100)]
    kcat.produce("transactional", text, "-X", "transactional.id=kcat")
    assert kcat.consume("transactional", "-X", "isolation.level=read_committed") == text


def group(kcat: Kcat) -> None:
    """-G: a group reads each record once, also over two runs."""
    kcat.produce("grouped", [str(number) for number in range(10)])
    reading = ("-q", "-X", "auto.offset.reset=earliest", "-c", "5", "-G", "readers", "grouped")
    first, second = (kcat.run(*reading).splitlines() for _ in range(2))
    assert first + second == [str(number) for number in range(10)], (first, second)


def offsets_for_times(kcat: Kcat) -> None:
    """-Q, and reading from a time on."""
    before_ms = time.time_ns() // 1_000_000
    kcat.produce("timed", ["x"])
    assert kcat.run("-Q", "-t", f"timed:0:{before_ms}").strip() == "timed [0] offset 0"
    assert kcat.run("-Q", "-t", "timed:0:-1").strip() == "timed [0] offset 1"
    assert kcat.consume("timed", "-o", f"s@{before_ms}") == ["x"]


CASES: dict[str, Callable[[Kcat], None]] = {
    **{
        case.__name__: case
        for case in (
            metadata,
            lines,
            keys_headers_and_tombstones,
            idempotent,
            transactional,
            group,
            offsets_for_times,
        )
    },
    **{f"codec_{codec}": _codec(codec) for codec in ("gzip", "snappy", "lz4", "zstd")},
}


def run(only: Sequence[str], folder: Path, target: Target = Target.TAILRACE) -> SuiteRun:
    """Every case, or those of `only`.  Raises MissingToolchain where neither PATH nor apt has kcat."""
    program, environment = find()
    version = subprocess.run(
        [program, "-V"], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    found = re.search(r"Version (\S+) .*librdkafka (\S+)", version.stdout)
    assert found is not None, version.stdout
    started = time.monotonic()
    with running(target, folder / "data") as bootstrap:
        kcat = Kcat(bootstrap, folder / "data", program, environment)
        outcomes = tuple(judged(name, partial(CASES[name], kcat)) for name in only or CASES)
    return SuiteRun(
        NAME, f"{found[1]}, librdkafka {found[2]}", outcomes, time.monotonic() - started, bool(only)
    )


def find() -> tuple[str, dict[str, str]]:
    """kcat and the environment that it needs: from PATH, else unpacked from Debian's packages, without root."""
    if installed := shutil.which("kcat"):
        return installed, {}
    home = cache_dir(NAME)
    if not (home / "root").exists():
        try:
            _unpack(home)
        except (RuntimeError, OSError) as error:
            raise MissingToolchain(
                f"there is no kcat on PATH, and apt has none (apt-get update?): {error}"
            ) from error
    (libraries,) = (home / "root" / "usr" / "lib").glob("*-linux-gnu")
    return str(home / "root" / "usr" / "bin" / "kcat"), {"LD_LIBRARY_PATH": str(libraries)}


def _unpack(home: Path) -> None:
    """kcat with the libraries that this machine lacks."""
    wanted = call(
        ["apt-get", "install", "--print-uris", "--yes", "--quiet=2", "--no-install-recommends", NAME]
    )
    packages = re.findall(r"^'\S+/([a-z0-9.+-]+)_\S*' ", wanted, re.MULTILINE)
    call(["apt-get", "download", *packages], cwd=home)
    for archive in home.glob("*.deb"):
        call(["dpkg-deb", "--extract", archive, home / "new"])
        archive.unlink()
    (home / "new").rename(home / "root")
