"""Logins over HTTP: Basic with the password of a SCRAM user (RFC 7617), Bearer with a token (RFC 6750).

Every request brings its login, so a password that was right is remembered, as a keyed hash and for as long as its
credential stays: PBKDF2 costs milliseconds.  Failures count towards the lock of the name as they do on a listener.
"""

import base64
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable

from tailrace.security.bearer import TokenError
from tailrace.security.principals import Principal, user
from tailrace.security.sasl import PLAIN, Authenticator, Proven, SaslFailure
from tailrace.security.scram import Credential, Mechanism

_REMEMBERED = 1_000

_Held = dict[tuple[str, Mechanism], Credential | None]


class HttpLogins:
    """Finds out who sent an `Authorization` header; belongs to the thread of the authenticator's loop."""

    def __init__(self, authenticator: Authenticator, clock: Callable[[], float] = time.monotonic) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._key = os.urandom(32)
        self._remembered: OrderedDict[bytes, tuple[Proven, _Held]] = OrderedDict()

    @property
    def challenges(self) -> list[str]:
        """The `WWW-Authenticate` headers of a refusal."""
        offered = []
        if self._authenticator.takes_passwords:
            offered.append('Basic realm="tailrace", charset="UTF-8"')
        if self._authenticator.tokens is not None:
            offered.append('Bearer realm="tailrace"')
        return offered

    async def identify(self, authorization: str, address: str) -> Principal:
        """Who sends this header from this address.  Raises SaslFailure, whose text is for the log only."""
        scheme, _, rest = authorization.strip().partition(" ")
        if scheme.lower() == "basic" and self._authenticator.takes_passwords:
            return await self._by_password(rest.strip(), address)
        if scheme.lower() == "bearer" and self._authenticator.tokens is not None:
            return await self._by_token(rest.strip())
        raise SaslFailure("it brings no login", counts=False)

    async def _by_password(self, encoded: str, address: str) -> Principal:
        logins = self._authenticator.failed_logins
        try:
            name, password = _read_basic(encoded)
            self._refuse_locked(address, name)
            key = hmac.digest(self._key, encoded.encode(), "sha256")
            proven = self._recall(key)
            if proven is None:
                exchange = self._authenticator.exchange(PLAIN)
                await exchange.answer(f"\0{name}\0{password}".encode())
                assert exchange.proven is not None
                proven = exchange.proven
                self._refuse_locked(address, name)  # by guesses that came at the same time
                self._remember(key, proven)
        except SaslFailure as failure:
            if failure.counts:
                logins.record(address, failure.user, self._clock())
            raise
        logins.forgive(address, name)
        return proven.principal

    def _refuse_locked(self, address: str, name: str) -> None:
        if self._authenticator.failed_logins.is_locked(address, name, self._clock()):
            raise SaslFailure("too many failed logins, locked for a minute", name, counts=False)

    async def _by_token(self, token: str) -> Principal:
        assert self._authenticator.tokens is not None
        try:
            return user((await self._authenticator.tokens.validate(token)).name)
        except TokenError as error:
            raise SaslFailure(f"the token does not count: {error}", counts=False) from None

    def _recall(self, key: bytes) -> Proven | None:
        proven, held = self._remembered.get(key, (None, {}))
        if proven is None:
            return None
        if any(self._authenticator.users.find(*which) != credential for which, credential in held.items()):
            del self._remembered[key]  # the password was changed, or its user is gone
            return None
        self._remembered.move_to_end(key)
        return proven

    def _remember(self, key: bytes, proven: Proven) -> None:
        held = {which: self._authenticator.users.find(*which) for which in proven.credentials}
        self._remembered[key] = (proven, held)
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)


def _read_basic(encoded: str) -> tuple[str, str]:
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # no base64, or no UTF-8
        raise SaslFailure("its Basic login is malformed") from None
    if not colon:
        raise SaslFailure("its Basic login is malformed")
    return name, password
