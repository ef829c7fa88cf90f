"""Recover every crash state of the log's workloads: `python -m tests.crash.states.explore --states 1000000`.

Prints one JSON document: how many distinct states were recovered, from how many steps, and what was wrong.
A state is named by workload, step and number: the same arguments find it again.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.crash.states.check import Checker
from tests.crash.states.history import Expectation
from tests.crash.states.memory_disk import Flat
from tests.crash.states.power_cuts import PoweredDisk
from tests.crash.states.recorder import Recorder, copy_of
from tests.crash.states.workloads import WORKLOADS, go_on, small_files

SHOWN = 20


@dataclass
class Found:
    """What an exploration saw."""

    states: int = 0  # distinct
    steps: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, where: str, problems: list[str]) -> None:
        if problems:
            self.bad += 1
            if len(self.problems) < SHOWN:
                self.problems.append(f"{where}: {problems[0]}")


def cuts_of(
    recorded: Recorder, steps: range, samples: int, seed: int
) -> Iterator[tuple[int, Expectation, Flat]]:
    """(step, what must be true, state) of every power cut after each of these steps."""
    powered = PoweredDisk(recorded.start)
    expected = copy_of(recorded.expected_at_start)
    marks = sorted(recorded.marks, key=lambda mark: mark.position)
    told = 0
    for number in range(len(recorded.disk.trace) + 1):
        while told < len(marks) and marks[told].position <= number:
            marks[told].tell(expected)
            told += 1
        if number in steps:
            for tree in powered.states(samples, seed):
                yield number, expected, tree.flat()
        if number < len(recorded.disk.trace):
            powered.advance(recorded.disk.trace[number])


def explore(
    workloads: Sequence[Callable[[Recorder], None]],
    *,
    samples: int,
    seed: int = 1,
    shard: int = 0,
    shards: int = 1,
    again: int = 6,
    until_bad: bool = False,
) -> Found:
    """All power cuts of the workloads, and of `again` workloads that go on after a power cut of each."""
    found = Found()
    logging.disable(logging.ERROR)
    try:
        with small_files():
            for workload in workloads:
                at = Recorder()
                workload(at)
                recordings = [(workload.__name__, at)]
                recordings += list(_continued(workload.__name__, at, again, seed))
                for name, recorded in recordings:
                    _explore_one(name, recorded, found, samples, seed, (shard, shards))
                    if until_bad and found.bad:
                        return found
    finally:
        logging.disable(logging.NOTSET)
    return found


def _continued(name: str, at: Recorder, count: int, seed: int) -> Iterator[tuple[str, Recorder]]:
    """Recordings that begin with a power cut somewhere in `at`."""
    length = len(at.disk.trace)
    places = [length * (number + 1) // (count + 1) for number in range(count)]
    for place in places:
        states = [
            (flat, copy_of(expected)) for _, expected, flat in cuts_of(at, range(place, place + 1), 8, seed)
        ]
        flat, expected = states[-1 - place % min(8, len(states))]
        if not Checker().problems(flat, copy_of(expected)):  # else it is found and told as a state of `at`
            yield f"{name}, power cut at step {place}", go_on(flat, expected, place)


def _explore_one(
    name: str, recorded: Recorder, found: Found, samples: int, seed: int, shard: tuple[int, int]
) -> None:
    length, (part, parts) = len(recorded.disk.trace), shard
    steps = range(length * part // parts, length * (part + 1) // parts + (part == parts - 1))
    checker, seen, number = Checker(), set[tuple[int, int]](), 0
    told, marks, positions = -1, 0, [mark.position for mark in recorded.marks]
    for step, expected, flat in cuts_of(recorded, steps, samples, seed):
        if step != told:
            found.steps += 1
            told, number = step, 0
            marks = sum(position <= step for position in positions)
        number += 1
        state = marks, hash(flat)
        if state in seen:
            continue
        seen.add(state)
        found.states += 1
        found.note(f"{name}, step {step}, state {number}", checker.problems(flat, expected))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=12, help="random states, and tears, per step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--again", type=int, default=6)
    parser.add_argument("--workload", choices=[workload.__name__ for workload in WORKLOADS])
    options = parser.parse_args()
    chosen = [w for w in WORKLOADS if options.workload in (None, w.__name__)]
    begun = time.monotonic()
    found = explore(
        chosen,
        samples=options.samples,
        seed=options.seed,
        shard=options.shard,
        shards=options.shards,
        again=options.again,
    )
    seconds = round(time.monotonic() - begun, 1)
    json.dump({**vars(found), "seconds": seconds}, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 1 if found.bad else 0


if __name__ == "__main__":
    sys.exit(main())
