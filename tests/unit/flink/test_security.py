"""TLS and login of the job's own clients: Java's names, and no secret but in the process's environment."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from tests.fixtures.certificates import Certificates

from tailrace.broker.client.security import read_security
from tailrace.changes import ConfigError
from tailrace.flink.config import FlinkPartConfig
from tailrace.flink.security import REGISTRY_AUTHORITIES, REGISTRY_LOGIN, client_properties, secret_variables
from tailrace.flink.tables import TopicSchemas, source_ddl
from tailrace.registry.login import RegistryLogin
from tailrace.security.secrets import Secret

PASSWORD = 'hunt"er\\2'


def config(certificates: Certificates, **options: Any) -> FlinkPartConfig:
    given = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "shop",
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(certificates.authority),
    }
    changed = given | {name.replace("__", "."): value for name, value in options.items()}
    security = read_security({k: v for k, v in changed.items() if v is not None}, Path())
    return FlinkPartConfig(
        "shop",
        (),
        "k:1",
        "https://r:1",
        Path(),
        security=security,
        registry_login=RegistryLogin(Secret("a:hunter3"), certificates.authority),
    )


def test_statements_name_variables_and_never_a_secret(certificates: Certificates) -> None:
    told = config(certificates)
    properties = client_properties(told.security)
    assert properties["security.protocol"] == "SASL_SSL"
    assert properties["sasl.mechanism"] == "SCRAM-SHA-512"
    assert properties["ssl.truststore.type"] == "PEM"
    assert properties["ssl.truststore.location"] == str(certificates.authority)
    schemas = TopicSchemas("t", None, '{"type":"record","name":"v","fields":[{"name":"id","type":"long"}]}')
    ddl = source_ddl(schemas, bootstrap="k:1", security=properties, registry_url="https://r:1", group="g")
    assert "'properties.sasl.jaas.config' = '${env:TAILRACE_KAFKA_JAAS}'" in ddl
    assert "hunt" not in ddl


def test_secrets_are_in_the_environment_as_kafkas_jaas_reader_takes_them(certificates: Certificates) -> None:
    found = secret_variables(config(certificates))
    assert found[REGISTRY_LOGIN] == "a:hunter3"
    assert found[REGISTRY_AUTHORITIES] == str(certificates.authority)
    assert found["TAILRACE_KAFKA_JAAS"].endswith(
        r'scram.ScramLoginModule required username="shop" password="hunt\"er\\2";'
    )
    plain = secret_variables(config(certificates, sasl__mechanism="PLAIN"))
    assert "plain.PlainLoginModule required" in plain["TAILRACE_KAFKA_JAAS"]


def test_a_locked_key_is_unlocked_for_java_which_reads_no_other_kind(
    certificates: Certificates, tmp_path: Path
) -> None:
    pem = certificates.make("job").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    locked = tmp_path / "key.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"hunter4"),
        )
    )
    told = config(
        certificates,
        security__protocol="SSL",
        sasl__mechanism=None,
        sasl__username=None,
        sasl__password=None,
        ssl__certificate__location=str(certificates.folder / "job.pem"),
        ssl__key__location=str(locked),
        ssl__key__password="hunter4",
    )
    assert client_properties(told.security)["ssl.keystore.key"] == "${env:TAILRACE_KAFKA_KEY}"
    found = secret_variables(told)
    assert found["TAILRACE_KAFKA_KEY"].startswith("-----BEGIN PRIVATE KEY-----")
    assert "BEGIN CERTIFICATE" in found["TAILRACE_KAFKA_CHAIN"]
    locked.write_text("no key")
    with pytest.raises(ConfigError, match=r"ssl\.key\.location .*key\.pem cannot be used"):
        secret_variables(told)


def test_a_plain_cluster_needs_no_property_and_no_variable() -> None:
    plain = FlinkPartConfig("shop", (), "k:1", "http://r:1", Path())
    assert client_properties(plain.security) == {}
    assert secret_variables(plain) == {}


def test_java_writes_no_host_check_as_nothing(certificates: Certificates) -> None:
    lenient = config(certificates, ssl__endpoint__identification__algorithm="none")
    assert client_properties(lenient.security)["ssl.endpoint.identification.algorithm"] == ""
