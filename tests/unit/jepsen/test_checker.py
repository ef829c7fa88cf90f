"""Each analysis of the Kafka workload's checker objects to its anomaly, and to nothing in a clean history."""

from collections.abc import Iterable

import pytest
from tests.jepsen.checker import ALLOWED, check
from tests.jepsen.history import Kind, Operation, Outcome, Poll, Send, Step


class Story:
    """A history by hand: each operation ends before the next begins, unless it is told otherwise."""

    def __init__(self) -> None:
        self.history: list[Operation] = []
        self._now = 0

    def op(
        self,
        process: int,
        *steps: Step,
        outcome: Outcome = "ok",
        keys: Iterable[str] = (),
        kind: Kind = "txn",
        span: tuple[int, int] | None = None,
        rebalanced: Iterable[str] = (),
        group: str = "",
    ) -> None:
        self._now += 10
        invoked, completed = span or (self._now, self._now + 5)
        ended = None if outcome == "info" else completed
        self.history.append(
            Operation(
                process, kind, outcome, steps, invoked, ended, tuple(keys), frozenset(rebalanced), group
            )
        )

    def anomalies(self) -> set[str]:
        return {anomaly.name for anomaly in check(self.history).anomalies}

    def allowed(self) -> set[str]:
        return set(check(self.history).allowed)


def sent(*values: int, key: str = "k") -> Story:
    """Process 0 sends each value in an operation of its own, at the offset of the same number."""
    story = Story()
    for value in values:
        story.op(0, Send(key, value, value))
    return story


def poll(*values: int, key: str = "k") -> Poll:
    """A poll that finds each value at the offset of the same number."""
    return Poll({key: [(value, value) for value in values]})


def test_a_clean_history_is_accepted() -> None:
    story = sent(1, 2)
    story.op(0, Send("k", 3, 3), Send("k", 5, 5), Send("l", 4, 0))
    story.op(1, keys=["k", "l"], kind="assign")
    story.op(1, poll(1, 2), poll(3))
    story.op(1, poll(5), Poll({"l": [(0, 4)]}), Send("l", 6, 7), outcome="fail")
    story.op(1, poll(5), Poll({"l": [(0, 4)]}), Send("l", 8, 9))
    story.op(2, Poll({"l": [(0, 4), (9, 8)]}))
    assert story.anomalies() == set()
    assert story.allowed() == set()


def test_a_value_of_a_failed_writer_is_an_aborted_read() -> None:
    story = sent(1)
    story.op(0, Send("k", 2, 2), outcome="fail")
    story.op(1, poll(1, 2))
    assert story.anomalies() == {"G1a"}


def test_an_aborted_read_counts_also_where_the_readers_own_transaction_failed() -> None:
    story = sent(1)
    story.op(0, Send("k", 2, 2), outcome="fail")
    story.op(1, poll(1, 2), outcome="fail")
    assert "G1a" in story.anomalies()


def test_a_value_that_nobody_wrote_is_found() -> None:
    story = sent(1)
    story.op(1, poll(1, 9))
    assert story.anomalies() == {"unwritten"}


def test_two_values_at_one_offset_are_inconsistent() -> None:
    story = sent(1, 2, 3)
    story.op(1, Poll({"k": [(1, 1), (2, 2), (3, 3)]}))
    story.op(2, Poll({"k": [(1, 2)]}))
    assert "inconsistent-offsets" in story.anomalies()


def test_one_value_at_two_offsets_is_a_duplicate() -> None:
    story = sent(1, 2)
    story.op(1, Poll({"k": [(1, 1), (2, 2), (3, 1)]}))
    assert "duplicate" in story.anomalies()


@pytest.mark.parametrize("outcome", ["ok", "info"])
def test_a_committed_value_below_the_highest_read_is_lost(outcome: Outcome) -> None:
    story = sent(1)
    story.op(0, Send("k", 2, 2), Send("l", 9, 0), outcome=outcome)
    story.op(1, Send("k", 3, 3))
    story.op(2, Poll({"k": [(1, 1), (3, 3)], "l": [(0, 9)]}))  # shows that an unknown outcome was a commit
    assert "lost-write" in story.anomalies()


def test_a_value_whose_writer_knows_nothing_is_not_lost() -> None:
    story = sent(1)
    story.op(0, Send("k", 2, 2), outcome="info")
    story.op(1, Send("k", 3, 3))
    story.op(2, poll(1, 3))
    assert story.anomalies() == set()


def test_a_committed_value_behind_the_highest_read_is_unseen() -> None:
    story = sent(1, 2)
    story.op(1, poll(1))
    assert story.anomalies() == {"unseen"}


def test_transactions_that_read_each_other_are_a_cycle() -> None:
    story = Story()
    story.op(0, Send("k", 1, 1), Poll({"l": [(2, 2)]}), span=(0, 9))
    story.op(1, Send("l", 2, 2), Poll({"k": [(1, 1)]}), span=(1, 8))
    assert story.anomalies() == {"G1c", "G1c-realtime"}


def test_a_read_from_the_future_is_a_cycle() -> None:
    story = Story()
    story.op(0, poll(1))
    story.op(1, Send("k", 1, 1))
    assert story.anomalies() == {"G1c-realtime"}


def test_a_read_from_the_future_by_way_of_others_is_a_cycle() -> None:
    story = Story()
    story.op(0, Send("k", 1, 1), span=(30, 39))
    story.op(1, poll(1), Send("l", 2, 2), span=(5, 35))
    story.op(2, Poll({"l": [(2, 2)]}), span=(1, 9))
    assert story.anomalies() == {"G1c-realtime"}


def test_an_operation_that_overlaps_its_reader_is_no_cycle() -> None:
    story = Story()
    story.op(0, Send("k", 1, 1), span=(0, 20))
    story.op(1, poll(1), span=(5, 10))
    assert story.anomalies() == set()


def test_an_operation_without_an_end_precedes_nothing_in_time() -> None:
    story = Story()
    story.op(0, Send("k", 1), outcome="info")
    story.op(1, poll(1))
    assert story.anomalies() == set()


def test_writes_that_interleave_are_allowed() -> None:
    story = Story()
    story.op(0, Send("k", 1, 1), Send("l", 2, 2), Send("l", 5, 5), span=(0, 9))
    story.op(1, Send("k", 3, 3), Send("l", 1, 1), Send("l", 4, 4), span=(1, 8))
    story.op(2, poll(1, 3), Poll({"l": [(1, 1), (2, 2), (4, 4), (5, 5)]}))
    assert story.anomalies() == set()
    assert story.allowed() == {"G0", "G1c-ww", "int-send-skip"}
    assert story.allowed() <= ALLOWED


def test_an_operation_whose_polls_leave_a_gap_is_found() -> None:
    story = sent(1, 2, 3)
    story.op(1, poll(1, 2, 3))
    story.op(2, poll(1), poll(3))
    assert story.anomalies() == {"int-poll-skip"}


@pytest.mark.parametrize("again", [2, 1])
def test_an_operation_whose_polls_go_back_is_found(again: int) -> None:
    story = sent(1, 2, 3)
    story.op(1, poll(1, 2, 3))
    story.op(2, poll(1, 2), poll(again))
    assert story.anomalies() == {"int-nonmonotonic-poll"}


def test_a_key_that_was_rebalanced_within_an_operation_may_go_anywhere() -> None:
    story = sent(1, 2, 3)
    story.op(1, poll(1, 2, 3))
    story.op(2, poll(2), poll(1), rebalanced=["k"])
    assert story.anomalies() == set()


def test_a_process_whose_next_poll_leaves_a_gap_is_found() -> None:
    story = sent(1, 2, 3)
    story.op(1, poll(1, 2, 3))
    story.op(2, keys=["k"], kind="assign")
    story.op(2, poll(1))
    story.op(2, poll(3))
    assert story.anomalies() == {"poll-skip"}


def test_a_process_whose_next_poll_goes_back_is_found() -> None:
    story = sent(1, 2, 3)
    story.op(1, poll(1, 2, 3))
    story.op(2, keys=["k"], kind="assign")
    story.op(2, poll(1, 2))
    story.op(2, poll(2, 3))
    assert story.anomalies() == {"nonmonotonic-poll"}


def test_a_process_goes_back_after_an_operation_that_failed() -> None:
    story = sent(1, 2, 3)
    story.op(1, poll(1, 2, 3))
    story.op(2, poll(1))
    story.op(2, poll(2), outcome="fail")
    story.op(2, poll(2))
    assert story.anomalies() == set()


def test_a_process_begins_anew_with_a_key_that_it_gave_up() -> None:
    story = sent(1, 2, 3)
    story.op(1, poll(1, 2, 3))
    story.op(2, keys=["k"], kind="assign")
    story.op(2, poll(1))
    story.op(2, keys=["l"], kind="assign")
    story.op(2, keys=["k"], kind="assign")
    story.op(2, poll(1))
    assert story.anomalies() == set()


def test_a_subscribed_process_may_be_moved_between_its_operations() -> None:
    story = sent(1, 2, 3)
    story.op(1, poll(1, 2, 3))
    story.op(2, keys=["k"], kind="subscribe")
    story.op(2, poll(1))
    story.op(2, poll(3))
    story.op(2, poll(2))
    assert story.anomalies() == set()
    assert story.allowed() == {"poll-skip (subscribed)", "nonmonotonic-poll (subscribed)"}


def test_an_operation_whose_sends_go_back_is_found() -> None:
    story = Story()
    story.op(0, Send("k", 1, 2), Send("k", 2, 1))
    story.op(1, Poll({"k": [(1, 2), (2, 1)]}))
    assert story.anomalies() == {"int-nonmonotonic-send"}


def test_a_process_whose_next_send_goes_back_is_found() -> None:
    story = Story()
    story.op(0, Send("k", 1, 2))
    story.op(0, Send("k", 2, 1))
    story.op(1, Poll({"k": [(1, 2), (2, 1)]}))
    assert "nonmonotonic-send" in story.anomalies()


def test_a_transaction_that_reads_its_own_write_is_found() -> None:
    story = Story()
    story.op(0, Send("k", 1, 1), poll(1))
    assert story.anomalies() == {"precommitted-read"}


@pytest.mark.parametrize(
    ("group", "outcome", "expected"),
    [("g", "ok", {"consumed-twice"}), ("h", "ok", set()), ("g", "fail", set()), ("g", "info", set())],
)
def test_a_value_that_two_committed_transactions_of_a_group_consume_is_found(
    group: str, outcome: Outcome, expected: set[str]
) -> None:
    story = sent(1)
    story.op(1, poll(1), group="g")
    story.op(2, poll(1), group=group, outcome=outcome)
    assert story.anomalies() == expected


@pytest.mark.parametrize(("at", "lag"), [(14, 0.0), (40, 25e-9)])
def test_the_lag_of_a_poll_is_the_time_that_the_next_value_was_known(at: int, lag: float) -> None:
    story = Story()
    story.op(1, keys=["k"], kind="assign", span=(1, 2))
    story.op(0, Send("k", 1, 1), span=(10, 15))
    story.op(1, poll(), span=(at, at + 5))
    assert check(story.history).worst_lag_s == pytest.approx(lag)
    story.op(1, poll(1), span=(90, 91))
    assert check(story.history).worst_lag_s == pytest.approx(lag)
