"""The broker next to Apache Kafka on the same machine: the same client tools, alternating in one run.

python -m tests.benchmarks.broker [--rounds 2] [--scale 1.0] [--only TEXT] [--restart-gb 10]

Prints for each load the payload MB/s, the broker's CPU seconds per GB, and the ratio of both to Kafka's.
"""

import argparse
import shutil
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.benchmarks.broker.loads import Done, Load, fresh_topic, loads, produce
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
        for load in loads(class_path()):
            if options.only in load.name:
                _compare(load, targets, options.rounds, options.scale)
        if options.restart_gb:
            _restart(targets[0], options.restart_gb)
    finally:
        for target in targets:
            target.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _compare(load: Load, targets: list[Target], rounds: int, scale: float) -> None:
    runs: dict[str, list[Run]] = {target.name: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            runs[target.name].append(_measure(load, target, scale))
    ours, theirs = (runs[target.name] for target in targets)
    for target in targets:
        mine = runs[target.name]
        rates = " ".join(f"{run.mb_per_s:7.1f}" for run in mine)
        p99 = f", p99 {mine[-1].done.p99_ms:.0f} ms" if mine[-1].done.p99_ms is not None else ""
        records = statistics.median(run.done.records / run.done.seconds for run in mine)
        _say(
            f"{load.name:38s} {target.name:12s} MB/s {rates}  {records:9.0f} records/s  CPU s/GB "
            f"{_median_cpu(mine):6.2f}  RSS {max(run.rss for run in mine) >> 20} MiB{p99}"
        )
    rate = statistics.median(run.mb_per_s for run in ours) / statistics.median(run.mb_per_s for run in theirs)
    _say(f"{'':38s} ratio: rate {rate:.2f}, CPU {_median_cpu(ours) / _median_cpu(theirs):.2f}")


def _median_cpu(runs: list[Run]) -> float:
    return statistics.median(run.cpu_per_gb for run in runs)


def _measure(load: Load, target: Target, scale: float) -> Run:
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
