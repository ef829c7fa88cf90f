"""Other people's Flink jobs, with Flink's own avro-confluent format, read and write topics of ours."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests.fixtures.certificates import Certificates
from tests.fixtures.flink import CUSTOMERS, Topics
from tests.fixtures.registry import Stack

from tailrace.flink import environment, jars
from tailrace.flink.java import find_java
from tailrace.registry.client import RegistryClient, RegistryRefusedError
from tailrace.registry.login import RegistryLogin
from tailrace.security.secrets import Secret

pytestmark = [pytest.mark.flink, pytest.mark.slow, pytest.mark.timeout(400)]

COPY = """
import json, sys
from pyflink.table import EnvironmentSettings, TableEnvironment

bootstrap, registry, jars, reading, writing = sys.argv[1:]
tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
tables.get_config().set("pipeline.jars", jars)
tables.get_config().set("parallelism.default", "1")
columns = "id BIGINT NOT NULL, country STRING, name STRING"
common = f"'connector' = 'kafka', 'properties.bootstrap.servers' = '{bootstrap}', 'value.format' = 'avro-confluent', "
common += f"'value.avro-confluent.url' = '{registry}', 'value.fields-include' = 'ALL'"
def more(text):
    return "".join(f", 'value.avro-confluent.{name}' = '{value}'" for name, value in json.loads(text).items())

tables.execute_sql(f"CREATE TABLE source ({columns}) WITH ({common}{more(reading)}, 'topic' = 'raw.shop.customers', "
                   "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset')")
tables.execute_sql(f"CREATE TABLE target ({columns}) WITH ({common}{more(writing)}, 'topic' = 'copied', "
                   "'value.avro-confluent.subject' = 'copied-value')")
tables.execute_sql("INSERT INTO target SELECT id, UPPER(country), name FROM source").wait()
"""
ISSUER, AUDIENCE = "https://issuer.example", "kafka"


def copies(
    topics: Topics,
    folder: Path,
    reading: Mapping[str, str] | None = None,
    writing: Mapping[str, str] | None = None,
) -> None:
    """A job copies rows from topic to topic; `reading` and `writing`: more options of its formats."""
    topics.create("raw.shop.customers", CUSTOMERS)
    rows = [{"id": i, "country": "no", "name": None if i % 2 else f"é{i}"} for i in range(20)]
    topics.write("raw.shop.customers", rows)
    script = folder / "job.py"
    script.write_text(COPY)
    made = environment.prepare()
    wanted = [jars.download(jars.KAFKA_CONNECTOR), jars.download(jars.AVRO_CONFLUENT)]
    arguments = [topics.bootstrap, topics.registry_url, ";".join(path.as_uri() for path in wanted)]
    options = [json.dumps(dict(given or {})) for given in (reading, writing)]
    subprocess.run(
        [made.python, script, *arguments, *options],
        env={**os.environ, "JAVA_HOME": str(find_java())},
        timeout=300,
        check=True,
    )
    assert [value for _, value, _ in topics.records("copied")] == [{**row, "country": "NO"} for row in rows]


def test_flinks_own_registry_format_reads_and_writes_our_topics(
    topics: Topics, flink_environment: None, tmp_path: Path
) -> None:
    copies(topics, tmp_path)


@pytest.fixture
def token_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "k"})


@pytest.fixture
def guarded(tmp_path: Path, certificates: Certificates, token_key: RSAKey) -> Iterator[Stack]:
    """A registry with TLS that asks for a password or a token, beside a broker with a listener without a login."""
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [token_key.as_dict(private=False)]}))
    running = Stack(
        tmp_path / "guarded",
        registry_listen="https://127.0.0.1:0",
        listeners=["PLAINTEXT://127.0.0.1:0"],
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        authorizer_class_name="StandardAuthorizer",
        super_users="User:ANONYMOUS;User:reader;User:writer",
        scram_users=["reader=right"],
        sasl_enabled_mechanisms=["SCRAM-SHA-512", "OAUTHBEARER"],
        sasl_oauthbearer_jwks_endpoint_url=keys.as_uri(),
        sasl_oauthbearer_expected_issuer=ISSUER,
        sasl_oauthbearer_expected_audience=[AUDIENCE],
    )
    running.start()
    yield running
    running.kill()


def test_flinks_own_registry_format_logs_in_by_password_and_by_token_over_tls(
    guarded: Stack, certificates: Certificates, token_key: RSAKey, flink_environment: None, tmp_path: Path
) -> None:
    stranger = RegistryClient(guarded.registry_url, login=RegistryLogin(None, certificates.authority))
    with pytest.raises(RegistryRefusedError, match="Unauthorized"):
        stranger.latest("copied-value")
    stranger.close()
    authority = x509.load_pem_x509_certificate(certificates.authority.read_bytes())
    trusted = tmp_path / "trusted.p12"
    trusted.write_bytes(
        serialize_java_truststore([PKCS12Certificate(authority, b"ca")], BestAvailableEncryption(b"changeit"))
    )
    tls = {"ssl.truststore.location": str(trusted), "ssl.truststore.password": "changeit"}
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "writer", "iat": now, "exp": now + 900}
    token = jwt.encode({"alg": "RS256", "kid": "k"}, claims, token_key)
    topics = Topics(
        guarded.bootstrap, guarded.registry_url, RegistryLogin(Secret("reader:right"), certificates.authority)
    )
    by_password = {"basic-auth.credentials-source": "USER_INFO", "basic-auth.user-info": "reader:right"}
    by_token = {"bearer-auth.credentials-source": "STATIC_TOKEN", "bearer-auth.token": token}
    try:
        copies(topics, tmp_path, {**tls, **by_password}, {**tls, **by_token})
    finally:
        topics.registry.close()
