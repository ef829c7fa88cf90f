"""A COPY stream of the server as bytes in large pieces: libpq logs in, then we read its socket ourselves.

libpq hands out one row per call, which costs more than the server's work for it.  Without TLS the socket
carries plain messages, so after libpq's handshake `RawBackend` writes the command itself and receives into
the caller's buffer; libpq never sees the stream.  With TLS `LibpqBackend` takes rows from libpq and puts them
back into the same form.

    Byte1 kind | Int32 length, itself included | body        every message of the backend
    'd' CopyData   'c' CopyDone   'E' ErrorResponse   'N' NoticeResponse   'S' ParameterStatus
    'H' CopyOutResponse   'W' CopyBothResponse   'C' CommandComplete   'Z' ReadyForQuery

PostgreSQL manual, "Message Formats", "COPY Operations" and "Streaming Replication Protocol".
"""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
from psycopg import errors, pq

from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.connection import Connection, next_result, readable_errors, server_error
from tailrace.connectors.source import SourceUnavailable

Bytes = npt.NDArray[np.uint8]

_HEAD = struct.Struct(">Bi")
HEADER = _HEAD.size
COPY_DATA, COPY_DONE, ERROR, READY = ord("d"), ord("c"), ord("E"), ord("Z")
_COPY_OUT, _COPY_BOTH = ord("H"), ord("W")
_SEND_PATIENCE_MS = 10_000
_FIRST_ANSWER_BYTES = 1 << 16


class Backend(Protocol):
    """One session in COPY mode.  Used by one thread at a time."""

    def start(self, command: str) -> None:
        """Send a command that answers with COPY; psycopg's error of the SQLSTATE when it is refused."""

    def receive_into(self, view: memoryview, timeout_s: float) -> int:
        """Bytes written into `view`, 0 when none came in time; SourceUnavailable when the session ended."""

    def send(self, payload: bytes) -> None:
        """Send one CopyData message."""

    def stop(self) -> None:
        """Say that we send no more, wait for the server to hang up, and `close`."""

    def close(self) -> None:
        """Let go of the session; it may be used for something else if the copy was read to its end."""


def open_backend(connection: Connection) -> Backend:
    """The fastest way that this session allows."""
    return LibpqBackend(connection) if connection.pgconn.ssl_in_use else RawBackend(connection)


class RawBackend:
    """Reads the socket of a session without encryption."""

    def __init__(self, connection: Connection) -> None:
        self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))
        self._socket.setblocking(False)
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._ahead = b""

    def start(self, command: str) -> None:
        body = command.encode() + b"\0"
        self._send_all(_HEAD.pack(ord("Q"), len(body) + 4) + body)
        answer = bytearray()
        while True:
            for kind, body, end in messages(bytes(answer)):
                if kind == ERROR:
                    raise error_of(body)
                if kind in (_COPY_OUT, _COPY_BOTH):
                    self._ahead = bytes(answer[end:])
                    return
            piece = bytearray(_FIRST_ANSWER_BYTES)
            count = self.receive_into(memoryview(piece), 1.0)
            answer += piece[:count]

    def receive_into(self, view: memoryview, timeout_s: float) -> int:
        if self._ahead:
            count = min(len(view), len(self._ahead))
            view[:count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
            return count
        try:
            if not self._readable.poll(timeout_s * 1000):
                return 0
            count = self._socket.recv_into(view)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise SourceUnavailable(f"the connection to Postgres was lost: {error.strerror}") from error
        if count == 0:
            raise SourceUnavailable("Postgres closed the connection")
        return count

    def send(self, payload: bytes) -> None:
        self._send_all(_HEAD.pack(COPY_DATA, len(payload) + 4) + payload)

    def stop(self) -> None:
        with contextlib.suppress(OSError, SourceUnavailable):
            self._send_all(_HEAD.pack(COPY_DONE, 4) + _HEAD.pack(ord("X"), 4))
            self._socket.shutdown(socket.SHUT_WR)
            # unread data at close would make the kernel reset the connection, and our last message with it
            deadline = time.monotonic() + 1.0
            scrap = memoryview(bytearray(1 << 16))
            while time.monotonic() < deadline:
                self.receive_into(scrap, 0.1)
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _send_all(self, data: bytes) -> None:
        view = memoryview(data)
        writable = select.poll()
        writable.register(self._socket, select.POLLOUT)
        try:
            while view:
                if not writable.poll(_SEND_PATIENCE_MS):
                    raise SourceUnavailable("Postgres takes no more data on the connection")
                view = view[self._socket.send(view) :]
        except BlockingIOError:
            self._send_all(bytes(view))
        except OSError as error:
            raise SourceUnavailable(f"the connection to Postgres was lost: {error.strerror}") from error


class LibpqBackend:
    """Takes messages from libpq one by one and frames them again; for sessions with TLS."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._ahead = b""
        self._over = True

    def start(self, command: str) -> None:
        with readable_errors():
            self._pgconn.send_query(command.encode())
            result = next_result(self._connection)
        assert result is not None
        if result.status in (pq.ExecStatus.COPY_BOTH, pq.ExecStatus.COPY_OUT):
            self._over = False
            return
        raise _error_of_result(result)

    def receive_into(self, view: memoryview, timeout_s: float) -> int:
        filled = self._put(view, 0, self._ahead)
        ended = False
        with readable_errors():
            while filled < len(view) and not (self._over or ended):
                status, data = self._pgconn.get_copy_data(1)
                if status > 0:
                    filled += self._put(view, filled, _HEAD.pack(COPY_DATA, len(data) + 4) + data)
                elif status < 0:
                    ended = True
                elif select.select([self._pgconn.socket], [], [], 0 if filled else timeout_s)[0]:
                    self._pgconn.consume_input()  # one TLS record, which may be one row
                else:
                    break
        if ended:
            filled += self._put(view, filled, self._end_of_copy())
        return filled

    def _put(self, view: memoryview, at: int, message: bytes) -> int:
        """Write what fits; the rest goes first the next time."""
        count = min(len(view) - at, len(message))
        view[at : at + count] = message[:count]
        self._ahead = message[count:]
        return count

    def _end_of_copy(self) -> bytes:
        self._over = True
        while True:
            with readable_errors():
                result = next_result(self._connection)
            if result is None:
                break
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise _error_of_result(result)
        return _HEAD.pack(COPY_DONE, 4) + _HEAD.pack(READY, 5) + b"I"

    def send(self, payload: bytes) -> None:
        with readable_errors():
            self._pgconn.put_copy_data(payload)
            self._pgconn.flush()

    def stop(self) -> None:
        with contextlib.suppress(errors.Error):
            self._pgconn.put_copy_end()
            self._pgconn.flush()

    def close(self) -> None:
        """The session is libpq's."""


def messages(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """The whole messages of `data`: kind, body, offset of the byte after it."""
    at = 0
    while at + HEADER <= len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + HEADER], "big")
        if end > len(data):
            return
        yield data[at], data[at + HEADER : end], end
        at = end


def error_of(body: bytes) -> Exception:
    """The psycopg error of an ErrorResponse."""
    fields = {chr(field[0]): field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    return server_error(fields.get("C"), fields.get("M", "no reason given"))


def _error_of_result(result: pq.abc.PGresult) -> Exception:
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return server_error(state.decode() if state else None, result.get_error_message().strip())


@kernel
def join_copy_data(block: Bytes, out: Bytes) -> tuple[int, int]:
    """Copy the payloads of whole CopyData messages to `out`; bytes written, bytes consumed.

    Stops at a cut message and at one of another kind.
    """
    at = written = 0
    while at + HEADER <= block.size and block[at] == COPY_DATA:
        length = 0
        for i in range(1, HEADER):
            length = (length << 8) + block[at + i]
        end = at + 1 + length
        if end > block.size:
            break
        size = end - at - HEADER
        out[written : written + size] = block[at + HEADER : end]
        written += size
        at = end
    return written, at
