"""A registry with TLS beside a broker that trusts certificates of clients: a certificate is a login there, too."""

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.x509.oid import NameOID
from tests.fixtures.certificates import Certificates, make_authority
from tests.fixtures.registry import Stack


def stack(folder: Path, certificates: Certificates, **options: Any) -> Stack:
    return Stack(
        folder,
        registry_listen="https://127.0.0.1:0",
        listeners=["PLAINTEXT://127.0.0.1:0"],
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        authorizer_class_name="StandardAuthorizer",
        super_users="User:ANONYMOUS;User:ops;User:admin",
        scram_users=["admin=right"],
        ssl_principal_mapping_rules="RULE:CN=([a-z]+)/$1/",
        connection_failed_authentication_delay_ms=1,
        **options,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Stack]:
    running = stack(
        tmp_path_factory.mktemp("registry") / "data",
        certificates,
        ssl_client_auth="required",
        ssl_truststore_location=str(certificates.authority),
    )
    running.start()
    yield running
    running.kill()


def ask(
    place: Stack, certificates: Certificates, pem: Path | None, login: str | None = None
) -> tuple[int, Any]:
    """Status and answer of a question that needs DESCRIBE on the cluster."""
    context = ssl.create_default_context(cafile=str(certificates.authority))
    if pem is not None:
        context.load_cert_chain(pem)
    url = urlsplit(place.registry_url)
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
    connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=20, context=context)
    try:
        connection.request("GET", "/config", headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_certificate_of_a_client_is_a_login_and_the_authorizer_decides_for_its_user(
    place: Stack, certificates: Certificates
) -> None:
    assert ask(place, certificates, certificates.make("ops")) == (200, {"compatibilityLevel": "BACKWARD"})
    status, answer = ask(place, certificates, certificates.make("clerk"))
    assert (status, answer["error_code"]) == (403, 40301)


def test_who_brings_no_certificate_or_one_that_no_rule_names_logs_in_by_password(
    place: Stack, certificates: Certificates
) -> None:
    unnamed = certificates.make("ops-2", (NameOID.ORGANIZATION_NAME, "elsewhere"))
    for pem in (None, unnamed):
        assert ask(place, certificates, pem)[0] == 401
        assert ask(place, certificates, pem, "admin:right")[0] == 200


def test_a_login_in_the_header_goes_before_the_certificate(place: Stack, certificates: Certificates) -> None:
    assert ask(place, certificates, certificates.make("clerk"), "admin:right")[0] == 200
    assert ask(place, certificates, certificates.make("ops"), "admin:wrong")[0] == 401


def test_a_certificate_of_another_authority_is_hung_up_on(
    place: Stack, certificates: Certificates, tmp_path: Path
) -> None:
    forged = make_authority(tmp_path).make("ops")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(place, certificates, forged)
    assert ask(place, certificates, certificates.make("ops"))[0] == 200


def test_a_certificate_is_no_login_where_the_broker_asks_for_none(
    certificates: Certificates, tmp_path: Path
) -> None:
    running = stack(tmp_path / "data", certificates)
    running.start()
    try:
        assert ask(running, certificates, certificates.make("ops"))[0] == 401
    finally:
        running.kill()
