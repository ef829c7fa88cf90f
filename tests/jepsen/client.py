"""librdkafka as one process of the workload: a producer and a consumer, and what each operation came to."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import confluent_kafka as ck
from tests.jepsen.client_log import ClientLog
from tests.jepsen.history import Outcome, Poll, Records, Send, Step, reads_of
from tests.jepsen.workload import topic_partition

CONSUMER_PROTOCOL = "consumer protocol"
POLL_S = 0.05
MOST_RECORDS = 100  # of one poll
ABORT_SHARE = 1 / 32  # of the steps of a transaction


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long this process waits for what, in seconds."""

    request: float = 2.0  # one request
    session: float = 3.0  # of a group member
    transaction: float = 6.0
    operation: float = 12.0


class IntendedAbortError(Exception):
    """The workload gives this transaction up by itself."""


class NotSentError(Exception):
    """The client refused a record before it was sent: its partition is too new."""


@dataclass(frozen=True, slots=True)
class End:
    """What an operation came to; `usable`: whether the process may go on.

    `group`: to whose offsets a subscribed member has committed what it read.
    """

    outcome: Outcome
    steps: tuple[Step, ...]
    error: str = ""
    usable: bool = True
    group: str = ""


def settings(bootstrap: str, timeouts: Timeouts) -> dict[str, Any]:
    """What every librdkafka client of the workload is told."""
    return {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "socket.timeout.ms": int(timeouts.request * 1000),
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "topic.metadata.refresh.interval.ms": 1_000,
        # else librdkafka waits for ever for a group coordinator that it has dropped (librdkafka#5511)
        "metadata.recovery.strategy": "none",
        "allow.auto.create.topics": False,
    }


def read_record(message: ck.Message) -> tuple[str, tuple[int, int]]:
    """Key, offset and value."""
    offset, value = message.offset(), message.value()
    assert offset is not None
    assert value is not None
    return f"{message.topic()}/{message.partition()}", (offset, int(value))


class Client:
    """One producer, transactional or only idempotent, and one consumer that reads committed records."""

    def __init__(
        self,
        bootstrap: str,
        name: str,
        rng: Random,
        log: ClientLog,
        *,
        transactional: bool,
        subscribes: bool,
        strategy: str,
    ) -> None:
        """`name`: of the transactional id, and of the group unless the process subscribes.

        `log`: of this process.

        `strategy`: how partitions are assigned to those who subscribe; CONSUMER_PROTOCOL: by the broker (KIP-848).
        """
        self.timeouts = Timeouts()
        self.rebalanced: set[str] = set()
        self._rng = rng
        self._transactional = transactional
        self._subscribes = subscribes
        self._positions: dict[str, int] = {}  # of assigned keys
        self._log = log
        self._group = "subscribers" if subscribes else f"alone-{name}"
        common = settings(bootstrap, self.timeouts)
        kind = {"transactional.id": name, "transaction.timeout.ms": int(self.timeouts.transaction * 1000)}
        self._producer = ck.Producer(
            {**common, "linger.ms": 0, **(kind if transactional else {"enable.idempotence": True})}
        )
        self._consumer = ck.Consumer(
            {
                **common,
                "group.id": self._group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 200,
                **_membership(strategy, self.timeouts),
                "debug": "topic",
                "log_level": 7,
            }
        )

    def start(self) -> None:
        """Take the transactional id over.  Raises KafkaException."""
        if self._transactional:
            self._producer.init_transactions(self.timeouts.operation)

    def assign(self, keys: Sequence[str]) -> None:
        """Go on where this process was; keys that are new to it from their beginning."""
        self._positions = {key: self._positions.get(key, 0) for key in keys}
        self._consumer.assign(_places(self._positions))

    def subscribe(self, keys: Sequence[str]) -> None:
        """To the topics of the keys."""
        topics = sorted({topic_partition(key)[0] for key in keys})
        note = self._note_rebalance
        self._consumer.subscribe(topics, on_assign=note, on_revoke=note, on_lost=note)

    def run(self, steps: Sequence[Step]) -> End:
        """Do the steps, in one transaction if this process has them."""
        done = list(steps)
        end = self._run_transaction(done) if self._transactional else self._run_plain(done)
        read = reads_of(end.steps)
        if end.outcome == "ok":
            if not self._subscribes:
                self._positions |= {key: records[-1][0] + 1 for key, records in read.items()}
        elif read and end.usable:
            self._go_back({key: records[0][0] for key, records in read.items()})
        if self._subscribes and (back := self._log.went_back() & read.keys()):
            self._go_on_from_committed(back)
        return end

    def _run_plain(self, done: list[Step]) -> End:
        try:
            self._do(done)
        except NotSentError as error:
            return End("fail", tuple(done), repr(error))
        except (ck.KafkaException, TimeoutError) as error:
            return End("info", tuple(done), repr(error), usable=False)
        read = reads_of(done)
        if self._subscribes and read and not self._log.went_back() & read.keys():
            try:
                self._consumer.commit(offsets=_behind(read), asynchronous=False)
            except ck.KafkaException as refused:  # what was read was read all the same
                return End("ok", tuple(done), f"commit of offsets: {refused!r}")
        return End("ok", tuple(done))

    def _run_transaction(self, done: list[Step]) -> End:
        try:
            self._producer.begin_transaction()
            self._do(done)
            self._send_offsets(done)
            self._may_abort()
        except (ck.KafkaException, NotSentError, TimeoutError, IntendedAbortError) as error:
            return End("fail", tuple(done), repr(error), usable=self._abort())  # commit was never asked for
        deadline = time.monotonic() + self.timeouts.operation
        while True:
            try:
                self._producer.commit_transaction(self.timeouts.operation)
            except ck.KafkaException as error:
                refused = error.args[0]
                if refused.retriable() and time.monotonic() < deadline:
                    continue
                if refused.txn_requires_abort():
                    aborted = self._abort()
                    return End("fail" if aborted else "info", tuple(done), repr(error), usable=aborted)
                return End("info", tuple(done), repr(error), usable=False)
            return End("ok", tuple(done), group=self._group if self._subscribes else "")

    def _abort(self) -> bool:
        """Whether the transaction is aborted, and the producer good for another one."""
        deadline = time.monotonic() + self.timeouts.operation
        while True:
            try:
                self._producer.abort_transaction(self.timeouts.operation)
            except ck.KafkaException as error:
                if error.args[0].retriable() and time.monotonic() < deadline:
                    continue
                return False
            return True

    def _do(self, done: list[Step]) -> None:
        """Replace each step by what it came to."""
        for place, step in enumerate(done):
            self._may_abort()
            done[place] = self._send(step) if isinstance(step, Send) else Poll(self._poll())

    def _may_abort(self) -> None:
        if self._transactional and self._rng.random() < ABORT_SHARE:
            raise IntendedAbortError

    def _send(self, send: Send) -> Send:
        answers: list[tuple[ck.KafkaError | None, int | None]] = []
        topic, partition = topic_partition(send.key)
        try:
            self._producer.produce(
                topic,
                b"%d" % send.value,
                partition=partition,
                on_delivery=lambda error, message: answers.append((error, message.offset())),
            )
        except (ck.KafkaException, BufferError) as error:
            raise NotSentError(str(error)) from error
        deadline = time.monotonic() + self.timeouts.operation
        while not answers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{send} was not answered")
            self._producer.poll(0.05)
        ((refused, offset),) = answers
        if refused is not None:
            raise ck.KafkaException(refused)
        return Send(send.key, send.value, offset if offset is not None and offset >= 0 else None)

    def _poll(self) -> Records:
        read: dict[str, list[tuple[int, int]]] = {}
        for number in range(MOST_RECORDS):
            message = self._consumer.poll(0 if number else POLL_S)
            if message is None:
                break
            if message.error() is None:  # else the broker is away, or the topic not made yet
                key, record = read_record(message)
                read.setdefault(key, []).append(record)
        return read

    def _send_offsets(self, done: Sequence[Step]) -> None:
        read = reads_of(done)
        if self._subscribes and self.rebalanced & read.keys():
            raise IntendedAbortError("what was read may be another member's by now")
        if self._subscribes and self._log.went_back() & read.keys():
            raise IntendedAbortError("librdkafka went back by itself")
        if read:
            group = self._consumer.consumer_group_metadata()
            self._producer.send_offsets_to_transaction(_behind(read), group, self.timeouts.operation)

    def _go_back(self, first_read: dict[str, int]) -> None:
        if not self._subscribes:
            self._consumer.assign(_places(self._positions))
            return
        kept = {key: offset for key, offset in first_read.items() if key not in self.rebalanced}
        for place in _places(kept):
            self._seek(place)

    def _go_on_from_committed(self, keys: set[str]) -> None:
        self._log.forget(keys)
        with contextlib.suppress(ck.KafkaException):  # the broker is away
            places = [ck.TopicPartition(*topic_partition(key)) for key in keys]
            for place in self._consumer.committed(places, self.timeouts.request):
                if place.offset >= 0:
                    self._seek(place)

    def _seek(self, place: ck.TopicPartition) -> None:
        with contextlib.suppress(ck.KafkaException):  # it is another member's by now
            self._consumer.seek(place)

    def _note_rebalance(self, _: ck.Consumer, places: list[ck.TopicPartition]) -> None:
        self.rebalanced |= {f"{place.topic}/{place.partition}" for place in places}


def _membership(strategy: str, timeouts: Timeouts) -> dict[str, Any]:
    if strategy == CONSUMER_PROTOCOL:
        return {"group.protocol": "consumer"}  # the broker says how often a member calls
    return {
        "partition.assignment.strategy": strategy,
        "session.timeout.ms": int(timeouts.session * 1000),
        "heartbeat.interval.ms": int(timeouts.session * 250),
    }


def _behind(read: Records) -> list[ck.TopicPartition]:
    return _places({key: records[-1][0] + 1 for key, records in read.items()})


def _places(offsets: dict[str, int]) -> list[ck.TopicPartition]:
    return [ck.TopicPartition(*topic_partition(key), offset) for key, offset in offsets.items()]
