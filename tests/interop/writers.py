"""What each Python client does while its broker dies: write until told to stop, and keep a ledger."""

import asyncio
import threading
import warnings
from collections.abc import Callable
from typing import Any

import aiokafka
import confluent_kafka as ck
from tests.interop.ledger import Ledger, Progress

from tailrace.broker.embedded import EmbeddedBroker

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python reads its schemas the old way
    import kafka
    import kafka.errors

TOPIC = "t"
TIMEOUT_S = 60.0
QUIET: dict[str, Any] = {"log_level": 0}  # librdkafka tells every refused connection of a dead broker

# writes until told to stop, reports each step, fills the ledger
Writer = Callable[[str, Ledger, Progress, threading.Event], None]


class BackgroundWriter:
    """A writer in a thread of its own; `finish` stops it and tells what went wrong in it."""

    def __init__(self, writer: Writer, bootstrap: str) -> None:
        self.ledger, self.progress = Ledger(), Progress()
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, args=(writer, bootstrap), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Let the writer end its last step."""
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the writer hangs"
        assert not self._failures, self._failures

    def _work(self, writer: Writer, bootstrap: str) -> None:
        try:
            writer(bootstrap, self.ledger, self.progress, self._stop)
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            self._failures.append(error)


def read_all(broker: EmbeddedBroker) -> list[bytes]:
    """Every committed value, up to a record written now."""
    last = b"the very last"
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap, **QUIET})
    producer.produce(TOPIC, last)
    assert producer.flush(TIMEOUT_S) == 0
    consumer = ck.Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            **QUIET,
        }
    )
    consumer.subscribe([TOPIC])
    values: list[bytes] = []
    try:
        while True:
            message = consumer.poll(TIMEOUT_S)
            assert message is not None, "the reader is stuck"
            assert message.error() is None, message.error()
            value = message.value()
            if value == last:
                return values
            assert isinstance(value, bytes)
            values.append(value)
    finally:
        consumer.close()


def confluent_idempotent(bootstrap: str, ledger: Ledger, progress: Progress, stop: threading.Event) -> None:
    producer = ck.Producer(
        {"bootstrap.servers": bootstrap, **QUIET, "enable.idempotence": True, "linger.ms": 1}
    )
    number = 0

    def delivered(error: ck.KafkaError | None, message: ck.Message) -> None:
        assert error is None, error
        value = message.value()
        assert isinstance(value, bytes)
        ledger.acknowledged.add(value)
        progress.step()

    while not stop.is_set():
        producer.produce(TOPIC, b"%d" % number, on_delivery=delivered)
        number += 1
        producer.poll(0.001)
    assert producer.flush(TIMEOUT_S) == 0


def confluent_transactions(bootstrap: str, ledger: Ledger, progress: Progress, stop: threading.Event) -> None:
    producer = ck.Producer(
        {"bootstrap.servers": bootstrap, **QUIET, "transactional.id": "tx", "linger.ms": 0}
    )
    producer.init_transactions(TIMEOUT_S)
    number = 0
    while not stop.is_set():
        number += 1
        values = frozenset(b"%d.%d" % (number, part) for part in range(3))
        try:
            producer.begin_transaction()
            for value in values:
                producer.produce(TOPIC, value)
            assert producer.flush(TIMEOUT_S) == 0
            if number % 3 == 0:
                ledger.aborted |= values
                producer.abort_transaction(TIMEOUT_S)
            else:
                end_transaction(producer)
                ledger.acknowledged |= values
        except ck.KafkaException as error:
            assert error.args[0].txn_requires_abort(), error
            ledger.aborted |= values
            producer.abort_transaction(TIMEOUT_S)
        progress.step()


def end_transaction(producer: ck.Producer) -> None:
    """Commit, again and again while the broker is away: that is safe, a repeated commit is answered alike."""
    while True:
        try:
            return producer.commit_transaction(TIMEOUT_S)
        except ck.KafkaException as error:
            if not error.args[0].retriable():
                raise


def kafka_python_idempotent(
    bootstrap: str, ledger: Ledger, progress: Progress, stop: threading.Event
) -> None:
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    sent: list[tuple[bytes, object]] = []
    number = 0
    while not stop.is_set():
        value = b"%d" % number
        sent.append((value, producer.send(TOPIC, value)))
        number += 1
        if number % 10 == 0:
            producer.flush(TIMEOUT_S)
            progress.step()
    producer.flush(TIMEOUT_S)
    for value, future in sent:
        assert future.succeeded()  # type: ignore[attr-defined]
        ledger.acknowledged.add(value)
    producer.close()


def kafka_python_transactions(
    bootstrap: str, ledger: Ledger, progress: Progress, stop: threading.Event
) -> None:
    number = 0
    while not stop.is_set():
        producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, transactional_id="tx")
        try:
            producer.init_transactions()
            while not stop.is_set():
                number += 1
                values = frozenset(b"%d.%d" % (number, part) for part in range(3))
                outcome = ledger.aborted
                try:
                    producer.begin_transaction()
                    for value in values:
                        producer.send(TOPIC, value)
                    producer.flush(TIMEOUT_S)
                    if number % 3 == 0:
                        producer.abort_transaction()
                    else:
                        outcome = set()
                        producer.commit_transaction()
                        outcome = ledger.acknowledged
                except kafka.errors.KafkaError:
                    if outcome is not ledger.aborted:
                        ledger.unknown.append(values)
                    raise
                finally:
                    outcome |= values
                progress.step()
        except kafka.errors.KafkaError:
            continue  # as its documentation says: close it, and begin again with a new producer
        finally:
            producer.close(timeout=10)


def aiokafka_idempotent(bootstrap: str, ledger: Ledger, progress: Progress, stop: threading.Event) -> None:
    async def write() -> None:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=bootstrap, enable_idempotence=True, request_timeout_ms=60_000
        ) as producer:
            number = 0
            while not stop.is_set():
                values = [b"%d" % (number + part) for part in range(5)]
                number += 5
                sent = [await producer.send(TOPIC, value) for value in values]
                await asyncio.gather(*sent)
                ledger.acknowledged.update(values)
                progress.step()

    asyncio.run(write())


def aiokafka_transactions(bootstrap: str, ledger: Ledger, progress: Progress, stop: threading.Event) -> None:
    async def write() -> None:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=bootstrap, transactional_id="tx", request_timeout_ms=60_000
        ) as producer:
            number = 0
            while not stop.is_set():
                number += 1
                values = frozenset(b"%d.%d" % (number, part) for part in range(3))
                await producer.begin_transaction()
                for value in values:
                    await producer.send_and_wait(TOPIC, value)
                if number % 3 == 0:
                    ledger.aborted |= values
                    await producer.abort_transaction()
                else:
                    await producer.commit_transaction()
                    ledger.acknowledged |= values
                progress.step()

    asyncio.run(write())
