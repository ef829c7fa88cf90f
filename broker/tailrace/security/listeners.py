"""Listeners: where the broker listens, how each one is protected, and which of them may be open.

    listeners=PLAINTEXT://127.0.0.1:9092,SASL_SSL://0.0.0.0:9093
    advertised.listeners=SASL_SSL://broker.example:9093
    listener.security.protocol.map=OUTSIDE:SASL_SSL          for names that are no protocol

Loopback is the only place where a listener may be open; anywhere else it needs TLS and authentication.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tailrace.changes.errors import ConfigError

_LISTENER = re.compile(r"(?P<name>[A-Za-z0-9_-]+)://(?P<host>\[[^\]]*\]|[^:/\[\]]*):(?P<port>\d+)")
_EVERY_ADDRESS = ("", "0.0.0.0", "::")


class SecurityProtocol(StrEnum):
    """Kafka's four."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def tls(self) -> bool:
        return self in (SecurityProtocol.SSL, SecurityProtocol.SASL_SSL)

    @property
    def sasl(self) -> bool:
        return self in (SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL)


@dataclass(frozen=True, slots=True)
class Listener:
    """One address: `port` 0 takes any free one, `advertised_port` 0 tells clients the one that listens."""

    name: str
    protocol: SecurityProtocol
    host: str
    port: int
    advertised_host: str
    advertised_port: int = 0

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}://{host}:{self.port}"


def parse_listeners(
    listeners: Sequence[str], advertised: Sequence[str], protocols: Sequence[str]
) -> tuple[Listener, ...]:
    """Read the three options.  Raises ConfigError."""
    mapped = _protocols(protocols)
    told = {name: (host, port) for name, host, port in map(_read_advertised, advertised)}
    found: dict[str, Listener] = {}
    for text in listeners:
        name, host, port = _read(text, "listeners")
        if name in found:
            raise ConfigError(f"the broker's option listeners names {name} twice")
        protocol = mapped.get(name)
        if protocol is None:
            raise ConfigError(
                f"the broker's listener {name} has no security protocol",
                fix=f"give it one in listener.security.protocol.map, as in {name}:SASL_SSL",
            )
        advertised_host, advertised_port = told.pop(name, (host, 0))
        if advertised_host in _EVERY_ADDRESS:
            raise ConfigError(
                f"the broker would listen on every address ({text}), and clients cannot be told which of "
                "them to use",
                fix=f"Give the address that clients connect to: advertised.listeners={name}://host:port",
            )
        found[name] = Listener(name, protocol, host, port, advertised_host, advertised_port)
    if told:
        raise ConfigError(f"advertised.listeners names {', '.join(told)}, which is not among the listeners")
    return tuple(found.values())


def check_protected(listener: Listener, *, client_certificates: bool, insecure: bool) -> None:
    """Refuse a listener that other machines reach without TLS and authentication.  Raises ConfigError."""
    if insecure or listener.is_local:
        return
    protocol = listener.protocol
    if not protocol.tls:
        lacking = "authentication but no TLS" if protocol.sasl else "neither TLS nor authentication"
    elif not protocol.sasl and not client_certificates:
        lacking = "TLS but no authentication"
    else:
        return
    raise ConfigError(
        f"the broker would listen on {listener.host}, which other machines can reach, and its listener "
        f"{listener.name} has {lacking}",
        fix="Use SASL_SSL, or SSL with ssl.client.auth=required, or listen on 127.0.0.1, or accept an open "
        "listener with --insecure",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host` (a literal address or `localhost`)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _protocols(items: Sequence[str]) -> dict[str, SecurityProtocol]:
    mapped = {str(protocol): protocol for protocol in SecurityProtocol}
    for item in items:
        name, _, protocol = item.partition(":")
        try:
            mapped[name.strip().upper()] = SecurityProtocol(protocol.strip().upper())
        except ValueError:
            raise ConfigError(
                f"the broker's option listener.security.protocol.map has {item!r}",
                fix=f"write NAME:PROTOCOL with one of {', '.join(SecurityProtocol)}",
            ) from None
    return mapped


def _read_advertised(text: str) -> tuple[str, str, int]:
    return _read(text, "advertised.listeners")


def _read(text: str, option: str) -> tuple[str, str, int]:
    found = _LISTENER.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65535:
        raise ConfigError(
            f"the broker's option {option} has {text!r}, which is no listener",
            fix="write PROTOCOL://host:port, as in SASL_SSL://broker.example:9093",
        )
    return found["name"].upper(), found["host"].strip("[]"), int(found["port"])
