"""TLS and login of the job's own Kafka clients: our options under Java's names, and no secret in a statement.

A statement names environment variables of the job's process (Kafka's EnvVarConfigProvider, KIP-887), which the clients
look up themselves: so no password is in a plan, a log, a checkpoint or Flink's web interface.
"""

from pathlib import Path

from tailrace.broker.client import ClientSecurity
from tailrace.changes.errors import ConfigError
from tailrace.flink.config import FlinkPartConfig
from tailrace.registry.login import RegistryLogin
from tailrace.security.sasl import OAUTHBEARER, PLAIN

REGISTRY_LOGIN = "TAILRACE_REGISTRY_LOGIN"
"""`user:password` of the registry, for the format."""

REGISTRY_AUTHORITIES = "TAILRACE_REGISTRY_CA"
"""PEM file of who signs the registry's certificate."""

_SHADED = "org.apache.flink.kafka.shaded.org.apache.kafka.common"
_JAAS, _KEY, _CHAIN = "TAILRACE_KAFKA_JAAS", "TAILRACE_KAFKA_KEY", "TAILRACE_KAFKA_CHAIN"


def client_properties(security: ClientSecurity) -> dict[str, str]:
    """Properties of Kafka's Java clients, without secrets.  Raises ConfigError for what they cannot do."""
    protocol = security.protocol
    found = {"security.protocol": str(protocol)} if protocol.tls or protocol.sasl else {}
    if protocol.tls:
        # Java's way to write none is nothing
        found["ssl.endpoint.identification.algorithm"] = "https" if security.checks_host else ""
        if security.authorities is not None:
            found |= {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(security.authorities.resolve()),
            }
        if security.certificate is not None:
            found |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.key": _variable(_KEY),
                "ssl.keystore.certificate.chain": _variable(_CHAIN),
            }
    if protocol.sasl:
        if security.mechanism == OAUTHBEARER:
            raise ConfigError(
                "transforms cannot log in by OAUTHBEARER yet", fix="use SCRAM-SHA-512 or a client certificate"
            )
        found |= {"sasl.mechanism": security.mechanism, "sasl.jaas.config": _variable(_JAAS)}
    if any(value.startswith("${env:") for value in found.values()):
        found |= {
            "config.providers": "env",
            "config.providers.env.class": f"{_SHADED}.config.provider.EnvVarConfigProvider",
        }
    return found


def secret_variables(config: FlinkPartConfig) -> dict[str, str]:
    """The environment variables that the properties name.  Raises ConfigError for a key that cannot be read."""
    security = config.security
    found = {}
    login = config.registry_login or RegistryLogin()
    if login.user_info is not None:
        found[REGISTRY_LOGIN] = login.user_info.reveal()
    if login.authorities is not None:
        found[REGISTRY_AUTHORITIES] = str(login.authorities.resolve())
    if security.password is not None:
        module = "plain.PlainLoginModule" if security.mechanism == PLAIN else "scram.ScramLoginModule"
        jaas = f"username={_quoted(security.username)} password={_quoted(security.password.reveal())}"
        found[_JAAS] = f"{_SHADED}.security.{module} required {jaas};"
    if security.certificate is not None:
        password = security.key_password.reveal() if security.key_password else None
        found[_KEY] = _private_key(security.key or security.certificate, password)
        found[_CHAIN] = security.certificate.read_text()
    if not all(value.isascii() for value in found.values()):
        found["LC_ALL"] = "C.UTF-8"  # in which Java reads the others
    return found


def _variable(name: str) -> str:
    return f"${{env:{name}}}"


def _quoted(text: str) -> str:
    """As Kafka's reader of JAAS configurations takes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _private_key(path: Path, password: str | None) -> str:
    """PKCS #8 without a password, the one form that Java's clients read whatever the key was written with."""
    from cryptography.hazmat.primitives import serialization  # only where a client brings a certificate

    try:
        key = serialization.load_pem_private_key(
            path.read_bytes(), None if password is None else password.encode()
        )
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"ssl.key.location {path} cannot be used: {type(error).__name__}",
            fix="check ssl.key.location and ssl.key.password",
        ) from None
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
