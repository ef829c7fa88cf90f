"""A TCP proxy in front of a real server that can be cruel: slow, one byte at a time, silent, or gone."""

import select
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_PIECE = 1 << 16


class Proxy:
    """Forwards every connection to the server of `dsn`; `dsn_through` is the same database by way of the proxy."""

    def __init__(self, dsn: str, *, piece: int = _PIECE) -> None:
        parts = urlsplit(dsn)
        assert parts.hostname is not None and parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._piece = piece
        self._silent = threading.Event()
        self._closed = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        login = parts.netloc.rpartition("@")[0]
        self.dsn_through = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def be_silent(self) -> None:
        """Forward nothing any more, and keep every connection open (a half-open link)."""
        self._silent.set()

    def speak(self) -> None:
        """Forward again."""
        self._silent.clear()

    def cut(self) -> None:
        """Close every connection at once; new ones are welcome."""
        for pair in self._pairs:
            for end in pair:
                _shut(end)

    def close(self) -> None:
        self._closed.set()
        self.cut()
        for thread in self._threads:
            thread.join()
        for pair in self._pairs:
            for end in pair:
                end.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            server = socket.create_connection(self._server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, server))
            for source, target in ((client, server), (server, client)):
                thread = threading.Thread(target=self._forward, args=(source, target))
                thread.start()
                self._threads.append(thread)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while not self._closed.is_set():
                if self._silent.is_set():
                    self._closed.wait(0.05)
                    continue
                if not select.select([source], [], [], 0.05)[0]:
                    continue
                data = source.recv(_PIECE)
                if not data:
                    break
                for at in range(0, len(data), self._piece):
                    target.sendall(data[at : at + self._piece])
        except OSError:
            pass
        _shut(target)
        _shut(source)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # already gone
