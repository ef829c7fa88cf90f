"""Recover every crash state of the log's workloads: `python -m tests.crash.states.explore --states 1000000`.

Prints one JSON document: how many distinct states were recovered, after how many steps, and what was wrong.
A state is named by seed, workload, step and number: `--seed` and `--workload` with the same `--samples` and
`--again` find it again.
"""

import argparse
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.crash.states.check import Checker
from tests.crash.states.history import Expectation
from tests.crash.states.memory_disk import Flat
from tests.crash.states.power_cuts import PoweredDisk
from tests.crash.states.recorder import Recorder, copy_of
from tests.crash.states.workloads import WORKLOADS, go_on, small_files

from tailrace.changes.errors import TailraceError

_NAMES = re.compile(r"\d+|b'.*?'")


@dataclass
class Found:
    """What an exploration saw."""

    seen: set[int] = field(default_factory=set)  # the distinct states
    steps: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)  # the first one of each kind
    kinds: dict[str, int] = field(default_factory=dict)

    def note(self, where: str, problems: list[str]) -> None:
        if problems:
            self.bad += 1
            kind = _NAMES.sub("#", problems[0])[:200]
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            if self.kinds[kind] == 1:
                self.problems.append(f"{where}: {problems[0]}")

    def add(self, other: "Found") -> None:
        """What another process saw, with the same seed of `hash`."""
        self.seen |= other.seen
        self.steps += other.steps
        self.bad += other.bad
        self.problems += [problem for problem in other.problems if problem not in self.problems]
        for kind, count in other.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count


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
    found: Found,
    *,
    samples: int,
    seed: int = 1,
    shard: int = 0,
    shards: int = 1,
    again: int = 6,
) -> None:
    """All power cuts of the workloads, and of `again` workloads that go on after a power cut of each."""
    logging.disable(logging.ERROR)
    try:
        with small_files():
            for workload in workloads:
                at = Recorder()
                try:
                    workload(at)
                    recordings = [(workload.__name__, at), *_continued(workload.__name__, at, again, seed)]
                except (AssertionError, TailraceError) as error:
                    found.note(f"seed {seed}, {workload.__name__}", [f"while recording: {error}"])
                    continue
                for name, recorded in recordings:
                    _explore_one(name, recorded, found, samples, seed, (shard, shards))
    finally:
        logging.disable(logging.NOTSET)


def _continued(name: str, at: Recorder, count: int, seed: int) -> Iterator[tuple[str, Recorder]]:
    """Recordings that begin with a power cut somewhere in `at`."""
    length = len(at.disk.trace)
    for number in range(count):
        place = (length * (number + 1) // (count + 1) + seed * 7) % length
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
    checker, number = Checker(), 0
    told, marks, positions = -1, 0, [mark.position for mark in recorded.marks]
    for step, expected, flat in cuts_of(recorded, steps, samples, seed):
        if step != told:
            found.steps += 1
            told, number = step, 0
            marks = sum(position <= step for position in positions)
        number += 1
        state = hash((name, marks, flat))
        if state not in found.seen:
            found.seen.add(state)
            where = f"seed {seed}, {name}, step {step}, state {number}"
            found.note(where, checker.problems(flat, expected))


@dataclass(frozen=True)
class _Shard:
    """One process's part of the steps, under one seed after the other until it has seen enough states."""

    options: argparse.Namespace
    shard: int

    def run(self) -> Found:
        options, found, seed = self.options, Found(), self.options.seed
        chosen = [w for w in WORKLOADS if options.workload in (None, w.__name__)]
        while not found.bad and (seed == options.seed or len(found.seen) * options.shards < options.states):
            explore(
                chosen,
                found,
                samples=options.samples,
                seed=seed,
                shard=self.shard,
                shards=options.shards,
                again=options.again,
            )
            sys.stderr.write(f"process {self.shard}: {len(found.seen)} states after seed {seed}\n")
            seed += 1
        return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.states.explore", description=__doc__)
    parser.add_argument(
        "--states", type=int, default=0, help="go on with the next seed until so many were seen"
    )
    parser.add_argument("--samples", type=int, default=12, help="random states, and tears, per step")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--shards", type=int, default=1, help="processes")
    parser.add_argument("--again", type=int, default=6, help="recordings that begin with a power cut")
    parser.add_argument("--workload", choices=[workload.__name__ for workload in WORKLOADS])
    options = parser.parse_args()
    begun, found = time.monotonic(), Found()
    with get_context("fork").Pool(options.shards) as pool:
        for part in pool.imap_unordered(_Shard.run, [_Shard(options, n) for n in range(options.shards)]):
            found.add(part)
    told = {"states": len(found.seen), "steps": found.steps, "bad": found.bad}
    seconds = round(time.monotonic() - begun, 1)
    json.dump(
        {**told, "problems": found.problems, "kinds": found.kinds, "seconds": seconds}, sys.stdout, indent=1
    )
    sys.stdout.write("\n")
    return 1 if found.bad else 0


if __name__ == "__main__":
    sys.exit(main())
