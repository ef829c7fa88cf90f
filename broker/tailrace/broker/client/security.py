"""How a client proves itself to a cluster and the cluster to it: options by librdkafka's names.

    security.protocol: SASL_SSL
    sasl.mechanism: SCRAM-SHA-512
    sasl.username: shop
    sasl.password: ${env:KAFKA_PASSWORD}
    ssl.ca.location: ca.pem

Java's names for the same things (`sasl.jaas.config`, `ssl.truststore.location`) are refused with the name to use.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tailrace.broker.options import option, options_of
from tailrace.changes.errors import ConfigError
from tailrace.security.listeners import SecurityProtocol, is_loopback
from tailrace.security.sasl import MECHANISMS, OAUTHBEARER, PLAIN
from tailrace.security.secrets import Secret

_JAVA_NAMES = {
    "sasl.jaas.config": "sasl.username and sasl.password",
    "sasl.mechanisms": "sasl.mechanism",
    "ssl.truststore.location": "ssl.ca.location, a PEM file",
    "ssl.truststore.certificates": "ssl.ca.location, a PEM file",
    "ssl.truststore.password": "ssl.ca.location, a PEM file, which needs none",
    "ssl.truststore.type": "ssl.ca.location, a PEM file",
    "ssl.keystore.location": "ssl.certificate.location and ssl.key.location, PEM files",
    "ssl.keystore.key": "ssl.key.location, a PEM file",
    "ssl.keystore.certificate.chain": "ssl.certificate.location, a PEM file",
    "ssl.keystore.password": "ssl.key.password",
    "ssl.keystore.type": "ssl.certificate.location and ssl.key.location, PEM files",
    "enable.ssl.certificate.verification": "ssl.ca.location: certificates are always checked",
}


class OptionError(ConfigError):
    """An option of a client that cannot be obeyed; `option` is its name."""

    def __init__(self, name: str, what: str, *, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.option = name


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecurity:
    """What a client was told; checked, but no file is opened.  Raises OptionError."""

    protocol: SecurityProtocol = option(
        "security.protocol",
        SecurityProtocol.PLAINTEXT,
        f"How the cluster's listener is protected: {', '.join(SecurityProtocol)}.",
    )
    mechanism: str = option("sasl.mechanism", "", f"How to log in: {', '.join(MECHANISMS)}.")
    username: str = option("sasl.username", "", "Who logs in by PLAIN or SCRAM.")
    password: Secret | None = option("sasl.password", None, "The password of the user.", secret=True)
    token_url: str = option(
        "sasl.oauthbearer.token.endpoint.url",
        "",
        "Where OAUTHBEARER gets its token: file:///path, read at each login, or the https URL of a token endpoint.",
    )
    client_id: str = option(
        "sasl.oauthbearer.client.id", "", "Whom a token endpoint gives a token (grant client_credentials)."
    )
    client_secret: Secret | None = option(
        "sasl.oauthbearer.client.secret", None, "The secret of that client.", secret=True
    )
    scope: str = option("sasl.oauthbearer.scope", "", "The scope to ask the token endpoint for.")
    authorities: Path | None = option(
        "ssl.ca.location",
        None,
        "PEM file of who signs the brokers' certificates; without it the system's own.",
    )
    certificate: Path | None = option(
        "ssl.certificate.location", None, "PEM file of the client's certificate chain."
    )
    key: Path | None = option(
        "ssl.key.location", None, "PEM file of its key, where it is not in the same file."
    )
    key_password: Secret | None = option("ssl.key.password", None, "Password of the key.", secret=True)
    identification: str = option(
        "ssl.endpoint.identification.algorithm",
        "https",
        "https: the certificate must name the host; none: any certificate of the authorities will do.",
    )

    def __post_init__(self) -> None:
        self._check_unused()
        if self.identification not in ("https", "none"):
            raise _wrong("ssl.endpoint.identification.algorithm", self.identification, ("https", "none"))
        if self.key is not None and self.certificate is None:
            raise OptionError(
                "ssl.key.location", "a key without a certificate", fix="add ssl.certificate.location"
            )
        if self.key_password is not None and self.certificate is None:
            raise OptionError("ssl.key.password", "a password without a key", fix="add ssl.key.location")
        if self.protocol.sasl:
            self._check_login()

    @property
    def checks_host(self) -> bool:
        """Whether a certificate must name the host that was connected to."""
        return self.identification == "https"

    def _check_unused(self) -> None:
        """An option that the protocol has no use for is a mistake, most likely in the protocol."""
        for known in OPTIONS.values():
            if getattr(self, known.field) == known.default or known.name == "security.protocol":
                continue
            layer = known.name.partition(".")[0]
            if not (self.protocol.sasl if layer == "sasl" else self.protocol.tls):
                raise OptionError(
                    known.name,
                    f"{known.name} has no effect with security.protocol {self.protocol}",
                    fix=f"set security.protocol to {'SASL_SSL' if layer == 'sasl' else 'SSL or SASL_SSL'}",
                )

    def _check_login(self) -> None:
        if not self.mechanism:
            raise OptionError(
                "security.protocol",
                f"security.protocol {self.protocol} needs sasl.mechanism",
                fix=f"add sasl.mechanism with one of {', '.join(MECHANISMS)}",
            )
        if self.mechanism not in MECHANISMS:
            raise _wrong("sasl.mechanism", self.mechanism, MECHANISMS)
        if self.mechanism in (PLAIN, OAUTHBEARER) and not self.protocol.tls:
            shown = "password" if self.mechanism == PLAIN else "token"
            raise OptionError(
                "sasl.mechanism",
                f"{self.mechanism} would show the {shown} to the network with {self.protocol}",
                fix="set security.protocol to SASL_SSL, or use SCRAM-SHA-512",
            )
        if self.mechanism == OAUTHBEARER:
            self._check_token()
        elif not self.username or not self.password:
            raise OptionError(
                "sasl.mechanism",
                f"{self.mechanism} needs sasl.username and sasl.password",
                fix="add both; the password as ${env:NAME} or ${file:path}",
            )

    def _check_token(self) -> None:
        parts = urlsplit(self.token_url)
        local = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if parts.scheme not in ("file", "https") and not local:
            raise OptionError(
                "sasl.oauthbearer.token.endpoint.url" if self.token_url else "sasl.mechanism",
                "OAUTHBEARER needs sasl.oauthbearer.token.endpoint.url, an https URL or file:///path",
                fix="name the file that holds the token, or the endpoint that gives one",
            )
        if parts.scheme != "file" and not (self.client_id and self.client_secret):
            raise OptionError(
                "sasl.oauthbearer.token.endpoint.url",
                "a token endpoint needs sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret",
                fix="add both; the secret as ${env:NAME} or ${file:path}",
            )

    def tls_context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer with these files, read now.  Raises OptionError for a file that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.checks_host
        try:
            if self.authorities is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(self.authorities)
        except OSError as error:
            raise _unreadable("ssl.ca.location", self.authorities, error) from None
        if self.certificate is not None:
            password = self.key_password.reveal() if self.key_password else ""
            try:
                # never asks at a terminal: without a password a locked key is an error
                context.load_cert_chain(self.certificate, self.key, password=lambda: password)
            except OSError as error:
                raise _unreadable("ssl.certificate.location", self.certificate, error) from None
        return context


OPTIONS = options_of(ClientSecurity)
"""Every option by its name in files."""

PLAINTEXT = ClientSecurity()
"""No TLS and no login."""


def read_option(name: str, value: object, folder: Path) -> object:
    """The field's value for what a file says; a relative path starts from `folder`.  Raises OptionError."""
    known = OPTIONS.get(name)
    if known is None:
        instead = _JAVA_NAMES.get(name)
        raise OptionError(
            name, f"'{name}' is not an option of this client", fix=f"give {instead}" if instead else ""
        )
    if isinstance(value, Secret):
        return value
    if value is None or isinstance(value, list | dict | bool | float):
        raise OptionError(name, f"{name} is not text", fix="quote it")
    text = str(value)
    if known.secret:
        return Secret(text) if text else None
    if known.field == "protocol":
        if text.upper() not in SecurityProtocol.__members__:
            raise _wrong(name, text, tuple(SecurityProtocol))
        return SecurityProtocol(text.upper())
    if known.field == "identification":
        return text.lower() or "none"  # Java's way to write none
    if known.kind is Path:
        path = folder / Path(text).expanduser()
        if not path.is_file():
            raise OptionError(name, f"{name}: there is no file {path}", fix="give the path of a PEM file")
        return path
    return text


def read_security(given: Mapping[str, object], folder: Path) -> ClientSecurity:
    """The security that options by name amount to.  Raises OptionError."""
    fields: dict[str, Any] = {}
    for name, value in given.items():
        read = read_option(name, value, folder)
        fields[OPTIONS[name].field] = read
    return ClientSecurity(**fields)


def _wrong(name: str, value: str, known: tuple[str, ...]) -> OptionError:
    return OptionError(
        name, f"{name} is '{value}', which this client does not speak", fix=f"use {', '.join(known)}"
    )


def _unreadable(name: str, path: Path | None, error: OSError) -> OptionError:
    # OpenSSL's own reasons say nothing to a person
    reason = (
        "it is no PEM file, or its key does not fit" if isinstance(error, ssl.SSLError) else error.strerror
    )
    fix = "check ssl.key.location and ssl.key.password too" if "certificate" in name else ""
    return OptionError(name, f"{name} {path} cannot be used: {reason}", fix=fix)
