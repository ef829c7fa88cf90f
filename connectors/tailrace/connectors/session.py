"""One publishing session: from an open source to the log, until it is stopped or something breaks.

    source's thread          received bytes -> change sets -> record batches -> queue of bounded size
    publishing thread        queue -> producer transactions -> `confirm` to the source

Whatever waits in the queue goes into one producer transaction: small ones and low latency when little
happens, large ones when much does.  Any error ends the session; a new one reads back from the log what
became durable, so nothing has to be guessed.
"""

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator

from tailrace.broker.client import Client, InterruptedClientError
from tailrace.changes import ChangeSet, ConfigError, Lsn, TableId, crash_point
from tailrace.connectors.prepare import ChangePreparer, LogNames, PreparedSet
from tailrace.connectors.publish import Publisher
from tailrace.connectors.source import LogState, Note, Source
from tailrace.registry.envelope import SchemaStore

_log = logging.getLogger(__name__)

_QUEUE_BYTES = 32 << 20
_TRANSACTION_BYTES = 16 << 20
_TICK_S = 0.2
_IDLE_POSITION_S = 1.0
"""A position alone is written this often at most; it costs the log a transaction."""
_STOP_PATIENCE_S = 5.0


class _RecordRequest:
    """A note that the source's thread waits for."""

    def __init__(self, note: Note) -> None:
        self.note = note
        self.done = threading.Event()


class _Queue:
    """Prepared sets on their way to the publishing thread, bounded in bytes."""

    def __init__(self) -> None:
        self._items: deque[PreparedSet | _RecordRequest] = deque()
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: PreparedSet | _RecordRequest) -> bool:
        """Wait for room and append; False when the queue was closed."""
        with self._changed:
            while self._size >= _QUEUE_BYTES and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._items.append(item)
            self._size += item.size if isinstance(item, PreparedSet) else 0
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float) -> list[PreparedSet] | _RecordRequest:
        """What is there, up to a transaction's size; waits for the first item."""
        taken: list[PreparedSet] = []
        size = 0
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait(timeout_s)
            while self._items and size < _TRANSACTION_BYTES:
                item = self._items[0]
                if isinstance(item, _RecordRequest):
                    if not taken:
                        self._items.popleft()
                        return item
                    break
                taken.append(item)
                size += item.size
                self._items.popleft()
            self._size -= size
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Take nothing more in and wake everybody; what is inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_drained(self) -> bool:
        with self._changed:
            return self._closed and not self._items


class Session:
    """Runs one source into one log.  `run` once; the counters may be read from any thread."""

    def __init__(self, client: Client, schemas: SchemaStore, names: LogNames, source: Source) -> None:
        self._client = client
        self._schemas = schemas
        self._names = names
        self._source = source
        self._publisher = Publisher(client, names)
        self._queue = _Queue()
        self._failures: deque[BaseException] = deque()
        self.over = threading.Event()
        """Set when the session has ended or is about to."""
        self.position: Lsn | None = None
        """The durable position."""
        self.timestamp = 0
        """Commit time of the newest durable source transaction, microseconds since the epoch."""
        self._uncommitted: Counter[TableId] = Counter()
        self.changes: Counter[TableId] = Counter()
        """Changes published and committed by this session, per table."""
        self.transactions = 0
        """Producer transactions committed by this session."""
        self.checked = False
        """Whether the source was reached and found fit."""
        self.log: LogState | None = None
        """What the log said at the start; None before it was read."""

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop` is set; raises what ended the session otherwise.

        ConfigError with every finding of the source's check, before anything is created anywhere.
        """
        # a twin that holds the source is found here, before our producer would fence its producer
        self.log = seen = self._publisher.peek()
        if seen is not None:
            check(self._source, seen)
        self.log = log = self._publisher.open()
        if log != seen:
            check(self._source, log)
        self.position = log.position
        self.checked = True
        preparer = ChangePreparer(
            self._schemas,
            self._names.topics,
            self._publisher.create_topics(),
            self._names.transformed,
            self._source.reselect,
        )
        threads = [
            threading.Thread(target=self._guard, args=(self._read, log, preparer), name="source"),
            threading.Thread(target=self._guard, args=(self._publish,), name="publisher"),
        ]
        for thread in threads:
            thread.start()
        while not stop.wait(_TICK_S) and not self.over.is_set():
            pass
        self._shut_down(threads)
        for failure in self._failures:
            if not isinstance(failure, InterruptedClientError):
                raise failure

    def record(self, note: Note) -> None:
        """The source's Journal: hand the note to the publishing thread and wait until it is durable."""
        request = _RecordRequest(note)
        if not self._queue.put(request):
            raise InterruptedClientError("the session ended before a note was written")
        while not request.done.wait(_TICK_S):
            if self.over.is_set():
                raise InterruptedClientError("the session ended while a note was written")

    def _shut_down(self, threads: list[threading.Thread]) -> None:
        """Let what was read be committed if that is possible soon, then end all threads."""
        reader, publisher = threads
        self._source.close()
        if self.over.is_set():  # something broke: nothing more can be committed
            self._queue.close()
        reader.join(_STOP_PATIENCE_S)
        self._queue.close()
        publisher.join(_STOP_PATIENCE_S)
        if publisher.is_alive() or reader.is_alive():
            self._client.interrupt()
        for thread in threads:
            thread.join()

    def _guard(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._failures.append(error)
            self.over.set()
            self._queue.close()

    def _read(self, log: LogState, preparer: ChangePreparer) -> None:
        notes: list[Note] = []
        with contextlib.closing(self._items(log)) as items:
            for item in items:
                if isinstance(item, Note):
                    notes.append(item)
                    continue
                if not self._queue.put(preparer.prepare(item, notes)):
                    return
                notes = []
        self._queue.close()

    def _items(self, log: LogState) -> Generator[ChangeSet | Note]:
        position = log.position
        if self._source.needs_snapshot(log):
            position = None
            for item in self._source.snapshot(self):
                if isinstance(item, ChangeSet):
                    position = item.position
                yield item
        if position is not None:
            yield from self._source.stream(position)

    def _publish(self) -> None:
        waiting: list[PreparedSet] = []
        committed_at = time.monotonic()
        while not self._queue.is_drained:
            taken = self._queue.take(_TICK_S)
            if isinstance(taken, _RecordRequest):
                self._publisher.record(taken.note)
                taken.done.set()
                continue
            waiting += taken
            if not waiting or self._may_wait(waiting, committed_at):
                waiting = waiting[-1:]
                continue
            position = self._publisher.publish(waiting)
            self._count(waiting)
            if position is not None:
                committed_at = time.monotonic()
                self._committed(position)
            waiting = []
        if self._publisher.in_transaction:  # a snapshot or a large transaction was cut off
            self._publisher.abort()

    def _may_wait(self, sets: list[PreparedSet], committed_at: float) -> bool:
        """Whether nothing but positions is at hand, too soon after the last commit."""
        if self._publisher.in_transaction or not all(prepared.is_empty for prepared in sets):
            return False
        return time.monotonic() - committed_at < _IDLE_POSITION_S

    def _count(self, sets: list[PreparedSet]) -> None:
        for prepared in sets:
            self._uncommitted.update(prepared.changes)
            if prepared.position is not None:
                self.timestamp = max(self.timestamp, prepared.timestamp)
                self.changes.update(self._uncommitted)
                self._uncommitted.clear()

    def _committed(self, position: Lsn) -> None:
        if self.position is None:
            crash_point("source.after_snapshot_commit")
        crash_point("source.after_commit_before_confirm")
        self._source.confirm(position)
        crash_point("source.after_confirm")
        self.position = position
        self.transactions += 1


def check(source: Source, log: LogState | None) -> None:
    """Log the source's warnings; raise one ConfigError that holds all its errors."""
    findings = source.check(log)
    for finding in findings:
        if finding.level == "warning":
            _log.warning("%s", finding)
    errors = [finding for finding in findings if finding.level == "error"]
    if len(errors) == 1:
        raise ConfigError(errors[0].what, fix=errors[0].fix)
    if errors:
        numbered = " ".join(f"({number}) {error}." for number, error in enumerate(errors, 1))
        raise ConfigError(f"{len(errors)} things keep the source from starting: {numbered}")
