"""The WAL stream of one slot: a thread that receives, answers in time and confirms what is durable.

    'r' | Int64 written | Int64 flushed | Int64 applied | Int64 sent at (us since 2000) | Byte1 answer wanted

"Standby status update", PostgreSQL manual, "Streaming Replication Protocol".  written = received; flushed =
applied = the position that the log has fsynced, and nothing else.

The thread appends to a segment of memory; the consumer takes views of the part that is complete, so bytes
are neither copied nor handed over one message at a time.

    segment   |<- given to the consumer ->|<- whole messages ->|<- a cut message ->|<- free ->|
              0                         taken               whole               filled     size

When `queue_bytes` are waiting the thread stops reading (back-pressure reaches the server through TCP), but
goes on sending status updates, so that the server never takes us for dead.
"""

import struct
import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
import psycopg

from tailrace.changes import Lsn, format_lsn
from tailrace.connectors.postgres.backend import (
    COPY_DONE,
    ERROR,
    HEADER,
    Bytes,
    error_of,
    messages,
    open_backend,
)
from tailrace.connectors.postgres.connection import Connection, readable, simple_query
from tailrace.connectors.postgres.frames import Frames, scan_frames
from tailrace.connectors.source import SourceUnavailable

_SEGMENT_BYTES = 4 << 20
_ROOM_BYTES = 64 << 10
_TICK_S = 0.2
_GATHER_S = 0.003
_PLENTY_BYTES = 256 << 10
_ASK_AFTER_S = 1.0  # an idle server names its WAL end only when asked
_LONGEST_STATUS_INTERVAL_S = 10.0
_SHORTEST_SILENCE_S = 5.0
_POSTGRES_EPOCH_S = 946_684_800


@dataclass(slots=True)
class _Segment:
    data: Bytes
    filled: int = 0
    whole: int = 0
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Whole messages: `data` and where in it the pgoutput messages are.  Valid until the next `take`."""

    data: Bytes
    frames: Frames


class WalStream:
    """Streams a slot from `start` on.  `take` and `close` belong to the consumer, `confirm` to any thread."""

    def __init__(
        self,
        connection: Connection,
        *,
        slot: str,
        publication: str,
        start: Lsn,
        binary: bool,
        queue_bytes: int,
    ) -> None:
        self._connection = connection
        self._queue_bytes = queue_bytes
        self._interval_s, self._silence_s = _patience(connection)
        self._received = start
        self._confirmed = start
        self._reported: Lsn | None = None
        self._segments: deque[_Segment] = deque([_Segment(np.empty(_SEGMENT_BYTES, np.uint8))])
        self._waiting = 0
        self._failure: Exception | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._backend = open_backend(connection)
        try:
            self._backend.start(_start_command(slot, publication, start, binary))
        except BaseException:
            self._backend.close()
            raise
        self._thread = threading.Thread(target=self._run, name="wal-receiver", daemon=True)
        self._thread.start()

    @property
    def received(self) -> Lsn:
        """The newest WAL end that the server named."""
        return self._received

    @property
    def confirmed(self) -> Lsn:
        """The newest position that was confirmed to us."""
        return self._confirmed

    @property
    def waiting_bytes(self) -> int:
        """Bytes received and not taken yet."""
        return self._waiting

    def confirm(self, position: Lsn) -> None:
        """Let the slot move to `position`; the server is told within a fraction of a second."""
        self._confirmed = max(self._confirmed, position)

    def take(self, timeout_s: float) -> Block | None:
        """The whole messages that have arrived, None when none came in time or the stream is closed.

        The block taken before is given back by this call.  Raises SourceUnavailable when the connection was
        lost, after everything that came before the loss has been taken.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (segment := self._front()) is None:
                if self._failure is not None:
                    raise self._failure
                left = deadline - time.monotonic()
                if left <= 0 or self._closing:
                    return None
                self._changed.wait(left)
            data = segment.data[segment.taken : segment.whole]
            segment.taken = segment.whole
            self._waiting -= data.size
            self._changed.notify_all()
        return Block(data, scan_frames(data))

    def close(self) -> None:
        """Send the last confirmed position, end the stream and the connection.  Any thread; twice is once."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._connection.close()

    def _front(self) -> _Segment | None:
        """The oldest segment with something to take; drops those that are used up."""
        while len(self._segments) > 1 and self._segments[0].taken == self._segments[0].whole:
            self._segments.popleft()
        front = self._segments[0]
        return front if front.taken < front.whole else None

    def _run(self) -> None:
        try:
            self._receive()
            self._send_status(answer_wanted=False)
        except psycopg.Error as error:
            self._fail(readable(error.sqlstate, str(error)))
        except Exception as error:  # noqa: BLE001 - raised again in the consumer's thread
            self._fail(error)
        finally:
            self._backend.stop()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _receive(self) -> None:
        heard_at = status_at = time.monotonic()
        asked = False
        self._send_status(answer_wanted=True)  # the answer names the server's WAL end at once
        while not self._closing:
            paused = self._wait_for_room()
            count = 0 if paused else self._receive_piece()
            now = time.monotonic()
            if count or paused:
                heard_at, asked = now, False
            elif now - heard_at > self._silence_s:
                raise SourceUnavailable(f"Postgres has said nothing for {now - heard_at:.0f} s")
            reply = bool(count) and self._arrived(count)
            quiet = not asked and now - heard_at > min(_ASK_AFTER_S, self._interval_s)
            moved = self._confirmed != self._reported and now - status_at > _TICK_S
            if reply or quiet or moved or now - status_at > self._interval_s:
                self._send_status(answer_wanted=quiet)
                status_at, asked = now, asked or quiet
            if 0 < count < _PLENTY_BYTES:
                # let the kernel gather: a system call per row would cost more than the row
                time.sleep(_GATHER_S)

    def _receive_piece(self) -> int:
        segment = self._segments[-1]
        return self._backend.receive_into(segment.data[segment.filled :].data, _TICK_S)

    def _arrived(self, count: int) -> bool:
        """Account for new bytes; True when the server wants an answer at once."""
        segment = self._segments[-1]
        segment.filled += count
        frames = scan_frames(segment.data[segment.whole : segment.filled])
        self._received = max(self._received, frames.wal_end)
        with self._changed:
            segment.whole += frames.consumed
            self._waiting += frames.consumed
            if frames.consumed:
                self._changed.notify_all()
        if frames.other:
            self._not_copy_data(segment)
        if segment.data.size - segment.filled < _ROOM_BYTES:
            self._append_segment(segment)
        return frames.reply_requested

    def _append_segment(self, full: _Segment) -> None:
        tail = full.data[full.whole : full.filled]
        needed = tail.size
        if tail.size >= HEADER:
            needed = max(needed, 1 + int.from_bytes(tail[1:HEADER].tobytes(), "big"))
        segment = _Segment(np.empty(max(_SEGMENT_BYTES, needed + _ROOM_BYTES), np.uint8), tail.size)
        segment.data[: tail.size] = tail
        with self._changed:
            full.filled = full.whole
            self._segments.append(segment)

    def _not_copy_data(self, segment: _Segment) -> None:
        """Deal with a message that is no CopyData: an error or the end of the copy ends the stream."""
        rest = segment.data[segment.whole : segment.filled].tobytes()
        for kind, body, end in messages(rest):
            if kind == ERROR:
                raise error_of(body)
            if kind == COPY_DONE:
                raise SourceUnavailable("Postgres ended the replication stream; the server is shutting down")
            # a notice or a changed parameter: cut it out, so that the segment holds CopyData only
            keep = rest[end:]
            segment.data[segment.whole : segment.whole + len(keep)] = np.frombuffer(keep, np.uint8)
            segment.filled = segment.whole
            self._arrived(len(keep))
            return

    def _wait_for_room(self) -> bool:
        """Hold back for a moment if the queue is full; True says that it was."""
        with self._changed:
            full = self._waiting >= self._queue_bytes
            if full and not self._closing:
                self._changed.wait(_TICK_S)
        return full

    def _send_status(self, *, answer_wanted: bool) -> None:
        confirmed = self._confirmed
        now = int((time.time() - _POSTGRES_EPOCH_S) * 1_000_000)
        written = max(self._received, confirmed)
        self._backend.send(struct.pack(">cqqqqb", b"r", written, confirmed, confirmed, now, answer_wanted))
        self._reported = confirmed


def _patience(connection: Connection) -> tuple[float, float]:
    """Seconds between status updates, and seconds of silence after which the connection counts as lost."""
    query = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'"
    timeout_s = int(simple_query(connection, query)[0][0] or 0) / 1000
    interval = min(timeout_s / 3, _LONGEST_STATUS_INTERVAL_S) if timeout_s else _LONGEST_STATUS_INTERVAL_S
    return interval, max(2.5 * interval, _SHORTEST_SILENCE_S)


def _start_command(slot: str, publication: str, start: Lsn, binary: bool) -> str:
    # publication_names is a list of SQL identifiers inside a string literal
    names = '"{}"'.format(publication.replace('"', '""')).replace("'", "''")
    options = (
        f"proto_version '2', streaming 'on', binary '{str(binary).lower()}', publication_names '{names}'"
    )
    return f'START_REPLICATION SLOT "{slot}" LOGICAL {format_lsn(start)} ({options})'
