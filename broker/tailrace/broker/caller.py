"""Who is at the other end of a connection."""

from dataclasses import dataclass

from tailrace.security.authorizer import Access
from tailrace.security.principals import ANONYMOUS, Principal
from tailrace.security.sasl import SaslSession


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, and the listener that it came through."""

    principal: Principal = ANONYMOUS
    access: Access | None = None  # None: no authorizer
    session: SaslSession | None = None  # None: a listener without SASL
    advertised: tuple[str, int] | None = None  # host and port that its listener tells; None: the broker's
    tls: bool = False


ANYBODY = Caller()
