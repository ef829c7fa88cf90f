"""One process of the workload: `python -m tests.jepsen.worker` with its part of the run as JSON.

It ends with the load, or after an operation whose outcome nobody knows; then another process takes its place.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import confluent_kafka as ck
from tests.jepsen.client import Client, settings
from tests.jepsen.client_log import ClientLog, log_of
from tests.jepsen.history import Recorder
from tests.jepsen.topics import Topics
from tests.jepsen.workload import Task, Workload


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker is to do; `begin_ns` is on the monotonic clock that all processes share."""

    bootstrap: str
    folder: str
    seed: int
    process: int
    name: str
    transactional: bool
    subscribes: bool
    strategy: str
    begin_ns: int
    seconds: float

    def encode(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def end_of_load(folder: Path) -> Path:
    """The file that tells all workers to end."""
    return folder / "end-of-load"


def work(part: Part) -> None:
    """Run operations until the end of the load, or one whose outcome nobody knows."""
    rng = Random(f"{part.seed}/{part.process}")
    client = Client(
        part.bootstrap,
        part.name,
        rng,
        ClientLog(log_of(Path(part.folder), part.process)),
        transactional=part.transactional,
        subscribes=part.subscribes,
        strategy=part.strategy,
    )
    try:
        client.start()
    except ck.KafkaException:
        return  # the broker is away for too long: the next process tries
    topics = Topics(settings(part.bootstrap, client.timeouts), client.timeouts.request)
    recorder = Recorder(Path(part.folder), part.process)
    workload = Workload(
        rng,
        part.process,
        transactional=part.transactional,
        subscribes=part.subscribes,
        seconds=part.seconds,
    )
    end, parent = end_of_load(Path(part.folder)), os.getppid()
    while not end.exists() and os.getppid() == parent:  # nobody outlives the run
        task = workload.next((time.monotonic_ns() - part.begin_ns) / 1e9)
        if not all(topics.ensure(key) for key in _keys_of(task)):
            continue
        if not _perform(client, recorder, task):
            return


def _keys_of(task: Task) -> set[str]:
    return {step.key for step in task.steps if hasattr(step, "key")} | set(task.keys)


def _perform(client: Client, recorder: Recorder, task: Task) -> bool:
    """Whether the process may go on."""
    recorder.invoke(task.kind, task.steps, task.keys)
    if task.keys:
        (client.subscribe if task.kind == "subscribe" else client.assign)(task.keys)
        recorder.complete("ok")
        return True
    client.rebalanced.clear()
    end = client.run(task.steps)
    recorder.complete(end.outcome, end.steps, sorted(client.rebalanced), end.group, end.error)
    return end.usable


if __name__ == "__main__":
    work(Part(**json.loads(sys.argv[1])))
    os._exit(0)  # as a crash: nobody leaves a group, nobody waits for what is in flight
