"""The broker next to Apache Kafka on the same machine: the same client tools, alternating in one run.

python -m tests.benchmarks.broker [--rounds 2] [--scale 1.0] [--only TEXT] [--restart-gb 10]

Prints for each load the payload MB/s, the broker's CPU seconds per GB, and the ratio of both to Kafka's: the median of
the ratios of each round, as the machine may change its speed between rounds.  Idempotent and transactional loads take
turns with the plain one, and their rate is told as a part of its rate too.  "write" and "fetch" are clients that make
no record in the measured time and parse none.

Before the first load each broker takes one round of writes and fetches that is not counted, so that Kafka's is compiled.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.benchmarks.broker.loads import Done, Load, fresh_topic, loads, produce, warm_up
from tests.benchmarks.broker.targets import Kafka, Tailrace, Target
from tests.interop.kafka_tools import class_path

_GB = 1e9


@dataclass
class Run:
    """One load on one broker."""

    done: Done
    cpu_s: float
    rss: int

    @property
    def mb_per_s(self) -> float:
        return self.done.payload / self.done.seconds / 1e6

    @property
    def cpu_per_gb(self) -> float:
        return self.cpu_s / (self.done.payload / _GB)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.benchmarks.broker")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--scale", type=float, default=1.0)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--restart-gb", type=float, default=0.0)
    options = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tailrace-broker-bench-"))
    targets: list[Target] = [Tailrace(folder), Kafka(folder)]
    try:
        for target in targets:
            _say(f"{target.name}: started in {target.start():.2f} s, {_rss(target) >> 20} MiB")
        for target in targets:
            warm_up(target.bootstrap)
        for group in loads(class_path()):
            chosen = [load for load in group if options.only in load.name]
            runs = _take_turns(chosen, targets, options.rounds, options.scale)
            for load in chosen:
                _tell(load, targets, runs[load.name])
                if load is not group[0] and group[0] in chosen:
                    _tell_part(group[0], targets, runs[load.name], runs[group[0].name])
        if options.restart_gb:
            _restart(targets[0], options.restart_gb)
    finally:
        for target in targets:
            target.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _take_turns(
    group: list[Load], targets: list[Target], rounds: int, scale: float
) -> dict[str, dict[str, list[Run]]]:
    """Runs by load and target."""
    runs: dict[str, dict[str, list[Run]]] = {load.name: {t.name: [] for t in targets} for load in group}
    for number in range(rounds):
        for load in group:
            for target in targets if number % 2 == 0 else reversed(targets):
                runs[load.name][target.name].append(_measure(load, target, scale))
    return runs


def _tell(load: Load, targets: list[Target], runs: dict[str, list[Run]]) -> None:
    for target in targets:
        mine = runs[target.name]
        rates = " ".join(f"{run.mb_per_s:7.1f}" for run in mine)
        waits = [run.done.p99_ms for run in mine if run.done.p99_ms is not None]
        p99 = f", p99 {statistics.median(waits):.0f} ms" if waits else ""
        records = statistics.median(run.done.records / run.done.seconds for run in mine)
        cpu = statistics.median(run.cpu_per_gb for run in mine)
        _say(
            f"{load.name:40s} {target.name:12s} MB/s {rates}  {records:9.0f} records/s  CPU s/GB "
            f"{cpu:6.2f}  RSS {max(run.rss for run in mine) >> 20} MiB{p99}"
        )
    ours, theirs = (runs[target.name] for target in targets)
    rate, cpu = _ratio(ours, theirs, _rate), _ratio(ours, theirs, _cpu_per_gb)
    _say(f"{'':40s} ratio: rate {rate:.2f}, CPU {cpu:.2f}")


def _tell_part(
    first: Load, targets: list[Target], runs: dict[str, list[Run]], of_first: dict[str, list[Run]]
) -> None:
    parts = [f"{t.name} {_ratio(runs[t.name], of_first[t.name], _rate):.2f}" for t in targets]
    _say(f"{'':40s} rate as a part of {first.name}: {', '.join(parts)}")


def _rate(run: Run) -> float:
    return run.mb_per_s


def _cpu_per_gb(run: Run) -> float:
    return run.cpu_per_gb


def _ratio(one: list[Run], other: list[Run], of: Callable[[Run], float]) -> float:
    """Of runs of the same round: the median."""
    return statistics.median(of(a) / of(b) for a, b in zip(one, other, strict=True))


def _measure(load: Load, target: Target, scale: float) -> Run:
    os.sync()  # else a run waits for the disk while it takes what Kafka left in the page cache before
    before = _cpu(target.process())
    done = load.run(target.bootstrap, scale)
    return Run(done, _cpu(target.process()) - before, _rss(target))


def _restart(target: Target, gigabytes: float) -> None:
    """Fill a log, kill the broker, and see how long it recovers."""
    topic = fresh_topic(target.bootstrap, 4)
    produce(target.bootstrap, topic, int(gigabytes * _GB / 10_240), 10_240)
    target.kill()
    _say(f"{target.name}: started in {target.start():.2f} s with {gigabytes:.0f} GB after SIGKILL")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _rss(target: Target) -> int:
    return int(target.process().memory_info().rss)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
