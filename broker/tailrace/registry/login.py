"""How a client gets into a registry, by Confluent's names.

basic.auth.user.info            user:password
basic.auth.credentials.source   USER_INFO, or SASL_INHERIT: the user and password of the brokers
bearer.auth.credentials.source  SASL_OAUTHBEARER_INHERIT: a token as for the brokers, asked for anew when it counts no longer
ssl.ca.location                 PEM file of who signs the registry's certificate; none: those of the system
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tailrace.broker.client import ClientSecurity
from tailrace.broker.client.security import OptionError
from tailrace.broker.client.tokens import get_token
from tailrace.changes.errors import ConfigError
from tailrace.security.listeners import is_loopback
from tailrace.security.sasl import OAUTHBEARER
from tailrace.security.secrets import Secret

USER_INFO = "basic.auth.user.info"
CREDENTIALS_SOURCE = "basic.auth.credentials.source"
AUTHORITIES = "ssl.ca.location"
TOKEN_SOURCE = "bearer.auth.credentials.source"
OPTIONS = (USER_INFO, CREDENTIALS_SOURCE, TOKEN_SOURCE, AUTHORITIES)
_INHERIT_TOKEN = "SASL_OAUTHBEARER_INHERIT"


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """`user_info` is user:password; `authorities` the PEM file of who signs the registry's certificate; `tokens` says
    where to get a bearer token instead of a password."""

    user_info: Secret | None = None
    authorities: Path | None = None
    tokens: ClientSecurity | None = None

    def check(self, url: str) -> None:
        """Raise ConfigError for a login that is none, or that would be shown to the network."""
        if self.user_info is not None and not self.user_info.reveal().partition(":")[1]:
            raise ConfigError(f"{USER_INFO} is not user:password")
        option, shown = (TOKEN_SOURCE, "token") if self.tokens else (USER_INFO, "password")
        parts = urlsplit(url)
        guarded = parts.scheme == "https" or is_loopback(parts.hostname or "")
        if not guarded and (self.user_info or self.tokens):
            raise ConfigError(
                f"{option} would show the {shown} to the network on the way to {url}",
                fix="use the registry's https address",
            )

    def authorization(self, *, timeout_s: float) -> str | None:
        """The `Authorization` header, with a new token where it holds one.

        Raises LoginError where there is no token to be had, RetryableError where its endpoint does not answer.
        """
        if self.tokens is not None:
            return f"Bearer {get_token(self.tokens, timeout_s=timeout_s).reveal()}"
        if self.user_info is not None:
            return f"Basic {base64.b64encode(self.user_info.reveal().encode()).decode()}"
        return None


def read_login(given: Mapping[str, object], folder: Path, security: ClientSecurity) -> RegistryLogin | None:
    """The login that options by name amount to; relative paths start from `folder`.  Raises OptionError."""
    info, tokens = _read_password(given, security), _read_tokens(given, security)
    authorities = None
    if given.get(AUTHORITIES):
        authorities = folder / Path(str(given[AUTHORITIES])).expanduser()
        if not authorities.is_file():
            raise OptionError(
                AUTHORITIES,
                f"{AUTHORITIES}: there is no file {authorities}",
                fix="give the path of a PEM file",
            )
    if info is None and authorities is None and tokens is None:
        return None
    return RegistryLogin(info, authorities, tokens)


def _read_password(given: Mapping[str, object], security: ClientSecurity) -> Secret | None:
    source = str(given.get(CREDENTIALS_SOURCE) or "USER_INFO")
    info = given.get(USER_INFO)
    if source == "SASL_INHERIT":
        if info is not None:
            raise OptionError(USER_INFO, f"{USER_INFO} contradicts {source}", fix="remove one of them")
        if security.password is None:
            raise OptionError(
                CREDENTIALS_SOURCE,
                f"{source} needs sasl.username and sasl.password of the brokers",
                fix=f"give them, or {USER_INFO}",
            )
        return Secret(f"{security.username}:{security.password.reveal()}")
    if source != "USER_INFO":
        raise OptionError(
            CREDENTIALS_SOURCE,
            f"{CREDENTIALS_SOURCE} is '{source}', which this client does not speak",
            fix="use USER_INFO or SASL_INHERIT",
        )
    if CREDENTIALS_SOURCE in given and info is None:
        raise OptionError(CREDENTIALS_SOURCE, f"{source} needs {USER_INFO}", fix="give user:password there")
    return info if isinstance(info, Secret) or info is None else Secret(str(info))


def _read_tokens(given: Mapping[str, object], security: ClientSecurity) -> ClientSecurity | None:
    source = given.get(TOKEN_SOURCE)
    if source is None:
        return None
    if source != _INHERIT_TOKEN:
        raise OptionError(
            TOKEN_SOURCE,
            f"{TOKEN_SOURCE} is '{source}', which this client does not speak",
            fix=f"use {_INHERIT_TOKEN}",
        )
    if USER_INFO in given or CREDENTIALS_SOURCE in given:
        raise OptionError(
            TOKEN_SOURCE,
            f"{TOKEN_SOURCE} contradicts basic.auth: there is one login",
            fix="remove one of them",
        )
    if security.mechanism != OAUTHBEARER:
        raise OptionError(
            TOKEN_SOURCE,
            f"{_INHERIT_TOKEN} needs sasl.mechanism OAUTHBEARER of the brokers",
            fix=f"give it, or {USER_INFO}",
        )
    return security
