"""Rounds wait for more requests where that brings some, and where it brings none, hardly ever."""

from tailrace.broker.log.gathering import (
    MEASURED_EVERY,
    MOST_REQUESTS,
    SMALL_BYTES,
    TRIED_EVERY,
    Gathering,
)

ROUNDS = 40 * TRIED_EVERY


class Producers:
    """Requests that come while a round is awaited: `first` begin it, `more` come if it pauses."""

    def __init__(self) -> None:
        self.gathering = Gathering()
        self.whole_pauses = self.cut_pauses = 0

    def round(self, first: int, more: int, size: int = 1000) -> int:
        """One round; how many requests it held."""
        if not self.gathering.pauses(first, first * size):
            return first
        for requests in range(first + 1, first + more + 1):
            if self.gathering.is_enough(requests, requests * size):
                self.cut_pauses += 1
                self.gathering.paused(requests)
                return requests
        self.whole_pauses += 1
        self.gathering.paused(first + more)
        return first + more


def test_a_producer_that_waits_for_each_answer_is_hardly_ever_kept_waiting() -> None:
    producers = Producers()
    for _ in range(ROUNDS):
        assert producers.round(1, 0) == 1
    assert producers.whole_pauses <= ROUNDS // TRIED_EVERY


def test_requests_that_come_one_after_the_other_share_a_round() -> None:
    producers = Producers()
    held = [producers.round(1, 4) for _ in range(ROUNDS)]
    assert held[2 * TRIED_EVERY :] == [5] * (ROUNDS - 2 * TRIED_EVERY)


def test_a_pause_ends_when_all_came_that_use_to_come() -> None:
    producers = Producers()
    for _ in range(ROUNDS):
        producers.round(1, 4)
    assert producers.cut_pauses > (MEASURED_EVERY - 3) * producers.whole_pauses


def test_a_round_learns_of_more_requests_than_came_before() -> None:
    producers = Producers()
    for _ in range(ROUNDS):
        producers.round(1, 1)
    held = [producers.round(1, 6) for _ in range(2 * MEASURED_EVERY)]
    assert held[-1] == 7


def test_pauses_end_soon_when_nothing_comes_any_more() -> None:
    producers = Producers()
    for _ in range(ROUNDS):
        producers.round(1, 4)
    before = producers.whole_pauses
    for _ in range(TRIED_EVERY // 2):
        producers.round(1, 0)
    assert producers.whole_pauses - before <= 5


def test_a_round_that_is_worth_its_sync_never_waits() -> None:
    producers = Producers()
    for _ in range(ROUNDS):
        producers.round(1, 4)
    for _ in range(ROUNDS):
        assert not producers.gathering.pauses(1, SMALL_BYTES + 1)
        assert not producers.gathering.pauses(MOST_REQUESTS, 1000)
