"""What every handler is given beside the request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tailrace.broker.broker import Broker
from tailrace.security.authorizer import Access
from tailrace.security.principals import ANONYMOUS, Principal
from tailrace.security.sasl import SaslSession


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a connection, and through which listener."""

    principal: Principal = ANONYMOUS
    access: Access | None = None  # None: no authorizer
    session: SaslSession | None = None  # None: a listener without SASL
    advertised: tuple[str, int] | None = None  # host and port that its listener tells; None: the broker's only one


_ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asked in which version."""

    broker: Broker
    version: int
    client_id: str
    client_host: str
    caller: Caller = _ANYBODY

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.caller.principal

    @property
    def access(self) -> Access | None:
        """The authorizer for this principal; None: everybody may do everything."""
        return self.caller.access

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of this broker as this client reaches it."""
        return self.caller.advertised or (self.broker.host, self.broker.port)


# A handler returns the response, or what becomes the response when awaited; None: no answer is sent (acks=0).
# It may use memoryviews inside the request only until it returns.
Handler = Callable[[RequestContext, Any], Any | Awaitable[Any]]


class CloseConnection(Exception):
    """The protocol has no other way to tell this client (an error under acks=0)."""
