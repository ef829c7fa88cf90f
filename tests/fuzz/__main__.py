"""`python -m tests.fuzz --inputs 10000000`: feed damaged bytes to every reader; what must not happen ends the run.

That is an exception which is not the reader's own refusal, a second of CPU for one input, or memory without
bound (the process may not grow by more than 1.5 GiB).  A failure prints its input; `--target T --seed S --first N
--inputs 1` makes exactly this one again.
"""

import argparse
import resource
import signal
import sys
import time
from random import Random

import psutil
from tests.fuzz.targets import TARGETS, Target

_MOST_GROWTH = 3 << 29
_HANG_S = 1.0
_ROUND = 500


class _Hang(BaseException):
    """One input took a second of CPU."""


def _interrupt(*_: object) -> None:
    raise _Hang


def _one(name: str, target: Target, seed: int, number: int, most_s: float = _HANG_S) -> bool:
    """Whether the reader took the input rather than refusing it.  Ends the process on a failure.

    `most_s`: seconds of CPU that it may take; 0: as many as it likes.
    """
    case = target.make(Random(f"{seed}/{name}/{number}"))
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, most_s)
        target.read(case)
    except target.refusals:
        return False
    except BaseException as error:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        shown = case.hex() if isinstance(case, bytes) else repr(case)
        sys.stderr.write(
            f"--target '{name}' --seed {seed} --first {number} --inputs 1 failed: {error!r}\n{shown[:4000]}\n"
        )
        raise
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return True


def main() -> int:
    """Run; the exit code is 0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000_000, help="how many in all (default 10 million)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--target", choices=TARGETS, help="only this reader")
    options = parser.parse_args()
    targets = {options.target: TARGETS[options.target]} if options.target else TARGETS
    signal.signal(signal.SIGVTALRM, _interrupt)
    for name, target in targets.items():
        for number in range(5):
            _one(name, target, options.seed, number, most_s=0)  # what is compiled on first use takes longer
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_GROWTH, resource.RLIM_INFINITY))
    sys.stdout.write(f"seed {options.seed}\n")
    started = time.monotonic()
    done, taken = 0, dict.fromkeys(targets, 0)
    first = options.first
    while done < options.inputs and time.monotonic() - started < options.seconds:
        size = min(_ROUND, max(1, (options.inputs - done) // len(targets)))
        for name, target in targets.items():
            taken[name] += sum(_one(name, target, options.seed, first + i) for i in range(size))
        done += size * len(targets)
        first += size
    spent = time.monotonic() - started
    sys.stdout.write(f"{done} inputs in {spent:.0f} s, none failed; taken as valid: {taken}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
