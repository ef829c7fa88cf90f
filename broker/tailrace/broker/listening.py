"""The sockets that listen: bound before anything is opened, accepting when everything is.

Every new connection is counted before a byte of it is read, so that neither TLS handshakes nor logins of a
client with too many connections cost anything.
"""

import asyncio
import dataclasses
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tailrace.broker.config import BrokerConfig
from tailrace.broker.protection import Protection
from tailrace.changes.errors import TailraceError
from tailrace.security.listeners import Listener, is_loopback

if TYPE_CHECKING:
    from tailrace.broker.connection import Connection

BACKLOG = 512
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_OUT_OF_FILES_PAUSE_S = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """One listener with its socket; `advertised` is what clients that come through it are told."""

    listener: Listener
    socket: socket.socket

    @property
    def port(self) -> int:
        """The port that listens."""
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def advertised(self) -> tuple[str, int]:
        """Host and port for Metadata and FindCoordinator."""
        return self.listener.advertised_host, self.listener.advertised_port or self.port


def bind(listener: Listener) -> Door:
    """Take the listener's port.  Raises TailraceError."""
    host, port = listener.host, listener.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # IPv4 first: clients that resolve `localhost` try it at the latest as their second
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise TailraceError(f"the broker cannot listen on {host}: {error}") from error
    if listener.is_local and not is_loopback(str(address[0])):
        sock.close()
        raise TailraceError(
            f"the broker cannot listen on {host}: on this machine it is {address[0]}, which others can reach",
            fix="Listen on 127.0.0.1, or mend /etc/hosts",
        )
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise TailraceError(
                f"the broker cannot listen on {host}:{port}: another process uses this port",
                fix="Stop that process or choose another port with --listen",
            ) from error
        raise TailraceError(f"the broker cannot listen on {host}:{port}: {error.strerror}") from error
    sock.setblocking(False)
    return Door(listener, sock)


def as_bound(config: BrokerConfig, doors: Sequence[Door]) -> BrokerConfig:
    """The options with the listeners as they are, ports included: what DescribeConfigs tells."""
    return dataclasses.replace(
        config,
        listeners=tuple(str(dataclasses.replace(door.listener, port=door.port)) for door in doors),
        advertised_listeners=tuple(
            str(dataclasses.replace(door.listener, host=door.advertised[0], port=door.advertised[1]))
            for door in doors
        ),
    )


class Porter:
    """Lets clients in through one door, until it is cancelled."""

    def __init__(
        self,
        door: Door,
        protection: Protection,
        *,
        make: Callable[[str], "Connection"],
        complain: Callable[..., None],
        handshake_timeout_s: float,
    ) -> None:
        self._door = door
        self._protection = protection
        self._make = make
        self._complain = complain
        self._handshake_timeout_s = handshake_timeout_s
        self._coming: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept for ever."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    sock, peer = await loop.sock_accept(self._door.socket)
                except OSError as error:
                    self._complain("a client cannot be let in: %s", error.strerror)
                    if error.errno in _OUT_OF_FILES:
                        await asyncio.sleep(_OUT_OF_FILES_PAUSE_S)
                    continue
                address = _address(peer)
                reason = self._protection.refusal(address)
                if reason is not None:
                    sock.close()
                    self._complain("connection from /%s refused: %s", address, reason)
                    continue
                task = loop.create_task(self._let_in(sock, address))
                self._coming.add(task)
                task.add_done_callback(self._coming.discard)
        finally:
            self._door.socket.close()
            for task in self._coming:
                task.cancel()

    async def _let_in(self, sock: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._door.listener.protocol.tls:
                assert self._protection.tls is not None
                await loop.connect_accepted_socket(
                    lambda: self._make(address),
                    sock,
                    ssl=self._protection.tls.context,
                    ssl_handshake_timeout=self._handshake_timeout_s,
                )
            else:
                await loop.connect_accepted_socket(lambda: self._make(address), sock)
        except (OSError, ssl.SSLError) as error:
            self._protection.limits.release(address)
            sock.close()
            self._complain("connection from /%s closed: no TLS handshake: %s", address, _reason(error))
        except BaseException:
            self._protection.limits.release(address)
            sock.close()
            raise


def _address(peer: object) -> str:
    """The client's address as ACLs and limits name it: IPv4 also where it came through an IPv6 socket."""
    address = str(peer[0]) if isinstance(peer, tuple) else ""
    return address.removeprefix("::ffff:") if "." in address else address


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return str(error) or type(error).__name__
