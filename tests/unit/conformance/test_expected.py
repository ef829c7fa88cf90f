"""Which runs of a client's suite count as good."""

import pytest
from tests.conformance.__main__ import SUITES
from tests.conformance.expected import Expectations, judge
from tests.conformance.outcome import Outcome, Status, SuiteRun

EXPECTED = Expectations(frozenset({"A", "B"}), {"C": "needs two brokers", "Share*": "share groups"})
GOOD = (
    Outcome("A", Status.PASSED),
    Outcome("B", Status.PASSED),
    Outcome("C", Status.FAILED, "boom"),
    Outcome("ShareX", Status.SKIPPED),
)


def problems(*outcomes: Outcome, partial: bool = False) -> list[str]:
    """What is wrong with a run, by the first word of each problem; later outcomes replace earlier ones."""
    last = {outcome.name: outcome for outcome in (*GOOD, *outcomes)}
    run = SuiteRun("s", "1", tuple(last.values()), 1.0, partial)
    return [problem.partition(" ")[0] for problem in judge(run, EXPECTED).problems]


def test_a_run_is_good_when_all_that_is_not_excluded_passes() -> None:
    assert problems() == []


def test_a_failure_a_skip_and_an_excluded_test_that_passes_are_problems() -> None:
    assert problems(Outcome("A", Status.FAILED)) == ["A"]
    assert problems(Outcome("B", Status.SKIPPED)) == ["B"]
    assert problems(Outcome("C", Status.PASSED)) == ["C"]
    assert problems(Outcome("ShareX", Status.PASSED)) == ["ShareX"]


def test_a_test_that_vanished_and_an_exclusion_of_nothing_are_problems() -> None:
    run = SuiteRun("s", "1", (Outcome("A", Status.PASSED), Outcome("C", Status.FAILED)), 1.0)
    assert [problem.split()[0] for problem in judge(run, EXPECTED).problems] == ["B", "the"]


def test_a_partial_run_misses_nothing() -> None:
    run = SuiteRun("s", "1", (Outcome("A", Status.PASSED),), 1.0, partial=True)
    assert judge(run, EXPECTED).problems == []


@pytest.mark.parametrize("suite", SUITES)
def test_every_exclusion_has_its_reason_and_nothing_is_on_both_lists(suite: str) -> None:
    expected = Expectations.load(suite)
    assert [test for test in expected.passes if expected.exclusion(test)] == []
