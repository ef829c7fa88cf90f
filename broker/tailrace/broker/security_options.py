"""The broker's options about security, by Kafka's names, and what they amount to."""

from dataclasses import dataclass
from pathlib import Path

from tailrace.broker.options import option
from tailrace.changes.errors import ConfigError
from tailrace.security.bearer import TokenRules
from tailrace.security.listeners import Listener, SecurityProtocol, check_protected, parse_listeners
from tailrace.security.principals import NameRules, parse_super_users
from tailrace.security.sasl import MECHANISMS, OAUTHBEARER, PLAIN
from tailrace.security.scram import Mechanism
from tailrace.security.secrets import Secret, resolve
from tailrace.security.tls import ClientAuth, TlsFiles

_UNLIMITED = 2**31 - 1
_AUTHORIZERS = ("StandardAuthorizer", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """A part of BrokerConfig.  Secrets may be references: `${env:NAME}`, `${file:/path}`."""

    listeners: tuple[str, ...] = option(
        "listeners", (), "Where to listen, as in SASL_SSL://0.0.0.0:9093; none: host and port, in plain text."
    )
    advertised_listeners: tuple[str, ...] = option(
        "advertised.listeners", (), "What clients of each listener are told to connect to."
    )
    listener_security_protocol_map: tuple[str, ...] = option(
        "listener.security.protocol.map", (), "Protocols of listeners with names of their own, NAME:SASL_SSL."
    )
    authorizer_class_name: str = option(
        "authorizer.class.name", "", "StandardAuthorizer: ACLs decide; empty: everybody may do everything."
    )
    super_users: str = option(
        "super.users", "", "Principals that no ACL binds, as in User:admin;User:CN=ops."
    )
    allow_everyone_if_no_acl_found: bool = option(
        "allow.everyone.if.no.acl.found", False, "Whether a resource that no ACL names is open to everybody."
    )
    sasl_enabled_mechanisms: tuple[str, ...] = option(
        "sasl.enabled.mechanisms",
        tuple(reversed(Mechanism)),
        f"Some of {', '.join(MECHANISMS)}; PLAIN is offered inside TLS only.",
    )
    scram_users: tuple[str, ...] = option(
        "tailrace.scram.users",
        (),
        "Users that must exist, as in alice=${file:/run/secrets/alice}.",
        secret=True,
    )
    secret_folders: tuple[str, ...] = option(
        "tailrace.secret.folders", (), "Folders that ${file:} references may name; none: any."
    )
    ssl_keystore_location: str = option(
        "ssl.keystore.location",
        "",
        "PEM file of the broker's certificate chain, and of its key if it is inside.",
    )
    ssl_keystore_key_location: str = option(
        "ssl.keystore.key.location", "", "PEM file of the key, where it has its own."
    )
    ssl_key_password: str = option("ssl.key.password", "", "Password of the key.", secret=True)
    ssl_truststore_location: str = option(
        "ssl.truststore.location", "", "PEM file of who signs the certificates of clients."
    )
    ssl_client_auth: str = option(
        "ssl.client.auth", "none", "Whether clients bring certificates: none, requested, required."
    )
    ssl_principal_mapping_rules: str = option(
        "ssl.principal.mapping.rules", "DEFAULT", "How the name in a certificate becomes a user."
    )
    sasl_oauthbearer_jwks_endpoint_url: str = option(
        "sasl.oauthbearer.jwks.endpoint.url", "", "Where the issuer's keys are: https://… or file:///…."
    )
    sasl_oauthbearer_jwks_endpoint_refresh_ms: int = option(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms",
        3_600_000,
        "How long the issuer's keys are not read again.",
    )
    sasl_oauthbearer_expected_issuer: str = option(
        "sasl.oauthbearer.expected.issuer", "", "Who must have issued a token."
    )
    sasl_oauthbearer_expected_audience: tuple[str, ...] = option(
        "sasl.oauthbearer.expected.audience", (), "Whom a token must be for: one of these."
    )
    sasl_oauthbearer_sub_claim_name: str = option(
        "sasl.oauthbearer.sub.claim.name", "sub", "The claim that names the user."
    )
    sasl_oauthbearer_clock_skew_seconds: int = option(
        "sasl.oauthbearer.clock.skew.seconds", 30, "How far the issuer's clock may be off."
    )
    connections_max_reauth_ms: int = option(
        "connections.max.reauth.ms", 0, "How long a login holds; 0: as long as the connection or its token."
    )
    connection_failed_authentication_delay_ms: int = option(
        "connection.failed.authentication.delay.ms", 100, "How late a failed login is answered."
    )
    authentication_timeout_ms: int = option(
        "tailrace.authentication.timeout.ms", 15_000, "A client that has not logged in by then is hung up on."
    )
    max_connections: int = option("max.connections", 50_000, "Most connections.")
    max_connections_per_ip: int = option(
        "max.connections.per.ip", _UNLIMITED, "Most connections of one client address."
    )
    max_connections_per_ip_overrides: tuple[str, ...] = option(
        "max.connections.per.ip.overrides", (), "Other numbers for some addresses, as in 10.0.0.7:200."
    )
    max_connection_creation_rate: int = option(
        "max.connection.creation.rate", _UNLIMITED, "Most new connections a second."
    )

    def bound_listeners(self, default: Listener, *, insecure: bool) -> tuple[Listener, ...]:
        """The listeners, checked.  Raises ConfigError for one that is open to other machines."""
        found: tuple[Listener, ...] = (default,)
        if self.listeners:
            found = parse_listeners(
                self.listeners, self.advertised_listeners, self.listener_security_protocol_map
            )
        elif self.advertised_listeners:
            raise ConfigError(
                "the broker's option advertised.listeners needs listeners", fix="give both, or neither"
            )
        required = self.client_auth is ClientAuth.REQUIRED
        for listener in found:
            check_protected(listener, client_certificates=required, insecure=insecure)
            if listener.protocol.sasl and not self.offered(listener.protocol):
                raise ConfigError(
                    f"the broker's listener {listener.name} offers no mechanism: PLAIN shows the password, so "
                    "it needs TLS",
                    fix="use SASL_SSL, or add SCRAM-SHA-512 to sasl.enabled.mechanisms",
                )
        if any(listener.protocol.tls for listener in found) and not self.ssl_keystore_location:
            raise ConfigError(
                "the broker has a TLS listener and no certificate", fix="give ssl.keystore.location (PEM)"
            )
        return found

    @property
    def client_auth(self) -> ClientAuth:
        """`ssl.client.auth` as one of its three values."""
        try:
            return ClientAuth(self.ssl_client_auth)
        except ValueError:
            raise ConfigError(
                f"the broker's option ssl.client.auth is {self.ssl_client_auth!r}",
                fix=f"use one of {', '.join(ClientAuth)}",
            ) from None

    def offered(self, protocol: SecurityProtocol) -> list[str]:
        """The mechanisms of a listener."""
        return [name for name in self.sasl_enabled_mechanisms if protocol.tls or name != PLAIN]

    def tls_files(self) -> TlsFiles:
        """The PEM files."""
        key, trusted = self.ssl_keystore_key_location, self.ssl_truststore_location
        password = self._secret(self.ssl_key_password, "ssl.key.password") if self.ssl_key_password else None
        return TlsFiles(
            Path(self.ssl_keystore_location),
            Path(key) if key else None,
            password,
            Path(trusted) if trusted else None,
            self.client_auth,
        )

    def passwords(self) -> dict[str, Secret]:
        """`tailrace.scram.users`, references resolved."""
        found = {}
        for item in self.scram_users:
            name, equals, password = item.partition("=")
            if not name or not equals or not password:
                raise ConfigError(
                    "the broker's option tailrace.scram.users has an item without name or password",
                    fix="write alice=${file:/path}",
                )
            found[name] = self._secret(password, f"tailrace.scram.users of {name}")
        return found

    def overrides(self) -> dict[str, int]:
        """`max.connections.per.ip.overrides`."""
        found = {}
        for item in self.max_connections_per_ip_overrides:
            address, _, most = item.rpartition(":")
            if not address or not most.isdecimal():
                raise ConfigError(
                    f"the broker's option max.connections.per.ip.overrides has {item!r}",
                    fix="write address:number",
                )
            found[address.strip("[]")] = int(most)
        return found

    def token_rules(self) -> TokenRules:
        """What tokens must say."""
        return TokenRules(
            self.sasl_oauthbearer_expected_issuer,
            tuple(self.sasl_oauthbearer_expected_audience),
            self.sasl_oauthbearer_sub_claim_name,
            self.sasl_oauthbearer_clock_skew_seconds,
        )

    def _secret(self, text: str, name: str) -> Secret:
        return resolve(text, name, folders=[Path(folder) for folder in self.secret_folders])

    def check_security(self) -> None:
        """Raise ConfigError for what could not be obeyed."""
        if self.authorizer_class_name not in ("", *_AUTHORIZERS):
            raise ConfigError(
                f"there is no authorizer {self.authorizer_class_name!r}", fix="use StandardAuthorizer"
            )
        parse_super_users(self.super_users)
        NameRules(self.ssl_principal_mapping_rules)
        self.overrides()
        unknown = set(self.sasl_enabled_mechanisms) - set(MECHANISMS)
        if unknown:
            raise ConfigError(
                f"there is no SASL mechanism {min(unknown)!r}", fix=f"use some of {', '.join(MECHANISMS)}"
            )
        if OAUTHBEARER in self.sasl_enabled_mechanisms and not (
            self.sasl_oauthbearer_jwks_endpoint_url
            and self.sasl_oauthbearer_expected_issuer
            and self.sasl_oauthbearer_expected_audience
        ):
            raise ConfigError(
                "OAUTHBEARER needs to know whose tokens count",
                fix="give sasl.oauthbearer.jwks.endpoint.url, .expected.issuer and .expected.audience",
            )
        for name in ("max_connections", "max_connections_per_ip", "max_connection_creation_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"broker option {name} must be greater than 0")
        if self.authentication_timeout_ms <= 0 or self.connections_max_reauth_ms < 0:
            raise ConfigError("the broker's times for logins must not be negative")
        if not 0 <= self.connection_failed_authentication_delay_ms < self.authentication_timeout_ms:
            raise ConfigError(
                "the broker's option connection.failed.authentication.delay.ms must be shorter than "
                "tailrace.authentication.timeout.ms"
            )
