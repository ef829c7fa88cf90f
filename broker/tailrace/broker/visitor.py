"""Who a connection belongs to: known by a certificate or a login, and what may be sent before that."""

import ssl
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from tailrace.broker.caller import ANYBODY
from tailrace.broker.gate import MOST_BEFORE_LOGIN
from tailrace.broker.protection import Protection
from tailrace.security.principals import ANONYMOUS, Principal
from tailrace.security.sasl import SaslSession
from tailrace.security.scram import Mechanism

if TYPE_CHECKING:
    from tailrace.broker.listening import Door


class Visitor:
    """One client: `session` is its login (None where none is asked for), `caller` who it is by now."""

    def __init__(self, security: Protection, door: "Door", address: str, request_max_bytes: int) -> None:
        self._security = security
        self._door = door
        self._address = address
        self._request_max_bytes = request_max_bytes
        self._came = time.monotonic()
        self.session: SaslSession | None = None
        self.caller = ANYBODY
        self.most_frame = request_max_bytes

    def meet(self, ssl_object: ssl.SSLObject | None) -> bool:
        """Find out who came: by certificate, or by the login that is to follow.  False: no rule names its user."""
        principal = (
            self._security.certified(ssl_object) if not self._door.listener.protocol.sasl else ANONYMOUS
        )
        if principal is None:
            return False
        self.session = self._security.session(self._door.listener, self._address)
        self._introduce(principal)
        if self.session is not None:
            self.most_frame = min(MOST_BEFORE_LOGIN, self._request_max_bytes)
        return True

    def after_login_step(self) -> None:
        """The login went on, and did not fail: it may be complete."""
        if self.session is not None and self.session.principal is not None:
            self._introduce(self.session.principal)
            self.most_frame = self._request_max_bytes

    def logs_in_too_slowly(self, now: float, timeout_s: float) -> bool:
        """Whether the login is not complete after `timeout_s`; `now`: monotonic."""
        session = self.session
        return session is not None and session.principal is None and self._came < now - timeout_s

    def rests_on(self, changed: Collection[tuple[str, Mechanism]]) -> bool:
        """Whether the client logged in with one of these credentials."""
        return self.session is not None and self.session.uses(changed)

    def _introduce(self, principal: Principal) -> None:
        listener, advertised = self._door.listener, self._door.advertised
        self.caller = self._security.caller(principal, self._address, self.session, listener, advertised)
