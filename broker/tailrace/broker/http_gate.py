"""The way into what this process serves over HTTP: the broker's logins and its authorizer, from other threads.

Users, locks and rules belong to the event loop's thread, so every question is put to the loop.
"""

import asyncio
import concurrent.futures
import dataclasses
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from tailrace.broker.security_options import SecurityOptions
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import ConfigError
from tailrace.security.acls import Operation, ResourceType
from tailrace.security.authorizer import Access
from tailrace.security.principals import ANONYMOUS
from tailrace.security.sasl import SaslFailure
from tailrace.security.tls import ClientAuth, ServerTls

Question = tuple[Operation, ResourceType, str]
"""May somebody do this, to a resource of this type, with this name?"""


HTTPS = "https://"
"""Before the host and port of a server that speaks TLS."""


def http_tls(options: SecurityOptions, *, certified: bool = False) -> ServerTls:
    """TLS of an HTTP server with the broker's certificate.  Raises ConfigError.

    `certified`: clients may bring a certificate where the broker's listeners ask for one; who brings none logs in
    over HTTP, so none is required.
    """
    if not options.ssl_keystore_location:
        raise ConfigError(
            "an https address needs a certificate, and there is none", fix="give ssl.keystore.location (PEM)"
        )
    files = options.tls_files()
    if certified and files.client_auth is not ClientAuth.NONE:
        return ServerTls(dataclasses.replace(files, client_auth=ClientAuth.REQUESTED))
    return ServerTls(dataclasses.replace(files, client_auth=ClientAuth.NONE, trusted=None))


class HttpRefusedError(Exception):
    """Nobody knows who asks."""


class HttpGate:
    """For a broker with an authorizer; made on its running event loop, used from threads and loops of others."""

    def __init__(self, server: BrokerServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.challenges = server.broker.security.http_logins.challenges
        """`WWW-Authenticate` of a refusal."""

    def enter(
        self, authorization: str, address: str, tls: ssl.SSLObject | None = None
    ) -> "concurrent.futures.Future[HttpVisitor]":
        """Who sends this header or, without one, who the certificate inside `tls` names.

        It fails with HttpRefusedError, after the delay of a failed login.
        """
        entering = self._enter(authorization, address.removeprefix("::ffff:"), tls)
        return asyncio.run_coroutine_threadsafe(entering, self._loop)

    async def _enter(self, authorization: str, address: str, tls: ssl.SSLObject | None) -> "HttpVisitor":
        security = self._server.broker.security
        assert security.authorizer is not None
        if not authorization and (certified := security.certified(tls)) not in (None, ANONYMOUS):
            return HttpVisitor(Access(security.authorizer, certified, address), self._loop)
        try:
            principal = await security.http_logins.identify(authorization, address)
        except SaslFailure as failure:
            if authorization:
                self._server.complain("HTTP login from /%s failed: %s", address, failure)
                await asyncio.sleep(self._server.config.connection_failed_authentication_delay_ms / 1000)
            raise HttpRefusedError from None
        return HttpVisitor(Access(security.authorizer, principal, address), self._loop)


@dataclass(frozen=True, slots=True)
class HttpVisitor:
    """Somebody who has logged in, for one request; `loop` is the authorizer's."""

    access: Access
    loop: asyncio.AbstractEventLoop

    def ask(self, questions: Sequence[Question]) -> "concurrent.futures.Future[list[bool]]":
        """What the authorizer says to each question."""

        async def decide() -> list[bool]:
            return [self.access.may(*question) for question in questions]

        return asyncio.run_coroutine_threadsafe(decide(), self.loop)
