"""What goes wrong during a run: the broker is killed or stopped, its answers are lost, clients die or freeze."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

from tests.fixtures.kafka_proxy import Fault, KafkaProxy, Kind

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey
from tailrace.changes.errors import TailraceError

KINDS: tuple[Kind, ...] = (
    "lose_request",
    "late_request",
    "lose_answer",
    "drop_answer",
    "hold_answer",
    "reorder_answer",
)
FAULTY_APIS = (
    ApiKey.PRODUCE,
    ApiKey.FETCH,
    ApiKey.LIST_OFFSETS,
    ApiKey.METADATA,
    ApiKey.FIND_COORDINATOR,
    ApiKey.OFFSET_COMMIT,
    ApiKey.OFFSET_FETCH,
    ApiKey.JOIN_GROUP,
    ApiKey.SYNC_GROUP,
    ApiKey.HEARTBEAT,
    ApiKey.CREATE_TOPICS,
    ApiKey.CREATE_PARTITIONS,
)
TRANSACTION_APIS = (
    ApiKey.INIT_PRODUCER_ID,
    ApiKey.ADD_PARTITIONS_TO_TXN,
    ApiKey.PRODUCE,
    ApiKey.ADD_OFFSETS_TO_TXN,
    ApiKey.TXN_OFFSET_COMMIT,
    ApiKey.END_TXN,
)
CRASH_POINTS = (  # those that a busy broker passes again and again
    "broker.log.before_append",
    "broker.log.after_append",
    "broker.log.before_marker",
    "broker.log.after_marker",
    "broker.log.before_fsync",
    "broker.log.after_fsync",
    "broker.before_transaction_state",
    "broker.after_transaction_state",
    "broker.before_markers",
    "broker.between_markers",
    "broker.after_markers",
    "broker.before_offset_commit",
    "broker.before_produce_answer",
    "broker.topics.create_committed",
    "broker.topics.logs_created",
)
# in the classic protocol a late one is taken for the next transaction's (tests/crash/test_end_txn_delay.py)
INDISTINCT_APIS = (ApiKey.END_TXN, ApiKey.TXN_OFFSET_COMMIT)
GAP_S = (0.1, 0.8)  # between two faults
PAUSES_S = (0.1, 0.5, 4.0, 9.0)  # longer than a session of a group, than a transaction may last
HOLDS_S = (0.05, 0.5, 3.0)  # the last is longer than a client waits for an answer


class Workers(Protocol):
    """The client processes that run now."""

    def pids(self) -> list[int]:
        """Their process ids."""
        ...

    def replace(self, pid: int) -> None:
        """Start another process in the place of this one, which lives on."""
        ...


class Nemesis:
    """Makes faults one after the other in a thread of its own; what it did is in `nemesis.log`."""

    def __init__(
        self,
        rng: Random,
        broker: EmbeddedBroker,
        proxy: KafkaProxy,
        workers: Workers,
        folder: Path,
        longest_pause_s: float,
    ) -> None:
        self._rng = rng
        self._longest_pause_s = longest_pause_s
        self._broker = broker
        self._proxy = proxy
        self._workers = workers
        self._log = (folder / "nemesis.log").open("a")
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self.faults = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """End, and leave a broker that runs and a proxy that only forwards."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._heal()
        self._broker.env = {}  # the next one dies nowhere
        self._log.close()
        self._proxy.forget_faults()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        faults: list[Callable[[], None]] = [
            self._kill_broker,
            self._pause_broker,
            self._cut,
            self._lose_answers,
            self._lose_answers,
            self._kill_worker,
            self._pause_worker,
            self._take_over,
        ]
        try:
            while not self._stop.wait(self._rng.uniform(*GAP_S)):
                self._heal()
                self._rng.choice(faults)()
                self.faults += 1
        except Exception as error:  # noqa: BLE001 - raised again by `finish`
            self._failure = error

    def _kill_broker(self) -> None:
        self._note("kill the broker")
        self._broker.kill()
        self._stop.wait(self._rng.choice([0.0, 0.3]))
        if self._rng.random() < 0.5:
            self._restart()
            return
        point = f"{self._rng.choice(CRASH_POINTS)}:{self._rng.randint(1, 60)}"
        self._note(f"the broker is to die at {point}")
        try:
            self._restart(point)
        except TailraceError:  # it has died there already, as it recovered
            self._restart()

    def _heal(self) -> None:
        """Start a broker again that has died at its crash point."""
        if not self._broker.is_running():
            self._note("the broker has died")
            self._broker.wait_for_exit()
            self._restart()

    def _restart(self, crash_at: str = "") -> None:
        self._broker.env = {"TAILRACE_CRASH_AT": crash_at}
        self._broker.restart()

    def _pause_broker(self) -> None:
        self._pause("the broker", self._broker.pid)

    def _cut(self) -> None:
        self._note("cut all connections")
        self._proxy.cut()

    def _lose_answers(self) -> None:
        for _ in range(self._rng.randint(1, 4)):
            apis = self._rng.choice([FAULTY_APIS, TRANSACTION_APIS, TRANSACTION_APIS])
            fault = Fault(
                self._rng.choice(apis),
                self._rng.choice(KINDS),
                self._rng.randrange(3),
                self._rng.choice(HOLDS_S),
            )
            if fault.kind == "late_request" and fault.api_key in INDISTINCT_APIS:
                continue
            self._note(f"{fault.kind} of {fault.api_key.name} after {fault.after}, {fault.seconds} s")
            self._proxy.add(fault)

    def _kill_worker(self) -> None:
        if pids := self._workers.pids():
            pid = self._rng.choice(pids)
            self._note(f"kill client {pid}")
            _signal(pid, signal.SIGKILL)

    def _pause_worker(self) -> None:
        if pids := self._workers.pids():
            pid = self._rng.choice(pids)
            self._pause(f"client {pid}", pid)

    def _take_over(self) -> None:
        """A client freezes, another one gets its transactional id, and then it wakes up."""
        if pids := self._workers.pids():
            pid = self._rng.choice(pids)
            _signal(pid, signal.SIGSTOP)
            self._workers.replace(pid)
            self._pause(f"client {pid}, which is replaced,", pid)

    def _pause(self, who: str, pid: int) -> None:
        seconds = min(self._rng.choice(PAUSES_S), self._longest_pause_s)
        self._note(f"stop {who} for {seconds} s")
        _signal(pid, signal.SIGSTOP)
        self._stop.wait(seconds)
        _signal(pid, signal.SIGCONT)

    def _note(self, what: str) -> None:
        self._log.write(f"{time.monotonic_ns()} {what}\n")
        self._log.flush()


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has just ended by itself
