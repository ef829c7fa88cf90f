"""Verdicts as people read them."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from tests.conformance.expected import Expectations
from tests.conformance.outcome import Status, SuiteRun, Verdict


def show(verdicts: Sequence[Verdict], console: Console) -> None:
    """One row for each suite; below it the exclusions by reason, and what is wrong."""
    table = Table("suite", "version", "tests", "passed", "excluded", "wrong", "seconds", "Apache Kafka 4.3.1")
    for verdict in verdicts:
        run = verdict.run
        table.add_row(
            run.suite,
            run.version,
            str(len(run.outcomes)),
            str(len(verdict.passed)),
            str(len(verdict.excluded)),
            str(len(verdict.problems)),
            f"{run.seconds:.0f}",
            Expectations.load(run.suite).peer,
        )
    console.print(table)
    for verdict in verdicts:
        for reason, count in Counter(verdict.excluded.values()).items():
            console.print(f"{verdict.run.suite}: {count} excluded: {reason}", markup=False)
        for problem in verdict.problems:
            console.print(f"{verdict.run.suite}: WRONG: {problem}", markup=False)


def show_peer(run: SuiteRun, console: Console) -> None:
    """What Apache Kafka came to, and what it did not pass."""
    counted = Counter(outcome.status for outcome in run.outcomes)
    told = ", ".join(f"{counted[status]} {status}" for status in Status)
    console.print(f"{run.suite} {run.version} on Apache Kafka: {told} in {run.seconds:.0f} s", markup=False)
    for outcome in run.outcomes:
        if outcome.status is not Status.PASSED:
            console.print(f"  {outcome.name} {outcome.status}: {outcome.detail}", markup=False)
