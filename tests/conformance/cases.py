"""Suites whose cases are functions of ours around somebody else's program: each becomes one outcome."""

import subprocess
from collections.abc import Callable

from tests.conformance.outcome import Outcome, Status

_MOST_DETAIL = 600


def judged(name: str, case: Callable[[], None]) -> Outcome:
    """How a case ended: it fails by AssertionError or by a program that takes too long."""
    try:
        case()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return Outcome(name, Status.FAILED, " | ".join(str(error).strip().splitlines())[-_MOST_DETAIL:])
    return Outcome(name, Status.PASSED)
