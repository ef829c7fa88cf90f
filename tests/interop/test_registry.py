"""The registry with stock clients: confluent-kafka's registry client and Avro serialisers, over a SIGKILL."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from tests.fixtures.certificates import Certificates, make_authority
from tests.fixtures.registry import GuardedRegistry, Stack

from tailrace.changes import ConfigError
from tailrace.registry.client import RegistryClient, RegistryRefusedError, RegistryUnavailableError
from tailrace.registry.login import RegistryLogin
from tailrace.security.secrets import Secret

USER = json.dumps({"type": "record", "name": "user", "fields": [{"name": "id", "type": "long"}]})
NAMED = json.dumps(
    {
        "type": "record",
        "name": "user",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "name", "type": ["null", "string"], "default": None},
        ],
    }
)
STRICT = json.dumps(
    {
        "type": "record",
        "name": "user",
        "fields": [{"name": "id", "type": "long"}, {"name": "n", "type": "string"}],
    }
)


@pytest.fixture
def confluent(stack: Stack) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": stack.registry_url}) as client:
        yield client


def call(stack: Stack, verb: str, path: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        stack.registry_url + path,
        method=verb,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.headers["Content-Type"] == "application/vnd.schemaregistry.v1+json"
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_confluent_client_registers_looks_up_evolves_and_deletes(confluent: SchemaRegistryClient) -> None:
    client = confluent
    first = client.register_schema("users-value", Schema(USER, "AVRO"))
    assert client.register_schema("users-value", Schema(USER, "AVRO")) == first
    assert client.test_compatibility("users-value", Schema(NAMED, "AVRO"))
    assert not client.test_compatibility("users-value", Schema(STRICT, "AVRO"))
    second = client.register_schema("users-value", Schema(NAMED, "AVRO"))
    assert client.get_versions("users-value") == [1, 2]
    assert client.get_latest_version("users-value").schema_id == second
    assert client.lookup_schema("users-value", Schema(USER, "AVRO")).version == 1
    assert json.loads(client.get_schema(first).schema_str or "") == json.loads(USER)
    assert client.get_subjects() == ["users-value"]
    client.set_compatibility("users-value", "FULL")
    assert client.get_compatibility("users-value") == "FULL"
    assert client.delete_subject("users-value") == [1, 2]
    assert client.get_subjects() == []


def test_an_incompatible_schema_is_refused_with_409_and_confluents_error_body(
    stack: Stack, confluent: SchemaRegistryClient
) -> None:
    confluent.register_schema("users-value", Schema(USER, "AVRO"))
    with pytest.raises(SchemaRegistryError) as refused:
        confluent.register_schema("users-value", Schema(STRICT, "AVRO"))
    assert (refused.value.http_status_code, refused.value.error_code) == (409, 409)
    status, body = call(stack, "POST", "/subjects/users-value/versions", {"schema": STRICT})
    assert status == 409
    assert set(body) == {"error_code", "message"}
    assert "incompatible" in body["message"]


def test_errors_carry_confluents_codes(stack: Stack) -> None:
    for verb, path, body, status, code in (
        ("GET", "/subjects/none/versions", None, 404, 40401),
        ("GET", "/subjects/none/versions/1", None, 404, 40401),
        ("GET", "/schemas/ids/77", None, 404, 40403),
        ("POST", "/subjects/s/versions", {"schema": "{"}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": ""}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": "{}", "schemaType": "JSON"}, 422, 42201),
        ("GET", "/config/none", None, 404, 40408),
        ("PUT", "/config", {"compatibility": "SIDEWAYS"}, 422, 42203),
        ("PUT", "/mode", {"mode": "SIDEWAYS"}, 422, 42204),
        ("GET", "/nowhere", None, 404, 404),
    ):
        got, answer = call(stack, verb, path, body)
        assert (path, got, answer["error_code"]) == (path, status, code)


def test_a_subject_may_hold_a_slash(stack: Stack) -> None:
    client = RegistryClient(stack.registry_url)
    schema_id = client.register("a/b-value", USER)
    assert client.latest("a/b-value") == (schema_id, json.dumps(json.loads(USER), separators=(",", ":")))
    client.close()


def test_ids_versions_and_levels_survive_a_sigkill(stack: Stack) -> None:
    client = RegistryClient(stack.registry_url)
    ids = [client.register(f"s{number}-value", USER if number % 2 else NAMED) for number in range(20)]
    client.set_compatibility("s1-value", "NONE")
    stack.kill()
    stack.start()
    again = RegistryClient(stack.registry_url)
    assert [again.latest(f"s{number}-value") is not None for number in range(20)] == [True] * 20
    assert [again.register(f"s{number}-value", USER if number % 2 else NAMED) for number in range(20)] == ids
    assert again.register("s1-value", STRICT) == max(ids) + 1
    with pytest.raises(RegistryRefusedError):
        again.register("s3-value", STRICT)
    client.close()
    again.close()


def test_the_confluent_avro_serialisers_round_trip_over_the_broker(
    stack: Stack, confluent: SchemaRegistryClient
) -> None:
    serialize = AvroSerializer(confluent, NAMED)
    deserialize = AvroDeserializer(confluent)
    context = SerializationContext("users", MessageField.VALUE)
    producer = Producer({"bootstrap.servers": stack.bootstrap})
    users = [{"id": number, "name": None if number % 3 else f"user {number}"} for number in range(50)]
    for user in users:
        producer.produce("users", serialize(user, context))
    assert producer.flush(20) == 0
    consumer = Consumer(
        {"bootstrap.servers": stack.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["users"])
    seen: list[object] = []
    while len(seen) < len(users):
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        seen.append(deserialize(message.value(), context))
    consumer.close()
    assert seen == users


def test_a_registry_that_asks_for_a_login_gets_it_and_a_wrong_one_is_told(stack: Stack) -> None:
    with GuardedRegistry(stack.registry_url, "shop:right") as guarded:
        client = RegistryClient(guarded.url, login=RegistryLogin(Secret("shop:right")))
        schema_id = client.register("guarded-value", USER)
        assert client.latest("guarded-value") == (schema_id, client.schema(schema_id))
        assert client.latest("nowhere") is None
        client.close()
        for login in (None, RegistryLogin(Secret("shop:hunter2"))):
            stranger = RegistryClient(guarded.url, login=login)
            with pytest.raises(
                RegistryRefusedError, match=r"Unauthorized. check basic\.auth\.user\.info"
            ) as caught:
                stranger.register("guarded-value", USER)
            assert "hunter2" not in str(caught.value)
            stranger.close()


def test_stock_clients_log_in_to_a_secured_registry_with_confluents_settings(
    secured_stack: Stack, certificates: Certificates
) -> None:
    settings = {
        "url": secured_stack.registry_url,
        "ssl.ca.location": str(certificates.authority),
        "max.retries": 0,
    }
    broker = {
        "bootstrap.servers": secured_stack.bootstrap,
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "ssl.ca.location": str(certificates.authority),
    }
    admin = AdminClient({**broker, "sasl.username": "admin", "sasl.password": "right"})
    admin.create_topics([NewTopic("orders", 1)])["orders"].result(20)
    for user, operation in (("shop", AclOperation.WRITE), ("clerk", AclOperation.READ)):
        rule = AclBinding(
            ResourceType.TOPIC, "orders", ResourcePatternType.LITERAL, f"User:{user}", "*", operation,
            AclPermissionType.ALLOW,
        )  # fmt: skip
        admin.create_acls([rule])[rule].result(20)

    def client(user_info: str) -> SchemaRegistryClient:
        return SchemaRegistryClient({**settings, "basic.auth.user.info": user_info})

    context = SerializationContext("orders", MessageField.VALUE)
    with client("shop:right") as shop:
        framed = AvroSerializer(shop, NAMED)({"id": 1, "name": "one"}, context)
        with pytest.raises(SchemaRegistryError) as refused:
            shop.register_schema("other-value", Schema(USER, "AVRO"))
        assert (refused.value.http_status_code, refused.value.error_code) == (403, 40301)
    with client("clerk:right") as clerk:
        assert AvroDeserializer(clerk)(framed, context) == {"id": 1, "name": "one"}
        assert clerk.get_subjects() == ["orders-value"]
        with pytest.raises(SchemaRegistryError) as refused:
            clerk.register_schema("orders-value", Schema(USER, "AVRO"))
        assert refused.value.http_status_code == 403
    for login in ("clerk:wrong", "nobody:right"):
        with client(login) as stranger, pytest.raises(SchemaRegistryError) as refused:
            stranger.get_subjects()
        assert (refused.value.http_status_code, refused.value.error_code) == (401, 401)
    with SchemaRegistryClient(settings) as nobody, pytest.raises(SchemaRegistryError) as refused:
        nobody.get_subjects()
    assert refused.value.http_status_code == 401


def test_our_own_client_logs_in_over_tls_and_trusts_nobody_else(
    secured_stack: Stack, certificates: Certificates
) -> None:
    user_info = Secret("admin:right")
    client = RegistryClient(
        secured_stack.registry_url, login=RegistryLogin(user_info, certificates.authority)
    )
    schema_id = client.register("orders-value", USER)
    client.set_compatibility("orders-value", "FULL")
    assert client.latest("orders-value") == (schema_id, client.schema(schema_id))
    client.close()
    stranger = RegistryClient(secured_stack.registry_url, login=RegistryLogin(user_info), timeout_s=0)
    with pytest.raises(RegistryUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.latest("orders-value")
    stranger.close()


def test_a_certificate_that_was_renewed_serves_the_next_connection_to_the_registry(tmp_path: Path) -> None:
    certificates = make_authority(tmp_path)
    pem = certificates.make("broker", server=True)
    stack = Stack(tmp_path / "stack", registry_listen="https://127.0.0.1:0", ssl_keystore_location=str(pem))
    stack.start()
    try:
        place = urlsplit(stack.registry_url)
        address = (place.hostname or "", place.port or 0)
        before = ssl.get_server_certificate(address)
        assert before in pem.read_text()
        renewed = make_authority(tmp_path).make("renewed", server=True).rename(pem)
        after = ssl.get_server_certificate(address, ca_certs=str(certificates.authority))
        assert after != before and after in renewed.read_text()
    finally:
        stack.kill()


def test_a_login_is_sent_over_https_only() -> None:
    with pytest.raises(ConfigError, match="show the password to the network"):
        RegistryClient("http://registry.example:8081", login=RegistryLogin(Secret("shop:right")))
