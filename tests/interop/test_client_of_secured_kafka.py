"""Our own client against Apache Kafka with SASL_SSL: what it does in plain text it does there too."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.fixtures.apache_kafka import ApacheKafka, Secured
from tests.fixtures.certificates import Certificates, make_authority
from tests.unit.broker.client.reading import batch_of

from tailrace.broker.client import (
    Client,
    ClientSecurity,
    Fetcher,
    LoginError,
    NewTopic,
    TopicPartition,
    TransactionalProducer,
    connection,
)
from tailrace.broker.client.login import log_in
from tailrace.broker.client.security import read_security
from tailrace.pipeline.cli import main

pytestmark = [pytest.mark.java, pytest.mark.slow, pytest.mark.timeout(300)]
PASSWORD = "ops-secret"
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[ApacheKafka]:
    """Logins hold for two seconds."""
    folder = tmp_path_factory.mktemp("secured") / "kafka"
    running = ApacheKafka(folder, secured=Secured(certificates.folder / "broker.pem", reauth_ms=2_000))
    running.start()
    yield running
    running.kill()


def login(certificates: Certificates, protocol: str = "SASL_SSL", **changes: str) -> ClientSecurity:
    given: dict[str, Any] = {"security.protocol": protocol}
    if protocol.startswith("SASL"):
        given |= {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "ops", "sasl.password": PASSWORD}
    if protocol.endswith("SSL"):
        given["ssl.ca.location"] = str(certificates.authority)
    return read_security(given | {name.replace("__", "."): value for name, value in changes.items()}, Path())


def connected(address: str, security: ClientSecurity) -> Client:
    return Client(address, client_id="test", security=security, request_timeout_s=20, retry_for_s=30)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_transactions_fetches_and_administration_work_with_every_mechanism(
    kafka: ApacheKafka, certificates: Certificates, mechanism: str
) -> None:
    place = TopicPartition(f"over-{mechanism.lower()}", 0)
    security = login(certificates, sasl__mechanism=mechanism)
    with connected(kafka.secured_bootstrap, security) as client:
        assert client.create_topics([NewTopic(place.topic, 2)]) == [place.topic]
        producer = TransactionalProducer(client, mechanism)
        producer.init()
        for end in (producer.abort, producer.commit):
            producer.begin()
            producer.send([(place, batch_of(os.urandom(40_000))) for _ in range(20)])
            producer.send_offsets(mechanism, {place: 7})
            end()
        deadline = time.monotonic() + 30  # Kafka answers a commit before its marker is everywhere
        while not (offsets := client.committed_offsets(mechanism)) and time.monotonic() < deadline:
            pass
        assert offsets == {place: 7}
        fetcher = Fetcher(client, {place: 0})
        batches: list[memoryview] = []
        while fetcher.positions[place] < client.list_offsets([place], isolation="read_committed")[place]:
            batches += [batch for fetched in fetcher.poll() for batch in fetched.batches]
        assert len(batches) == 20
        client.delete_topics([place.topic])


def test_a_login_is_renewed_on_the_same_connection_under_load(
    kafka: ApacheKafka, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins: list[Any] = []

    def counted(security: ClientSecurity, address: Any, *arguments: Any, **options: Any) -> float:
        logins.append(address)
        return log_in(security, address, *arguments, **options)

    monkeypatch.setattr(connection, "log_in", counted)
    place = TopicPartition("renewed", 0)
    with connected(kafka.secured_bootstrap, login(certificates)) as client:
        client.create_topics([NewTopic(place.topic, 1)])
        producer = TransactionalProducer(client, "renewed")
        producer.init()
        first = client.connection()
        sent = 0
        deadline = time.monotonic() + 60
        while len(logins) < 4 and time.monotonic() < deadline:
            producer.begin()
            producer.send([(place, batch_of(b"v")) for _ in range(40)])
            producer.commit()
            sent += 40
        assert len(logins) >= 4
        assert client.connection() is first
        fetcher = Fetcher(client, {place: 0})
        count = 0
        while count < sent and time.monotonic() < deadline:
            count += sum(len(fetched.batches) for fetched in fetcher.poll())
        assert count == sent


@pytest.mark.parametrize(
    ("protocol", "secured", "changes", "said"),
    [
        ("SASL_SSL", True, {"sasl__password": "hunter2"}, "refuses the login of user 'ops' by SCRAM-SHA-512"),
        (
            "SASL_SSL",
            True,
            {"sasl__password": "hunter2", "sasl__mechanism": "PLAIN"},
            "of user 'ops' by PLAIN",
        ),
        ("SASL_SSL", True, {"sasl__username": "nobody"}, "refuses the login of user 'nobody'"),
        ("SASL_SSL", False, {}, "speaks no TLS on this port"),
        ("PLAINTEXT", True, {}, "speaks TLS on this port"),
        ("SASL_PLAINTEXT", True, {}, "speaks TLS on this port.*set security.protocol to SASL_SSL"),
        ("SASL_PLAINTEXT", False, {}, "wants no login"),
        ("SSL", True, {}, "wants a login.*SCRAM-SHA-512"),
    ],
)
def test_what_does_not_fit_is_told_with_the_next_step(
    kafka: ApacheKafka,
    certificates: Certificates,
    protocol: str,
    secured: bool,
    changes: dict[str, str],
    said: str,
) -> None:
    address = kafka.secured_bootstrap if secured else kafka.bootstrap
    security = login(certificates, protocol, **changes)
    with connected(address, security) as client, pytest.raises(LoginError, match=said) as caught:
        client.metadata()
    assert PASSWORD not in str(caught.value) and "hunter2" not in str(caught.value)


def test_an_unknown_authority_and_a_mechanism_that_is_not_offered_are_told(
    kafka: ApacheKafka, certificates: Certificates, tmp_path: Path
) -> None:
    stranger = str(make_authority(tmp_path).authority)
    with (
        connected(kafka.secured_bootstrap, login(certificates, ssl__ca__location=stranger)) as client,
        pytest.raises(LoginError, match=r"signed by nobody in .*ssl\.ca\.location"),
    ):
        client.metadata()
    (tmp_path / "token").write_text("t")
    given = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": (tmp_path / "token").as_uri(),
        "ssl.ca.location": str(certificates.authority),
    }
    with (
        connected(kafka.secured_bootstrap, read_security(given, tmp_path)) as client,
        pytest.raises(LoginError, match=r"does not offer OAUTHBEARER on this listener, but .*SCRAM-SHA-512"),
    ):
        client.metadata()


def test_the_verbs_of_the_command_line_administer_it(
    kafka: ApacheKafka, certificates: Certificates, tmp_path: Path
) -> None:
    properties = tmp_path / "ops.properties"
    properties.write_text(
        f"security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=ops\nsasl.password={PASSWORD}\n"
        f"ssl.ca.location={certificates.authority}\n"
    )

    def tailrace(*arguments: str) -> str:
        cluster = ("--bootstrap", kafka.secured_bootstrap, "--command-config", str(properties))
        ended = CliRunner().invoke(main, [*arguments, *cluster])
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    tailrace("topics", "create", "closed")
    rule = ("--principal", "User:ANONYMOUS", "--resource", "topic:closed", "--operation", "write", "--deny")
    tailrace("acls", "add", *rule)
    assert "closed" in tailrace("topics", "list")
    assert "ANONYMOUS" in tailrace("acls", "list")
    tailrace("acls", "remove", "--all")
    assert "ANONYMOUS" not in tailrace("acls", "list")
