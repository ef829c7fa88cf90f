"""What the Flink stage tells Kafka's Java clients about TLS and login, read by a Java client against our broker."""

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates
from tests.interop.kafka_tools import KafkaTools

from tailrace.broker.client import Client, ClientSecurity, NewTopic
from tailrace.broker.client.security import read_security
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.flink.config import FlinkPartConfig
from tailrace.flink.security import client_properties, secret_variables

pytestmark = [pytest.mark.java, pytest.mark.slow]
SHADED, UNSHADED = "org.apache.flink.kafka.shaded.", ""
PASSWORD = 'hunt"er\\2 = #;ü'


@pytest.fixture
def broker(broker_factory: BrokerFactory, certificates: Certificates) -> EmbeddedBroker:
    return broker_factory(
        listeners=("SASL_SSL://127.0.0.1:0", "SSL://127.0.0.1:0", "SASL_PLAINTEXT://127.0.0.1:0"),
        env={"SHOP_PASSWORD": PASSWORD},
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        ssl_truststore_location=str(certificates.authority),
        ssl_client_auth="requested",
        sasl_enabled_mechanisms=("SCRAM-SHA-512", "PLAIN"),
        scram_users=("shop=${env:SHOP_PASSWORD}",),
        authorizer_class_name="StandardAuthorizer",
        super_users="User:shop;User:CN=job",
    )


def locked_key(certificates: Certificates, folder: Path) -> Path:
    """The key of `job` in the old form, with a password: Java reads neither."""
    key = serialization.load_pem_private_key(certificates.make("job").read_bytes(), None)
    path = folder / "key.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"locked"),
        )
    )
    return path


def options(kind: str, certificates: Certificates, folder: Path) -> ClientSecurity:
    tls = {"ssl.ca.location": str(certificates.authority)}
    login = {"sasl.username": "shop", "sasl.password": PASSWORD}
    given: dict[str, dict[str, object]] = {
        "SCRAM": {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", **login, **tls},
        "PLAIN": {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", **login, **tls},
        "no TLS": {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512", **login},
        "certificate": {
            "security.protocol": "SSL",
            "ssl.certificate.location": str(certificates.folder / "job.pem"),
            "ssl.key.location": str(locked_key(certificates, folder)),
            "ssl.key.password": "locked",
            "ssl.endpoint.identification.algorithm": "none",
            **tls,
        },
    }
    return read_security(given[kind], folder)


@pytest.mark.parametrize("kind", ["SCRAM", "PLAIN", "no TLS", "certificate"])
def test_java_logs_in_with_what_our_options_become(
    broker: EmbeddedBroker, kafka_tools: KafkaTools, certificates: Certificates, tmp_path: Path, kind: str
) -> None:
    security = options(kind, certificates, tmp_path)
    address = broker.address(str(security.protocol))
    with Client(address, client_id="test", security=security) as client:
        client.create_topics([NewTopic("seen-by-java", 1)])
    told = FlinkPartConfig("shop", (), address, "http://127.0.0.1:1", tmp_path, security=security)
    lines = [f"{name}={value}" for name, value in client_properties(told.security).items()]
    file = tmp_path / "java.properties"
    file.write_text("\n".join(lines).replace(SHADED, UNSHADED))
    assert not any(secret in file.read_text() for secret in (PASSWORD, "locked\n", "PRIVATE KEY"))
    variables = {"LC_ALL": "C"}  # a bare server, where Java takes an environment for ASCII
    variables |= {name: value.replace(SHADED, UNSHADED) for name, value in secret_variables(told).items()}
    printed = kafka_tools.run(
        "org.apache.kafka.tools.TopicCommand",
        *("--bootstrap-server", address, "--command-config", str(file), "--list"),
        environment=variables,
    )
    assert "seen-by-java" in printed.split()
    if security.password is not None:
        wrong = dataclasses.replace(told, security=dataclasses.replace(security, username="nobody"))
        variables |= {n: v.replace(SHADED, UNSHADED) for n, v in secret_variables(wrong).items()}
        with pytest.raises(AssertionError, match="credentials are not valid"):
            kafka_tools.run(
                "org.apache.kafka.tools.TopicCommand",
                *("--bootstrap-server", address, "--command-config", str(file), "--list"),
                environment=variables,
            )
