"""Real clients over TLS and SASL: log in, produce, consume, and be refused."""

import asyncio
import ssl
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates

from tailrace.broker.embedded import EmbeddedBroker

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python reads its schemas the old way
    from kafka import KafkaConsumer, KafkaProducer

pytestmark = [
    pytest.mark.filterwarnings("ignore:read_text is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
TIMEOUT_S = 30.0
ADMIN, PASSWORD = "admin", "admin-secret"
Secured = Callable[..., EmbeddedBroker]


@pytest.fixture
def secured(broker_factory: BrokerFactory, certificates: Certificates) -> Secured:
    """A broker with SASL_SSL and a super user, on a fresh folder."""

    def start(**options: Any) -> EmbeddedBroker:
        options.setdefault("listeners", ("SASL_SSL://127.0.0.1:0",))
        return broker_factory(
            env={"ADMIN_PASSWORD": PASSWORD},
            ssl_keystore_location=str(certificates.folder / "broker.pem"),
            scram_users=("admin=${env:ADMIN_PASSWORD}",),
            super_users="User:admin",
            authorizer_class_name="StandardAuthorizer",
            **options,
        )

    return start


def login(
    broker: EmbeddedBroker,
    certificates: Certificates,
    user: str = ADMIN,
    password: str = PASSWORD,
    mechanism: str = "SCRAM-SHA-512",
) -> dict[str, Any]:
    """Options of librdkafka's clients."""
    return {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(certificates.authority),
        "sasl.mechanisms": mechanism,
        "sasl.username": user,
        "sasl.password": password,
        "socket.timeout.ms": 10_000,
    }


def add_user(admin: AdminClient, name: str, password: str) -> None:
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192)
    change = UserScramCredentialUpsertion(name, info, password.encode())
    for future in admin.alter_user_scram_credentials([change]).values():
        future.result(TIMEOUT_S)


def allow(admin: AdminClient, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    rules = [
        AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
        )
        for operation in operations
    ]
    futures = admin.create_acls(rules)
    for future in futures.values():
        future.result(TIMEOUT_S)


def produce(options: dict[str, Any], topic: str, *values: bytes) -> None:
    producer = ck.Producer(options)
    failures: list[ck.KafkaError] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(TIMEOUT_S) == 0
    assert failures == []


def first_error(client: Any) -> ck.KafkaError:
    """The first error that a client of librdkafka reports within the deadline."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        message = client.poll(0.2)
        if message is not None and message.error() is not None:
            error: ck.KafkaError = message.error()
            return error
    raise AssertionError("no error was reported")


def consume(options: dict[str, Any], topic: str, count: int, group: str) -> list[bytes]:
    consumer = ck.Consumer(
        {**options, "group.id": group, "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            values.append(message.value() or b"")
    consumer.close()
    return values


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
def test_librdkafka_logs_in_and_works_in_transactions(
    secured: Secured, certificates: Certificates, mechanism: str
) -> None:
    broker = secured(sasl_enabled_mechanisms=("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"))
    options = login(broker, certificates, mechanism=mechanism)
    producer = ck.Producer({**options, "transactional.id": "t"})
    producer.init_transactions(TIMEOUT_S)
    for values, end in (([b"a", b"b"], producer.commit_transaction), ([b"c"], producer.abort_transaction)):
        producer.begin_transaction()
        for value in values:
            producer.produce("t", value)
        end(TIMEOUT_S)
    produce(options, "t", b"d")
    assert consume(options, "t", 3, "g") == [b"a", b"b", b"d"]


@pytest.mark.parametrize(("user", "password"), [(ADMIN, "wrong"), ("nobody", PASSWORD)])
def test_librdkafka_is_told_that_its_login_failed(
    secured: Secured, certificates: Certificates, user: str, password: str
) -> None:
    errors: list[ck.KafkaError] = []
    options = login(secured(), certificates, user, password)
    producer = ck.Producer({**options, "error_cb": errors.append})
    deadline = time.monotonic() + TIMEOUT_S
    while not errors and time.monotonic() < deadline:
        producer.poll(0.2)
    assert errors[0].code() == ck.KafkaError._AUTHENTICATION


def test_a_user_may_do_exactly_what_acls_allow(secured: Secured, certificates: Certificates) -> None:
    broker = secured()
    admin = AdminClient(login(broker, certificates))
    add_user(admin, "alice", "alice-secret")
    produce(login(broker, certificates), "orders", b"one")
    produce(login(broker, certificates), "secret", b"two")
    allow(admin, "alice", ResourceType.TOPIC, "orders", AclOperation.READ)
    options = login(broker, certificates, "alice", "alice-secret")

    consumer = ck.Consumer({**options, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["orders"])
    assert first_error(consumer).code() == ck.KafkaError.GROUP_AUTHORIZATION_FAILED
    consumer.close()
    allow(admin, "alice", ResourceType.GROUP, "g", AclOperation.READ)
    assert consume(options, "orders", 1, "g") == [b"one"]

    consumer = ck.Consumer({**options, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["secret"])
    assert first_error(consumer).code() == ck.KafkaError.TOPIC_AUTHORIZATION_FAILED
    consumer.close()
    refused: list[Any] = []
    producer = ck.Producer({**options, "enable.idempotence": False})
    producer.produce("orders", b"three", on_delivery=lambda error, _: refused.append(error))
    producer.flush(TIMEOUT_S)
    assert [error.code() for error in refused] == [ck.KafkaError.TOPIC_AUTHORIZATION_FAILED]
    assert set(AdminClient(options).list_topics(timeout=TIMEOUT_S).topics) == {"orders"}
    plain_user = AdminClient(options)
    with pytest.raises(ck.KafkaException) as error:
        allow(plain_user, "alice", ResourceType.TOPIC, "secret", AclOperation.READ)
    assert error.value.args[0].code() == ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED


def _all_acls() -> AclBindingFilter:
    anything: Any = None
    return AclBindingFilter(
        ResourceType.ANY,
        anything,
        ResourcePatternType.ANY,
        anything,
        anything,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def test_acls_and_users_survive_a_sigkill(secured: Secured, certificates: Certificates) -> None:
    broker = secured()
    admin = AdminClient(login(broker, certificates))
    add_user(admin, "alice", "alice-secret")
    allow(admin, "alice", ResourceType.TOPIC, "t", AclOperation.READ, AclOperation.WRITE)
    broker.kill()
    broker.restart()
    admin = AdminClient(login(broker, certificates))
    rules = admin.describe_acls(_all_acls()).result(TIMEOUT_S)
    assert {(rule.principal, rule.name, rule.operation) for rule in rules} == {
        ("User:alice", "t", AclOperation.READ),
        ("User:alice", "t", AclOperation.WRITE),
    }
    asked: Any = admin.describe_user_scram_credentials(["alice"])
    described = asked["alice"].result(TIMEOUT_S)
    assert [info.iterations for info in described.scram_credential_infos] == [8192]
    options = {**login(broker, certificates, "alice", "alice-secret"), "enable.idempotence": False}
    producer = ck.Producer(options)
    refused: list[Any] = []
    producer.produce("t", b"x", on_delivery=lambda error, _: refused.append(error))
    producer.flush(TIMEOUT_S)
    # it may write, but creating the topic on the way needs CREATE
    assert [error.code() for error in refused] == [ck.KafkaError.TOPIC_AUTHORIZATION_FAILED]


def test_a_removed_credential_ends_the_sessions_that_rest_on_it(
    secured: Secured, certificates: Certificates
) -> None:
    broker = secured()
    admin = AdminClient(login(broker, certificates))
    add_user(admin, "alice", "alice-secret")
    produce(login(broker, certificates), "t", b"x")
    allow(admin, "alice", ResourceType.TOPIC, "t", AclOperation.WRITE)
    errors: list[ck.KafkaError] = []
    options = login(broker, certificates, "alice", "alice-secret")
    producer = ck.Producer({**options, "enable.idempotence": False, "error_cb": errors.append})
    outcomes: list[Any] = []
    producer.produce("t", b"x", on_delivery=lambda error, _: outcomes.append(error))
    assert producer.flush(TIMEOUT_S) == 0 and outcomes == [None]
    removal = UserScramCredentialDeletion("alice", ScramMechanism.SCRAM_SHA_512)
    for future in admin.alter_user_scram_credentials([removal]).values():
        future.result(TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        producer.poll(0.2)
        if any(error.code() == ck.KafkaError._AUTHENTICATION for error in errors):
            break
    assert ck.KafkaError._AUTHENTICATION in [error.code() for error in errors]
    produce(login(broker, certificates), "t", b"y")  # nobody else is disturbed


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
@pytest.mark.usefixtures("collect_left_sockets")
def test_kafka_python_logs_in_produces_and_consumes(
    secured: Secured, certificates: Certificates, mechanism: str
) -> None:
    broker = secured(sasl_enabled_mechanisms=("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"))
    options: dict[str, Any] = {
        "bootstrap_servers": broker.bootstrap,
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(certificates.authority),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": ADMIN,
        "sasl_plain_password": PASSWORD,
    }
    producer = KafkaProducer(**options)
    assert producer.send("t", b"a").get(TIMEOUT_S).offset == 0
    producer.close()
    consumer = KafkaConsumer(
        "t", group_id="g", auto_offset_reset="earliest", consumer_timeout_ms=20_000, **options
    )
    assert next(consumer).value == b"a"
    consumer.close()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
def test_aiokafka_logs_in_produces_and_consumes(
    secured: Secured, certificates: Certificates, mechanism: str
) -> None:
    broker = secured(sasl_enabled_mechanisms=("SCRAM-SHA-256", "PLAIN"))

    async def story() -> bytes:
        options: dict[str, Any] = {
            "bootstrap_servers": broker.bootstrap,
            "security_protocol": "SASL_SSL",
            "ssl_context": ssl.create_default_context(cafile=str(certificates.authority)),
            "sasl_mechanism": mechanism,
            "sasl_plain_username": ADMIN,
            "sasl_plain_password": PASSWORD,
        }
        async with AIOKafkaProducer(**options) as producer:
            await producer.send_and_wait("t", b"a")
        async with AIOKafkaConsumer("t", group_id="g", auto_offset_reset="earliest", **options) as consumer:
            value: bytes = (await asyncio.wait_for(consumer.getone(), TIMEOUT_S)).value
            return value

    assert asyncio.run(story()) == b"a"


def test_a_client_certificate_is_the_principal(
    broker_factory: BrokerFactory, certificates: Certificates, tmp_path: Path
) -> None:
    broker = broker_factory(
        listeners=("SSL://127.0.0.1:0",),
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        ssl_truststore_location=str(certificates.authority),
        ssl_client_auth="required",
        ssl_principal_mapping_rules="RULE:^CN=([a-z]+)$/$1/",
        authorizer_class_name="StandardAuthorizer",
        super_users="User:ops",
    )

    def options(name: str) -> dict[str, Any]:
        pem = str(certificates.make(name))
        return {
            "bootstrap.servers": broker.bootstrap,
            "security.protocol": "SSL",
            "ssl.ca.location": str(certificates.authority),
            "ssl.certificate.location": pem,
            "ssl.key.location": pem,
        }

    produce(options("ops"), "t", b"x")
    assert "t" in AdminClient(options("ops")).list_topics(timeout=TIMEOUT_S).topics
    assert AdminClient(options("guest")).list_topics(timeout=TIMEOUT_S).topics == {}
    with pytest.raises(ck.KafkaException):  # no rule names it
        AdminClient(options("Guest7")).list_topics(timeout=3)
    without = {
        k: v for k, v in options("ops").items() if not k.endswith((".key.location", "certificate.location"))
    }
    with pytest.raises(ck.KafkaException):
        AdminClient(without).list_topics(timeout=3)
