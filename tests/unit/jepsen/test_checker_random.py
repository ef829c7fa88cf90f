"""Whatever a correct log does is accepted; whatever is changed in it is found."""

from dataclasses import replace
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st
from tests.jepsen.checker import check
from tests.jepsen.history import Operation, Poll
from tests.unit.jepsen.model import Simulation, sends_of

seeds = st.integers(0, 1 << 30)


def a_history(rng: Random) -> list[Operation]:
    return Simulation(rng).run(processes=rng.randint(1, 5), operations=rng.randint(2, 12))


def names(history: list[Operation]) -> set[str]:
    return {anomaly.name for anomaly in check(history).anomalies}


def everything(history: list[Operation]) -> dict[str, list[tuple[int, int]]]:
    """What the last reader read."""
    return history[-1].reads()


def with_last_read(history: list[Operation], read: dict[str, list[tuple[int, int]]]) -> list[Operation]:
    return [*history[:-1], replace(history[-1], steps=(Poll(read),))]


@given(seeds)
def test_every_history_of_a_correct_log_is_accepted(seed: int) -> None:
    verdict = check(a_history(Random(seed)))
    assert verdict.anomalies == []


@given(seeds)
def test_a_record_that_nobody_reads_is_found(seed: int) -> None:
    rng = Random(seed)
    history = a_history(rng)
    written = list(sends_of(history, "ok"))
    assume(written)
    lost = rng.choice(written)

    def without(operation: Operation) -> Operation:
        steps = tuple(
            Poll(
                {
                    key: [(o, v) for o, v in records if (key, v) != (lost.key, lost.value)]
                    for key, records in step.records.items()
                }
            )
            if isinstance(step, Poll)
            else step
            for step in operation.steps
        )
        return replace(operation, steps=steps)

    last = everything(history)[lost.key][-1][1] == lost.value
    found = names([without(operation) for operation in history])
    assert "unseen" in found
    assert last or "lost-write" in found


@given(seeds)
def test_a_record_that_one_reader_skips_is_found(seed: int) -> None:
    rng = Random(seed)
    history = a_history(rng)
    read = everything(history)
    keys = [key for key, records in read.items() if len(records) > 2]
    assume(keys)
    key = rng.choice(keys)
    other = replace(history[-1], process=99)
    del read[key][rng.randrange(1, len(read[key]) - 1)]
    assert "int-poll-skip" in names([*with_last_read(history, read), other])


@given(seeds)
def test_a_record_that_is_there_twice_is_found(seed: int) -> None:
    rng = Random(seed)
    history = a_history(rng)
    read = everything(history)
    assume(read)
    key = rng.choice(sorted(read))
    doubled = rng.choice(read[key])[1]
    read[key].append((1000, doubled))
    assert "duplicate" in names(with_last_read(history, read))


@given(seeds)
def test_records_whose_offsets_are_swapped_are_found(seed: int) -> None:
    rng = Random(seed)
    history = a_history(rng)
    read = everything(history)
    acknowledged = {(send.key, send.value) for send in sends_of(history, "ok")}
    places = [
        (key, place)
        for key, records in read.items()
        for place in range(len(records) - 1)
        if {(key, records[place][1]), (key, records[place + 1][1])} & acknowledged
    ]
    assume(places)
    key, place = rng.choice(places)
    (first, value), (second, other) = read[key][place : place + 2]
    read[key][place : place + 2] = [(first, other), (second, value)]
    assert names(with_last_read(history, read)) & {"inconsistent-offsets", "duplicate"}


@given(seeds)
def test_records_that_arrive_in_the_wrong_order_are_found(seed: int) -> None:
    rng = Random(seed)
    history = a_history(rng)
    read = everything(history)
    keys = [key for key, records in read.items() if len(records) > 1]
    assume(keys)
    records = read[rng.choice(keys)]
    place = rng.randrange(len(records) - 1)
    records[place], records[place + 1] = records[place + 1], records[place]
    assert "int-nonmonotonic-poll" in names(with_last_read(history, read))


@given(seeds)
def test_an_aborted_record_that_is_read_is_found(seed: int) -> None:
    rng = Random(seed)
    history = a_history(rng)
    aborted = list(sends_of(history, "fail"))
    assume(aborted)
    shown = rng.choice(aborted)
    assert shown.offset is not None
    read = everything(history)
    read[shown.key] = sorted([*read.get(shown.key, []), (shown.offset, shown.value)])
    assert "G1a" in names(with_last_read(history, read))


@given(seeds)
def test_an_operation_that_reads_its_own_write_is_found(seed: int) -> None:
    rng = Random(seed)
    history = a_history(rng)
    writers = [place for place, operation in enumerate(history) if any(operation.sends())]
    assume(writers)
    place = rng.choice(writers)
    send = next(history[place].sends())
    own = Poll({send.key: [(send.offset or 1000, send.value)]})
    history[place] = replace(history[place], steps=(*history[place].steps, own))
    assert "precommitted-read" in names(history)


@given(seeds)
def test_a_record_that_is_read_before_it_was_sent_is_found(seed: int) -> None:
    rng = Random(seed)
    history = a_history(rng)
    written = list(sends_of(history, "ok"))
    assume(written)
    send = rng.choice(written)
    assert send.offset is not None
    too_early = Operation(99, "poll", "ok", (Poll({send.key: [(send.offset, send.value)]}),), -2, -1)
    assert "G1c-realtime" in names([too_early, *history])
