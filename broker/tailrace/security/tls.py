"""TLS of a listener: certificates from PEM files, read again when they change; client names.

TLS 1.2 at least.  A certificate that was renewed on disk serves the next connection; files that cannot be read
leave the ones in use, with an error in the log.
"""

import logging
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tailrace.changes.errors import ConfigError
from tailrace.security.secrets import Secret

_log = logging.getLogger(__name__)


class ClientAuth(StrEnum):
    """`ssl.client.auth`."""

    NONE = "none"
    REQUESTED = "requested"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate chain (with its key, where `key` is None), and who signs clients."""

    certificates: Path
    key: Path | None
    key_password: Secret | None
    trusted: Path | None
    client_auth: ClientAuth = ClientAuth.NONE


class ServerTls:
    """The context for the next connection.  Raises ConfigError when the files cannot be used at start."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = self._stamps()
        self.context = self._load()

    def refresh(self) -> None:
        """Read the files again if one of them changed."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self.context = self._load()
        except ConfigError as error:
            _log.error("the changed certificates are not used: %s", error)
        else:
            _log.info("certificates read again from %s", self._files.certificates)

    def _stamps(self) -> list[tuple[int, int]]:
        stamps = []
        for path in (self._files.certificates, self._files.key, self._files.trusted):
            try:
                found = path.stat() if path else None
            except OSError:
                found = None
            stamps.append((found.st_mtime_ns, found.st_ino) if found else (0, 0))
        return stamps

    def _load(self) -> ssl.SSLContext:
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            # never asks at a terminal: without a password a locked key is an error
            context.load_cert_chain(files.certificates, files.key, password=self._password)
            if files.client_auth is not ClientAuth.NONE:
                if files.trusted is None:
                    raise ConfigError(
                        f"ssl.client.auth={files.client_auth} needs to know who signs the certificates of clients",
                        fix="give their PEM file as ssl.truststore.location",
                    )
                context.load_verify_locations(files.trusted)
                required = files.client_auth is ClientAuth.REQUIRED
                context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        except (OSError, ssl.SSLError) as error:
            reason = (
                error.strerror or "it is no PEM file, or its key does not fit" if error.errno else str(error)
            )
            raise ConfigError(
                f"the certificates of the broker cannot be read from {files.certificates}: {reason}",
                fix="check ssl.keystore.location, ssl.keystore.key.location and ssl.key.password",
            ) from None
        return context

    def _password(self) -> str:
        return self._files.key_password.reveal() if self._files.key_password else ""


def peer_name(ssl_object: ssl.SSLObject) -> str | None:
    """The distinguished name in the client's certificate (RFC 4514, most specific first); None: it sent none."""
    raw = ssl_object.getpeercert(binary_form=True)
    if raw is None:
        return None
    from cryptography import x509  # only where clients bring certificates

    return x509.load_der_x509_certificate(raw).subject.rfc4514_string()
