"""What every handler is given beside the request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tailrace.broker.broker import Broker


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asked in which version."""

    broker: Broker
    version: int
    client_id: str
    client_host: str


# A handler returns the response, or what becomes the response when awaited; None: no answer is sent (acks=0).
# It may use memoryviews inside the request only until it returns.
Handler = Callable[[RequestContext, Any], Any | Awaitable[Any]]


class CloseConnection(Exception):
    """The protocol has no other way to tell this client (an error under acks=0)."""
