"""`python -m tests.jepsen --runs 200 --seconds 300 --seed N`: run the workload, run after run, each with the next seed.

A run without anomalies leaves nothing behind; of another one the folder stays, with the history, what the nemesis did
and the broker's log and data.  `--check FOLDER` checks its history again.
"""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.jepsen.checker import Verdict, check
from tests.jepsen.history import read_history
from tests.jepsen.run import Result, run

_SHOWN = 20


def _tell(verdict: Verdict) -> None:
    for anomaly in verdict.anomalies[:_SHOWN]:
        sys.stdout.write(f"  {anomaly.name}: {anomaly.text}\n")
    if len(verdict.anomalies) > _SHOWN:
        sys.stdout.write(f"  and {len(verdict.anomalies) - _SHOWN} more\n")
    operations = ", ".join(f"{count} {what}" for what, count in sorted(verdict.outcomes.items()))
    sys.stdout.write(
        f"  {operations}; allowed: {dict(verdict.allowed)}; worst lag {verdict.worst_lag_s:.1f} s\n"
    )


def _run(folder: Path, seed: int, seconds: float) -> tuple[int, Result | Exception, float]:
    started = time.monotonic()
    try:
        result: Result | Exception = run(folder, seed, seconds)
    except Exception as error:  # noqa: BLE001 - told with the verdicts; the next run may find something else
        result = error
    return seed, result, time.monotonic() - started


def _judge(folder: Path, seed: int, result: Result | Exception, spent_s: float) -> bool:
    """Tell what a run came to: whether it was clean."""
    if isinstance(result, Exception):
        sys.stdout.write(f"seed {seed}: {''.join(traceback.format_exception(result))}  kept in {folder}\n")
        return False
    bad = len(result.verdict.anomalies)
    sys.stdout.write(
        f"seed {seed}: {bad} anomalies, {result.faults} faults, {result.processes} processes, {spent_s:.1f} s\n"
    )
    _tell(result.verdict)
    if bad:
        sys.stdout.write(f"  python -m tests.jepsen --check {folder}\n")
    else:
        shutil.rmtree(folder)
    return not bad


def main() -> int:
    """The exit code is 0 when no run had an anomaly."""
    parser = argparse.ArgumentParser(prog="python -m tests.jepsen", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300.0, help="of load in each run (default 300)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="of the first run")
    parser.add_argument("--at-once", type=int, default=2, help="runs beside each other (default 2)")
    parser.add_argument("--folder", type=Path, help="where histories go (default: a new one)")
    parser.add_argument("--check", type=Path, help="only check the history in this folder")
    options = parser.parse_args()
    if options.check:
        verdict = check(read_history(options.check))
        _tell(verdict)
        return 1 if verdict.anomalies else 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="jepsen-"))
    seeds = range(options.seed, options.seed + options.runs)
    total: Counter[str] = Counter()
    bad = []
    with ThreadPoolExecutor(options.at_once) as pool:
        runs = [pool.submit(_run, folder / f"seed-{seed}", seed, options.seconds) for seed in seeds]
        for done in as_completed(runs):
            seed, result, spent_s = done.result()
            if not _judge(folder / f"seed-{seed}", seed, result, spent_s):
                bad.append(seed)
            sys.stdout.flush()
            if isinstance(result, Result):
                total += result.verdict.outcomes + Counter({"faults": result.faults})
    sys.stdout.write(
        f"in all {dict(sorted(total.items()))}\n{options.runs} runs, {len(bad)} bad: {sorted(bad)}\n"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
