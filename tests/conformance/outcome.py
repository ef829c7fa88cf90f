"""What a suite's run came to, in one form for every suite."""

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """How one test of a suite ended; SKIPPED: the suite itself left it out."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test of a suite: its own name, how it ended, and the last lines of why."""

    name: str
    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """All tests of one suite.  `partial`: only some were asked for, so that the others are not missed."""

    suite: str
    version: str
    outcomes: tuple[Outcome, ...]
    seconds: float
    partial: bool = False


@dataclass(slots=True)
class Verdict:
    """A run measured by the suite's lists; `problems` is empty exactly when all is as it should be."""

    run: SuiteRun
    passed: list[str] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)  # test -> reason
    problems: list[str] = field(default_factory=list)
