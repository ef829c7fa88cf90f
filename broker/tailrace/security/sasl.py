"""SASL: one exchange per mechanism, and the session of a connection that authenticates by them.

    SaslHandshake      names a mechanism: the broker's list, and an error for one that is not on it
    SaslAuthenticate   one message of the exchange; the last answer says for how long the session holds

A session that holds for a while must be renewed by the same user and mechanism before it ends (KIP-368);
whatever else then arrives closes the connection.  Where the user's credential changes or goes, the broker
closes the connection (`uses`).
"""

import asyncio
import hmac
import math
import time
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tailrace.security.bearer import INVALID_TOKEN, TokenError, TokenValidator, read_token
from tailrace.security.limits import FailedLogins
from tailrace.security.principals import Principal, user
from tailrace.security.scram import LONGEST_NAME, Mechanism, ScramError, ScramServer, matches
from tailrace.security.secrets import Secret
from tailrace.security.users import Users

PLAIN = "PLAIN"
OAUTHBEARER = "OAUTHBEARER"
MECHANISMS = (PLAIN, *Mechanism, OAUTHBEARER)

Credentials = frozenset[tuple[str, Mechanism]]


class SaslFailure(Exception):
    """The client is not who it says; `user` is who it said, as far as that is known."""

    def __init__(self, why: str, user: str = "", *, counts: bool = True) -> None:
        super().__init__(why)
        self.user = user
        self.counts = counts  # towards the lock of the user name


@dataclass(frozen=True, slots=True)
class Proven:
    """What an exchange ended with: the credentials that it rests on, and when it ends (epoch seconds)."""

    principal: Principal
    credentials: Credentials = frozenset()
    expires_at: float = math.inf


class Exchange(Protocol):
    """One authentication; `proven` is set with the last answer.  Raises SaslFailure."""

    proven: Proven | None

    async def answer(self, message: bytes) -> bytes:
        """The server's message for the client's."""


class _Scram:
    def __init__(self, mechanism: Mechanism, users: Users) -> None:
        self.proven: Proven | None = None
        self._mechanism = mechanism
        self._users = users
        self._server = ScramServer(
            mechanism,
            lambda name: users.find(name, mechanism),
            lambda name: users.pretended(name, mechanism),
        )
        self._started = False

    async def answer(self, message: bytes) -> bytes:
        server = self._server
        try:
            if not self._started:
                self._started = True
                return server.first(message)
            last = server.final(message)
        except ScramError as error:
            raise SaslFailure(str(error), server.user) from None
        if self._users.find(server.user, self._mechanism) != server.used:
            raise SaslFailure("the credential was changed meanwhile", server.user)
        self.proven = Proven(user(server.user), frozenset({(server.user, self._mechanism)}))
        return last


class _Plain:
    """`[authzid] NUL user NUL password` (RFC 4616), checked against the user's SCRAM credential."""

    def __init__(self, users: Users, executor: Executor) -> None:
        self.proven: Proven | None = None
        self._users = users
        self._executor = executor

    async def answer(self, message: bytes) -> bytes:
        try:
            authzid, name, password = message.decode().split("\0")
        except ValueError:
            raise SaslFailure("the client's message is malformed") from None
        if not name or not password or len(name) > LONGEST_NAME:
            raise SaslFailure("the user name or the password is empty or too long")
        if authzid and not hmac.compare_digest(authzid.encode(), name.encode()):
            raise SaslFailure("a client cannot act as somebody else", name)
        known = self._users.any_of(name)
        mechanism, credential = known or (
            Mechanism.SHA_512,
            self._users.pretended(name, Mechanism.SHA_512),
        )
        check = partial(matches, mechanism, Secret(password), credential)
        right = await asyncio.get_running_loop().run_in_executor(self._executor, check)
        if not right or known is None:
            raise SaslFailure("the user name or the password is wrong", name)
        if self._users.find(name, mechanism) != credential:
            raise SaslFailure("the credential was changed meanwhile", name)
        self.proven = Proven(user(name), frozenset({(name, mechanism)}))
        return b""


class _OAuthBearer:
    def __init__(self, validator: TokenValidator) -> None:
        self.proven: Proven | None = None
        self._validator = validator
        self._failure = ""

    async def answer(self, message: bytes) -> bytes:
        if self._failure:
            raise SaslFailure(self._failure)
        try:
            identity = await self._validator.validate(read_token(message))
        except TokenError as error:
            self._failure = f"the token does not count: {error}"
            return INVALID_TOKEN
        self.proven = Proven(user(identity.name), expires_at=identity.expires_at)
        return b""


class Authenticator:
    """Makes exchanges of the enabled mechanisms; `tokens` is there where OAUTHBEARER is enabled."""

    def __init__(
        self, enabled: Collection[str], users: Users, tokens: TokenValidator | None, executor: Executor
    ) -> None:
        self._enabled = tuple(enabled)
        self.users = users
        self.tokens = tokens
        self._executor = executor
        self.failed_logins = FailedLogins()

    @property
    def takes_passwords(self) -> bool:
        """Whether a SCRAM user's password counts at all."""
        return any(name != OAUTHBEARER for name in self._enabled)

    def mechanisms(self, *, tls: bool) -> list[str]:
        """What a listener offers: PLAIN shows the password, so only inside TLS."""
        return [name for name in self._enabled if tls or name != PLAIN]

    def exchange(self, mechanism: str) -> Exchange:
        """A new exchange of an enabled mechanism."""
        if mechanism == PLAIN:
            return _Plain(self.users, self._executor)
        if mechanism == OAUTHBEARER:
            assert self.tokens is not None
            return _OAuthBearer(self.tokens)
        return _Scram(Mechanism(mechanism), self.users)


class SaslSession:
    """The authentication of one connection, first and again.

    `max_lifetime_s`: `connections.max.reauth.ms`, infinite when that is off.  `clock` is monotonic, `epoch` the
    time of day that tokens speak of; both in seconds.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        tls: bool,
        address: str,
        max_lifetime_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        epoch: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._address = address
        self._max_lifetime_s = max_lifetime_s
        self._clock = clock
        self._epoch = epoch
        self.offered = authenticator.mechanisms(tls=tls)
        self._exchange: Exchange | None = None
        self._mechanism = ""
        self._proven: Proven | None = None
        self._proven_by = ""
        self._ends_at = math.inf
        self.raw = False
        """Whether the messages of the exchange come without requests around them (SaslHandshake v0)."""
        self.failure = ""
        """Why the login failed, for the log only."""
        self.failed = False
        """After a failure nothing but the end of the connection follows."""

    @property
    def principal(self) -> Principal | None:
        """Who is connected; None before the first success."""
        return self._proven.principal if self._proven else None

    @property
    def may_ask(self) -> bool:
        """Whether requests are served: authenticated, and not longer ago than the session holds."""
        if self._proven is None or self._exchange is not None or self.failed:
            return False
        return self._clock() < self._ends_at

    @property
    def exchanging(self) -> bool:
        """Whether a mechanism was chosen and its exchange is not at its end."""
        return self._exchange is not None

    def uses(self, changed: Collection[tuple[str, Mechanism]]) -> bool:
        """Whether the session rests on one of these credentials."""
        return self._proven is not None and not self._proven.credentials.isdisjoint(changed)

    def choose(self, mechanism: str, *, raw: bool = False) -> bool:
        """Begin an exchange; False: the mechanism is not offered."""
        if self.failed or mechanism not in self.offered:
            self.failed, self.failure = True, self.failure or "its mechanism is not offered"
            return False
        self._mechanism, self.raw = mechanism, raw
        self._exchange = self._authenticator.exchange(mechanism)
        return True

    async def answer(self, message: bytes) -> tuple[bytes, int]:
        """The server's message, and for how many ms the session holds (0: no end, or not there yet).

        Raises SaslFailure.
        """
        exchange = self._exchange
        try:
            if exchange is None:
                raise SaslFailure("no mechanism was chosen")
            message = await exchange.answer(message)
            if exchange.proven is None:
                return message, 0
            self._check(exchange.proven)
        except SaslFailure as failure:
            self.failed, self.failure = True, str(failure)
            if failure.counts:
                self._authenticator.failed_logins.record(self._address, failure.user, self._clock())
            raise
        self._proven, self._proven_by, self._exchange = exchange.proven, self._mechanism, None
        self.raw = False
        left_s = min(self._max_lifetime_s, exchange.proven.expires_at - self._epoch())
        self._ends_at = self._clock() + left_s
        return message, 0 if math.isinf(left_s) else max(1, int(left_s * 1000))

    def _check(self, proven: Proven) -> None:
        """A right password does not help while the name is locked, nor may a session change hands."""
        logins, name = self._authenticator.failed_logins, proven.principal.name
        if logins.is_locked(self._address, name, self._clock()):
            raise SaslFailure("too many failed logins, locked for a minute", name, counts=False)
        logins.forgive(self._address, name)
        if self._proven and (self._proven.principal, self._proven_by) != (proven.principal, self._mechanism):
            raise SaslFailure("a session cannot be renewed by another user or mechanism", name)
