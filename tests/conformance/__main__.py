"""`make interop-kgo` and its like: python -m tests.conformance SUITE... [--only TEST] [--grow]

Exit code 0 only when every test that is not excluded passed and nothing is excluded that passes.
With --target apache-kafka the same suite runs on Apache Kafka, to see what a suite says about the original.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from tests.conformance import kafka_python, kafka_tools, kcat, kgo
from tests.conformance.cache import MissingToolchain
from tests.conformance.expected import Expectations, grow, judge
from tests.conformance.outcome import SuiteRun
from tests.conformance.table import show, show_peer
from tests.conformance.target import Target

_Suite = Callable[[Sequence[str], Path, Target], SuiteRun]
SUITES: dict[str, _Suite] = {module.NAME: module.run for module in (kgo, kafka_tools, kcat, kafka_python)}


def main() -> int:
    """Run the suites that the command line names and show one table."""
    arguments = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    arguments.add_argument("suites", nargs="*", choices=[*SUITES, []], help="default: all of them")
    arguments.add_argument("--only", action="append", default=[], help="a test by its name in the suite")
    arguments.add_argument("--grow", action="store_true", help="add what passed to the suite's list")
    arguments.add_argument("--target", type=Target, choices=list(Target), default=Target.TAILRACE)
    options = arguments.parse_args()
    console = Console(width=160)
    verdicts, missing = [], []
    for suite in options.suites or SUITES:
        console.print(f"{suite} ...", markup=False)
        with tempfile.TemporaryDirectory(prefix=f"tailrace-{suite}-") as folder:
            try:
                run = SUITES[suite](options.only, Path(folder), options.target)
            except MissingToolchain as error:
                missing.append(f"{suite} was not run: {error}")
                continue
        if options.target is Target.APACHE_KAFKA:
            show_peer(run, console)
            continue
        verdict = judge(run, Expectations.load(suite))
        verdicts.append(verdict)
        if options.grow:
            grow(suite, verdict.passed)
    if verdicts:
        show(verdicts, console)
    for line in missing:
        console.print(line, markup=False)
    return 1 if missing or any(verdict.problems for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
