"""Addresses of one node: those that a user names, and ports that are chosen once and kept."""

import json
import socket
from pathlib import Path

from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.changes.whole_file import replace_json


class KeptPorts:
    """Ports chosen at the first start, by name, in a file of their own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str) -> int:
        """The port chosen before, if it is still free; else 0."""
        port = self._ports.get(name, 0)
        try:
            bind("127.0.0.1", port).close()
        except TailraceError:
            return 0
        return port

    def keep(self, **ports: int) -> None:
        """Remember for the next start."""
        replace_json(self._path, ports, durable=False)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there.  Raises TailraceError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise TailraceError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            fix="stop what uses it, or choose another port",
        ) from error
    return listener


def parse_address(text: str) -> tuple[str, int]:
    """`host:port` -> (host, port); ConfigError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or "/" in host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"'{text}' is not an address", fix="write it as host:port, like 127.0.0.1:9092")
    return host.strip("[]"), int(port)
