"""A TCP proxy in front of a real broker that loses, withholds and forges answers on demand."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tailrace.broker.protocol import ApiKey, decode_request, encode_response

Forger = Callable[[Any], Any]


class FaultyProxy:
    """Forwards whole frames, one request at a time per connection; faults apply to the next matching requests.

    lose_request   the connection ends before the broker sees the request.
    lose_answer    the broker does what was asked, then the connection ends.
    forge          the broker never sees the request; `answer(request)` is the response.
    """

    def __init__(self) -> None:
        self.target = ("127.0.0.1", 0)
        self.seen: list[ApiKey] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._faults: list[tuple[ApiKey, str, Forger | None, int]] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._acceptor.join(10)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def lose_request(self, api_key: ApiKey, *, after: int = 0) -> None:
        """Cut the connection at a request of this API, once, after letting `after` of them pass."""
        self._add(api_key, "request", None, after)

    def lose_answer(self, api_key: ApiKey, *, after: int = 0) -> None:
        """Cut the connection once the broker has answered a request of this API."""
        self._add(api_key, "answer", None, after)

    def forge(self, api_key: ApiKey, answer: Forger, *, after: int = 0) -> None:
        """Answer a request of this API in the broker's place."""
        self._add(api_key, "forge", answer, after)

    def forget_faults(self) -> None:
        with self._lock:
            self._faults.clear()
            self.seen.clear()

    def _add(self, api_key: ApiKey, kind: str, forger: Forger | None, after: int) -> None:
        with self._lock:
            self._faults.append((api_key, kind, forger, after))

    def _fault_for(self, api_key: ApiKey) -> tuple[str, Forger | None]:
        with self._lock:
            self.seen.append(api_key)
            for index, (key, kind, forger, after) in enumerate(self._faults):
                if key != api_key:
                    continue
                if after:
                    self._faults[index] = (key, kind, forger, after - 1)
                    return "", None
                del self._faults[index]
                return kind, forger
        return "", None

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        broker: socket.socket | None = None
        with self._lock:
            self._open.add(client)
        try:
            broker = socket.create_connection(self.target)
            while self._exchange(client, broker):
                pass
        except OSError:
            return
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()
            if broker is not None:
                broker.close()

    def _exchange(self, client: socket.socket, broker: socket.socket) -> bool:
        """Carry one request and its answer; False when the connection is to end."""
        frame = _read_frame(client)
        api_key = ApiKey(int.from_bytes(frame[4:6], "big"))
        kind, forger = self._fault_for(api_key)
        if kind == "request":
            return False
        if forger is not None:
            header, request = decode_request(frame[4:])
            parts = encode_response(api_key, header.api_version, header.correlation_id, forger(request))
            client.sendall(b"".join(parts))
            return True
        broker.sendall(frame)
        answer = _read_frame(broker)
        if kind == "answer":
            return False
        client.sendall(answer)
        return True


def _read_frame(source: socket.socket) -> bytes:
    """One frame, its size included."""
    size = _read_exactly(source, 4)
    return size + _read_exactly(source, int.from_bytes(size, "big"))


def _read_exactly(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return bytes(data)
