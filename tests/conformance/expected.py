"""What a suite must pass and what is left out, and why: `lists/<suite>.toml`.

    passes = ["TestA", "TestB"]        # may only grow
    [excluded]
    "TestC" = "needs two brokers"      # a name, or its beginning and a *

A run is as it should be when everything that is not excluded passed, nothing excluded passed, no exclusion is
without a test, and every test that ever passed is still among the tests.
"""

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.outcome import Status, SuiteRun, Verdict

_LISTS = Path(__file__).parent / "lists"


@dataclass(frozen=True, slots=True)
class Expectations:
    """The lists of one suite; `peer`: what Apache Kafka came to, for people."""

    passes: frozenset[str]
    excluded: dict[str, str]
    peer: str = ""

    @classmethod
    def load(cls, suite: str) -> "Expectations":
        """Read `lists/<suite>.toml`.  Raises ValueError when an exclusion has no reason."""
        document = tomllib.loads((_LISTS / f"{suite}.toml").read_text())
        excluded: dict[str, str] = document.get("excluded", {})
        if silent := [name for name, reason in excluded.items() if not reason.strip()]:
            raise ValueError(f"{suite}.toml excludes {', '.join(silent)} without a reason")
        return cls(frozenset(document.get("passes", ())), excluded, document.get("peer", ""))

    def exclusion(self, test: str) -> str | None:
        """The entry that excludes `test`."""
        return next((entry for entry in self.excluded if _matches(entry, test)), None)


def judge(run: SuiteRun, expected: Expectations) -> Verdict:
    """Measure a run by the suite's lists."""
    verdict = Verdict(run)
    used: set[str] = set()
    for outcome in run.outcomes:
        entry = expected.exclusion(outcome.name)
        if entry is not None:
            used.add(entry)
        match outcome.status, entry:
            case Status.PASSED, None:
                verdict.passed.append(outcome.name)
            case Status.PASSED, _:
                verdict.problems.append(
                    f"{outcome.name} is excluded ({expected.excluded[entry or '']}) and passes: "
                    "take it off the list of exclusions"
                )
            case _, str():
                verdict.excluded[outcome.name] = expected.excluded[entry]
            case Status.SKIPPED, None:
                verdict.problems.append(f"{outcome.name} was skipped by the suite: {outcome.detail}")
            case _:
                verdict.problems.append(f"{outcome.name} failed: {outcome.detail}")
    if not run.partial:
        verdict.problems += _missing(run, expected, used)
    return verdict


def grow(suite: str, passed: Iterable[str]) -> None:
    """Add tests to the list of what must pass; nothing is ever taken off it."""
    path = _LISTS / f"{suite}.toml"
    names = sorted(Expectations.load(suite).passes | set(passed))
    before, _, rest = path.read_text().partition("passes = [")
    _, _, after = rest.partition("\n]\n")
    entries = "".join(f"  {json.dumps(name)},\n" for name in names)  # a JSON string is a TOML string
    path.write_text(f"{before}passes = [\n{entries}]\n{after}")


def _missing(run: SuiteRun, expected: Expectations, used: set[str]) -> list[str]:
    ran = {outcome.name for outcome in run.outcomes}
    gone = [f"{name} has passed before and is not there any more" for name in sorted(expected.passes - ran)]
    stale = [f"the exclusion of {entry} matches no test" for entry in expected.excluded if entry not in used]
    return gone + stale


def _matches(entry: str, test: str) -> bool:
    return test.startswith(entry[:-1]) if entry.endswith("*") else test == entry
