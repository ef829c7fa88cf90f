"""What every handler is given beside the request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tailrace.broker.broker import Broker
from tailrace.broker.caller import ANYBODY, Caller
from tailrace.broker.log import LogError
from tailrace.broker.protocol import NULL_UUID
from tailrace.broker.topics import Topic
from tailrace.security.authorizer import Access
from tailrace.security.principals import Principal

_ADMIN_CLIENT = "__admin_client"


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

    def may_write(self, topic: Topic) -> bool:
        """Internal topics are written by the broker, and by clients with the id of Kafka's own admin client."""
        return not topic.internal or self.client_id == _ADMIN_CLIENT

    def topic_name(self, name: str, topic_id: bytes) -> str | None:
        """The name of a topic asked for by name or id; None: there is no topic with the id."""
        if topic_id == NULL_UUID:
            return name
        try:
            return self.broker.topics.by_id(UUID(bytes=topic_id)).name
        except LogError:
            return None


# A handler returns the response, or what becomes the response when awaited; None: no answer is sent (acks=0).
# It may use memoryviews inside the request only until it returns.
Handler = Callable[[RequestContext, Any], Any | Awaitable[Any]]


class CloseConnection(Exception):
    """The protocol has no other way to tell this client (an error under acks=0)."""
