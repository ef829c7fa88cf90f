"""Our client over TLS and SASL against a real broker: it works, stays logged in, and says why it cannot."""

import dataclasses
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates, make_authority
from tests.unit.broker.client.reading import batch_of

from tailrace.broker.client import (
    Client,
    Fetcher,
    LoginError,
    NewTopic,
    TopicPartition,
    TransactionalProducer,
    connection,
)
from tailrace.broker.client.login import log_in
from tailrace.broker.client.security import ClientSecurity, read_security
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol.messages import MetadataRequest

PASSWORD = "admin-secret"
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN")
LISTENERS = ("SASL_SSL", "SSL", "SASL_PLAINTEXT", "PLAINTEXT")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[EmbeddedBroker]:
    """One listener of each protocol, and a super user."""
    made = EmbeddedBroker(
        tmp_path_factory.mktemp("broker"),
        env={"ADMIN_PASSWORD": PASSWORD},
        listeners=tuple(f"{name}://127.0.0.1:0" for name in LISTENERS),
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        scram_users=("admin=${env:ADMIN_PASSWORD}",),
        super_users="User:admin",
        authorizer_class_name="StandardAuthorizer",
        sasl_enabled_mechanisms=MECHANISMS,
        connection_failed_authentication_delay_ms=0,
    )
    with made:
        yield made


def login(certificates: Certificates, protocol: str = "SASL_SSL", **changes: str | None) -> ClientSecurity:
    given: dict[str, Any] = {"security.protocol": protocol}
    if protocol.startswith("SASL"):
        given |= {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "admin", "sasl.password": PASSWORD}
    if protocol.endswith("SSL"):
        given["ssl.ca.location"] = str(certificates.authority)
    given |= {name.replace("__", "."): value for name, value in changes.items()}
    return read_security({name: value for name, value in given.items() if value is not None}, Path())


def connected(address: str, security: ClientSecurity, **options: Any) -> Client:
    return Client(address, client_id="test", security=security, request_timeout_s=10, **options)


def refusal(address: str, security: ClientSecurity) -> str:
    """What a client is told that cannot connect."""
    with connected(address, security) as client, pytest.raises(LoginError) as caught:
        client.metadata()
    assert PASSWORD not in str(caught.value) and "hunter2" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_transactions_work_over_tls_with_every_mechanism(
    broker: EmbeddedBroker, certificates: Certificates, mechanism: str
) -> None:
    place = TopicPartition(f"over-{mechanism.lower()}", 0)
    with connected(broker.address("SASL_SSL"), login(certificates, sasl__mechanism=mechanism)) as client:
        client.create_topics([NewTopic(place.topic, 1)])
        producer = TransactionalProducer(client, mechanism)
        producer.init()
        for end in (producer.abort, producer.commit):
            producer.begin()
            # many batches in one request, larger than one record of TLS
            producer.send([(place, batch_of(os.urandom(40_000))) for _ in range(20)])
            end()
        fetcher = Fetcher(client, {place: 0})
        batches: list[memoryview] = []
        while fetcher.positions[place] < client.list_offsets([place], isolation="read_committed")[place]:
            batches += [batch for fetched in fetcher.poll() for batch in fetched.batches]
        assert len(batches) == 20


def test_scram_works_without_tls(broker: EmbeddedBroker, certificates: Certificates) -> None:
    with connected(broker.address("SASL_PLAINTEXT"), login(certificates, "SASL_PLAINTEXT")) as client:
        assert client.nodes() == [1]


@pytest.mark.parametrize("change", [{"sasl__password": "hunter2"}, {"sasl__username": "nobody"}])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password_and_an_unknown_user_are_told_alike(
    broker: EmbeddedBroker, certificates: Certificates, mechanism: str, change: dict[str, str]
) -> None:
    security = login(certificates, sasl__mechanism=mechanism, **change)
    said = refusal(broker.address("SASL_SSL"), security)
    assert f"refuses the login of user '{security.username}' by {mechanism}" in said
    assert "check sasl.username and sasl.password" in said


def test_a_mechanism_that_is_not_offered_is_told_with_those_that_are(
    broker: EmbeddedBroker, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hunter2")
    security = login(
        certificates, sasl__mechanism="OAUTHBEARER", sasl__username=None, sasl__password=None,
        sasl__oauthbearer__token__endpoint__url=(tmp_path / "token").as_uri(),
    )  # fmt: skip
    said = refusal(broker.address("SASL_SSL"), security)
    assert "does not offer OAUTHBEARER" in said and ", ".join(MECHANISMS) in said


@pytest.mark.parametrize(
    ("protocol", "listener", "said"),
    [
        ("PLAINTEXT", "SSL", "speaks TLS on this port.*set security.protocol to SSL or SASL_SSL"),
        ("PLAINTEXT", "SASL_SSL", "speaks TLS on this port.*set security.protocol to SSL or SASL_SSL"),
        ("SASL_PLAINTEXT", "SASL_SSL", "speaks TLS on this port.*set security.protocol to SASL_SSL"),
        ("SSL", "PLAINTEXT", "speaks no TLS on this port.*set security.protocol to PLAINTEXT"),
        ("SASL_SSL", "SASL_PLAINTEXT", "speaks no TLS on this port.*set security.protocol to SASL_PLAINTEXT"),
        ("SASL_SSL", "PLAINTEXT", "speaks no TLS on this port"),
        ("PLAINTEXT", "SASL_PLAINTEXT", "wants a login.*SASL_PLAINTEXT.*SCRAM-SHA-256, SCRAM-SHA-512"),
        ("SSL", "SASL_SSL", "wants a login.*SASL_SSL.*SCRAM-SHA-256, SCRAM-SHA-512, PLAIN"),
        ("SASL_PLAINTEXT", "PLAINTEXT", "wants no login.*set security.protocol to PLAINTEXT"),
        ("SASL_SSL", "SSL", "wants no login.*set security.protocol to SSL"),
    ],
)
def test_a_protocol_that_does_not_fit_the_listener_is_told_at_once_with_the_one_that_does(
    broker: EmbeddedBroker, certificates: Certificates, protocol: str, listener: str, said: str
) -> None:
    started = time.monotonic()
    told = refusal(broker.address(listener), login(certificates, protocol))
    assert time.monotonic() - started < 10
    found = [part for part in said.split(".*") if part not in told]
    assert not found, told


def test_an_unknown_authority_is_told(
    broker: EmbeddedBroker, certificates: Certificates, tmp_path: Path
) -> None:
    other = make_authority(tmp_path)
    for security in (
        login(certificates, ssl__ca__location=None),
        login(certificates, ssl__ca__location=str(other.authority)),
    ):
        said = refusal(broker.address("SASL_SSL"), security)
        assert "is signed by nobody" in said and "ssl.ca.location" in said


def test_a_certificate_of_another_host_is_refused_unless_told_otherwise(
    broker_factory: BrokerFactory, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    broker = broker_factory(
        listeners=("SASL_SSL://127.0.0.1:0",),
        env={"ADMIN_PASSWORD": PASSWORD},
        ssl_keystore_location=str(authority.make("elsewhere")),
        scram_users=("admin=${env:ADMIN_PASSWORD}",),
    )
    said = refusal(broker.bootstrap, login(authority))
    assert "is for another host" in said and "ssl.endpoint.identification.algorithm" in said
    lenient = login(authority, ssl__endpoint__identification__algorithm="none")
    with connected(broker.bootstrap, lenient) as client:
        assert client.nodes() == [1]
    foreign = dataclasses.replace(lenient, authorities=None)
    assert "is signed by nobody" in refusal(broker.bootstrap, foreign)


def test_a_listener_that_wants_a_client_certificate_gets_it_or_says_so(
    broker_factory: BrokerFactory, certificates: Certificates, tmp_path: Path
) -> None:
    broker = broker_factory(
        listeners=("SSL://127.0.0.1:0",),
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        ssl_truststore_location=str(certificates.authority),
        ssl_client_auth="required",
        authorizer_class_name="StandardAuthorizer",
        super_users="User:CN=ops",
    )
    pem = str(certificates.make("ops"))
    with connected(broker.bootstrap, login(certificates, "SSL", ssl__certificate__location=pem)) as client:
        assert client.nodes() == [1]
    assert "wants a client certificate" in refusal(broker.bootstrap, login(certificates, "SSL"))
    stranger = make_authority(tmp_path).make("ops")
    refused = login(certificates, "SSL", ssl__certificate__location=str(stranger))
    assert "refuses the client's certificate" in refusal(broker.bootstrap, refused)


def test_a_broker_whose_tls_is_too_old_is_told(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.folder / "broker.pem")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with plain, pytest.raises(OSError):
                context.wrap_socket(plain, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        said = refusal(f"127.0.0.1:{listener.getsockname()[1]}", login(certificates, "SSL"))
        thread.join()
    assert "no kind of TLS in common" in said and "TLS 1.2" in said


@pytest.fixture
def short_sessions(broker_factory: BrokerFactory, certificates: Certificates) -> EmbeddedBroker:
    """A broker whose logins hold for a second."""
    return broker_factory(
        listeners=("SASL_SSL://127.0.0.1:0",),
        env={"ADMIN_PASSWORD": PASSWORD},
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        scram_users=("admin=${env:ADMIN_PASSWORD}",),
        connections_max_reauth_ms=1_000,
    )


def test_a_login_is_renewed_before_it_ends_on_the_same_connection(
    short_sessions: EmbeddedBroker, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins: list[float] = []

    def counted(*arguments: Any, **options: Any) -> float:
        logins.append(time.monotonic())
        return log_in(*arguments, **options)

    monkeypatch.setattr(connection, "log_in", counted)
    with connected(short_sessions.bootstrap, login(certificates)) as client:
        first = client.connection()
        deadline = time.monotonic() + 30
        while len(logins) < 4 and time.monotonic() < deadline:
            client.metadata()
        assert len(logins) == 4
        assert client.connection() is first
        assert first.request(ApiKey.METADATA, MetadataRequest(topics=[])).cluster_id


def test_answers_that_are_due_come_before_a_renewed_login(
    short_sessions: EmbeddedBroker, certificates: Certificates
) -> None:
    with connected(short_sessions.bootstrap, login(certificates)) as client:
        client.create_topics([NewTopic("t", 3)])
        link = client.connection()
        link.send(ApiKey.METADATA, MetadataRequest(topics=[]))
        link.send(ApiKey.METADATA, MetadataRequest(topics=None))
        link._renew_at = 0.0
        link.send(ApiKey.METADATA, MetadataRequest(topics=[]))
        assert link.in_flight == 3
        assert [bool(link.receive().topics) for _ in range(3)] == [False, True, False]
        assert link.in_flight == 0


def test_a_password_that_was_changed_is_told_when_the_login_is_renewed(
    short_sessions: EmbeddedBroker, certificates: Certificates
) -> None:
    with connected(short_sessions.bootstrap, login(certificates)) as client:
        client.metadata()
        client.security = login(certificates, sasl__password="hunter2")
        client.connection()._security = client.security
        client.connection()._renew_at = 0.0
        with pytest.raises(LoginError, match="refuses the login of user 'admin'"):
            client.metadata()
