"""What every handler is given beside the request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tailrace.broker.broker import Broker
from tailrace.broker.caller import ANYBODY, Caller
from tailrace.security.authorizer import Access
from tailrace.security.principals import Principal


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asked in which version."""

    broker: Broker
    version: int
    client_id: str
    client_host: str
    caller: Caller = ANYBODY

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
