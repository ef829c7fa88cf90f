"""The security of one broker, put together from its options: who may connect, log in, and do what."""

import asyncio
import math
import ssl
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tailrace.broker.caller import Caller
from tailrace.broker.security_options import SecurityOptions
from tailrace.security.authorizer import Access, Authorizer
from tailrace.security.bearer import TokenValidator
from tailrace.security.http_login import HttpLogins
from tailrace.security.limits import ConnectionLimits
from tailrace.security.listeners import Listener
from tailrace.security.principals import ANONYMOUS, NameRules, Principal, parse_super_users, user
from tailrace.security.quotas import Quotas
from tailrace.security.sasl import OAUTHBEARER, Authenticator, SaslSession
from tailrace.security.store import SecurityStore
from tailrace.security.tls import ServerTls, peer_name
from tailrace.security.users import Users

_UNLIMITED = 2**31 - 1


class Protection:
    """Opened with the broker and closed with it; raises ConfigError and StoreError.

    Methods belong to the event loop's thread; what takes CPU for long (PBKDF2) and what waits (key sets) runs in
    one thread each, so that a flood of logins neither stops the loop nor delays an fsync, and an issuer that
    does not answer keeps only those with tokens waiting.
    """

    def __init__(self, options: SecurityOptions, listeners: Collection[Listener], database: Path) -> None:
        self._options = options
        self.listeners = tuple(listeners)
        sasl = any(listener.protocol.sasl for listener in self.listeners)
        self.tls: ServerTls | None = None
        if any(listener.protocol.tls for listener in self.listeners):
            self.tls = ServerTls(options.tls_files())
        self._names = NameRules(options.ssl_principal_mapping_rules)
        self._passwords = options.passwords()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="login")
        self._key_reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="issuer")
        logs_in = sasl or bool(options.authorizer_class_name)  # over HTTP
        tokens = self._tokens() if logs_in and OAUTHBEARER in options.sasl_enabled_mechanisms else None
        rate = options.max_connection_creation_rate
        self.limits = ConnectionLimits(
            options.max_connections,
            options.max_connections_per_ip,
            options.overrides(),
            None if rate == _UNLIMITED else rate,
        )
        self._store = SecurityStore(database)
        self.users = Users(self._store)
        self.quotas = Quotas(self._store)
        self.authorizer: Authorizer | None = None
        if options.authorizer_class_name:
            self.authorizer = Authorizer(
                self._store,
                super_users=parse_super_users(options.super_users),
                allow_without_rules=options.allow_everyone_if_no_acl_found,
            )
        self.authenticator = Authenticator(
            options.sasl_enabled_mechanisms, self.users, tokens, self._executor
        )
        self.http_logins = HttpLogins(self.authenticator)

    def _tokens(self) -> TokenValidator:
        from tailrace.security.oauth import JwksKeys, JwtValidator  # 20 MB that others do not pay

        keys = JwksKeys(
            self._options.sasl_oauthbearer_jwks_endpoint_url,
            self._key_reader,
            refresh_s=self._options.sasl_oauthbearer_jwks_endpoint_refresh_ms / 1000,
        )
        return JwtValidator(self._options.token_rules(), keys)

    async def start(self) -> None:
        """Make the users that the options name."""
        passwords, self._passwords = self._passwords, {}
        if passwords:
            await asyncio.get_running_loop().run_in_executor(
                self._executor, self.users.set_passwords, passwords
            )

    def session(self, listener: Listener, address: str) -> SaslSession | None:
        """The login of a new connection; None where the listener asks for none."""
        if not listener.protocol.sasl:
            return None
        most = self._options.connections_max_reauth_ms
        return SaslSession(
            self.authenticator,
            tls=listener.protocol.tls,
            address=address,
            max_lifetime_s=most / 1000 if most else math.inf,
        )

    def certified(self, ssl_object: ssl.SSLObject | None) -> Principal | None:
        """Who a client is by its certificate: ANONYMOUS without one, None if no rule names it."""
        name = peer_name(ssl_object) if ssl_object is not None else None
        if name is None:
            return ANONYMOUS
        found = self._names.user(name)
        return user(found) if found else None

    def caller(
        self,
        principal: Principal,
        address: str,
        session: SaslSession | None,
        listener: Listener,
        advertised: tuple[str, int],
    ) -> Caller:
        """What handlers are told about a connection."""
        access = None if self.authorizer is None else Access(self.authorizer, principal, address)
        return Caller(principal, access, session, advertised, listener.protocol.tls)

    def refusal(self, address: str) -> str | None:
        """Count a new connection; or the reason why there must not be one."""
        now = time.monotonic()
        if self.quotas.connection_delay_s(address, now) > 0:
            return "the quota connection_creation_rate of its address"
        return self.limits.take(address, now)

    def refresh(self) -> None:
        """Called about once a second: certificates that were renewed."""
        if self.tls is not None:
            self.tls.refresh()

    def close(self) -> None:
        """Close the store and the threads."""
        for executor in (self._executor, self._key_reader):
            executor.shutdown(wait=False, cancel_futures=True)
        self._store.close()
