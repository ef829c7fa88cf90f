"""How a client gets into a registry, by Confluent's names.

basic.auth.user.info            user:password
basic.auth.credentials.source   USER_INFO, or SASL_INHERIT: the user and password of the brokers
ssl.ca.location                 PEM file of who signs the registry's certificate; none: those of the system
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tailrace.broker.client import ClientSecurity
from tailrace.broker.client.security import OptionError
from tailrace.changes.errors import ConfigError
from tailrace.security.listeners import is_loopback
from tailrace.security.secrets import Secret

USER_INFO = "basic.auth.user.info"
CREDENTIALS_SOURCE = "basic.auth.credentials.source"
AUTHORITIES = "ssl.ca.location"
OPTIONS = (USER_INFO, CREDENTIALS_SOURCE, AUTHORITIES)


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """`user_info` is user:password; `authorities` the PEM file of who signs the registry's certificate."""

    user_info: Secret | None = None
    authorities: Path | None = None

    def check(self, url: str) -> None:
        """Raise ConfigError for a login that is none, or that would be shown to the network."""
        if self.user_info is None:
            return
        if not self.user_info.reveal().partition(":")[1]:
            raise ConfigError(f"{USER_INFO} is not user:password")
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ConfigError(
                f"{USER_INFO} would show the password to the network on the way to {url}",
                fix="use the registry's https address",
            )


def read_login(given: Mapping[str, object], folder: Path, security: ClientSecurity) -> RegistryLogin | None:
    """The login that options by name amount to; relative paths start from `folder`.  Raises OptionError."""
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
        info = Secret(f"{security.username}:{security.password.reveal()}")
    elif source != "USER_INFO":
        raise OptionError(
            CREDENTIALS_SOURCE,
            f"{CREDENTIALS_SOURCE} is '{source}', which this client does not speak",
            fix="use USER_INFO or SASL_INHERIT",
        )
    elif CREDENTIALS_SOURCE in given and info is None:
        raise OptionError(CREDENTIALS_SOURCE, f"{source} needs {USER_INFO}", fix="give user:password there")
    authorities = None
    if given.get(AUTHORITIES):
        authorities = folder / Path(str(given[AUTHORITIES])).expanduser()
        if not authorities.is_file():
            raise OptionError(
                AUTHORITIES,
                f"{AUTHORITIES}: there is no file {authorities}",
                fix="give the path of a PEM file",
            )
    if info is None and authorities is None:
        return None
    user_info = info if isinstance(info, Secret) or info is None else Secret(str(info))
    return RegistryLogin(user_info, authorities)
