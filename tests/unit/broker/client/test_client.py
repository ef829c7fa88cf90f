"""Topics, offsets, retry and interruption, against a real broker."""

import socket
import threading
import time

import pytest
from tests.fixtures.kafka_proxy import KafkaProxy
from tests.unit.broker.client.reading import batch_of

from tailrace.broker.client import (
    EARLIEST,
    BrokerError,
    BrokerUnavailableError,
    Client,
    Fetcher,
    IdempotentProducer,
    InterruptedClientError,
    NewTopic,
    TopicPartition,
)
from tailrace.broker.client.partition import Address, parse_bootstrap
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol.messages import ApiVersion, ApiVersionsResponse, FindCoordinatorResponse
from tailrace.broker.records.record import Record, encode_batch
from tailrace.changes import ConfigError


def test_a_topic_is_created_once_and_described(client: Client) -> None:
    wanted = NewTopic("created", 3, {"cleanup.policy": "compact"})
    assert client.create_topics([wanted]) == ["created"]
    assert client.create_topics([wanted]) == []
    described = client.metadata(["created"])["created"]
    assert described.partitions == [TopicPartition("created", index) for index in range(3)]
    assert not described.is_internal
    assert len(described.topic_id) == 16


def test_asking_for_a_topic_does_not_create_it(client: Client) -> None:
    assert client.metadata(["nowhere"]) == {}
    assert "nowhere" not in client.metadata()


def test_a_config_that_the_broker_refuses_names_the_topic(client: Client) -> None:
    with pytest.raises(BrokerError, match="refused-config") as caught:
        client.create_topics([NewTopic("refused-config", 1, {"cleanup.policy": "sometimes"})])
    assert caught.value.error == ErrorCode.INVALID_CONFIG


def test_a_deleted_topic_is_gone_and_may_be_deleted_again(client: Client) -> None:
    client.create_topics([NewTopic("deleted", 1)])
    client.delete_topics(["deleted"])
    client.delete_topics(["deleted"])
    assert client.metadata(["deleted"]) == {}


def test_offsets_are_listed_by_end_and_by_time(client: Client, topic: str) -> None:
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = IdempotentProducer(client)
    now = time.time_ns() // 1_000_000
    for stamp in (now - 2000, now - 1000, now):
        producer.send([(first, encode_batch([Record(None, b"v", stamp)]))])
    assert client.list_offsets([first, second]) == {first: 3, second: 0}
    assert client.list_offsets([first, second], EARLIEST) == {first: 0, second: 0}
    assert client.list_offsets([first], now - 1500) == {first: 1}
    assert client.list_offsets([first], now + 9000) == {first: -1}


def test_committed_offsets_come_back(client: Client, topic: str) -> None:
    offsets = {TopicPartition(topic, 0): 5, TopicPartition(topic, 1): 0}
    assert client.committed_offsets("a-group") == {}
    client.commit_offsets("a-group", offsets)
    assert client.committed_offsets("a-group") == offsets


def test_a_moved_coordinator_is_looked_up_again(client: Client, topic: str, proxy: KafkaProxy) -> None:
    proxy.forge(
        ApiKey.FIND_COORDINATOR,
        lambda request: FindCoordinatorResponse(error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE),
    )
    client.commit_offsets("b-group", {TopicPartition(topic, 0): 1})
    assert proxy.seen.count(ApiKey.FIND_COORDINATOR) == 2


@pytest.mark.parametrize("api_key", [ApiKey.API_VERSIONS, ApiKey.METADATA, ApiKey.CREATE_TOPICS])
def test_a_lost_connection_is_made_again(client: Client, proxy: KafkaProxy, api_key: ApiKey) -> None:
    proxy.lose_request(api_key)
    proxy.lose_answer(api_key)
    name = f"lost-{api_key.name.lower()}"
    client.create_topics([NewTopic(name, 1)])
    assert name in client.metadata()


def test_a_broker_that_knows_only_old_handshakes_is_understood(client: Client, proxy: KafkaProxy) -> None:
    def refuse(request: object) -> ApiVersionsResponse:
        return ApiVersionsResponse(
            error_code=ErrorCode.UNSUPPORTED_VERSION,
            api_keys=[ApiVersion(api_key=18, min_version=0, max_version=0)],
        )

    proxy.forge(ApiKey.API_VERSIONS, refuse)
    assert client.metadata(["nowhere"]) == {}
    assert proxy.seen.count(ApiKey.API_VERSIONS) == 2


def test_a_broker_that_is_too_old_is_named(client: Client, proxy: KafkaProxy) -> None:
    keys = [ApiVersion(api_key=key, min_version=0, max_version=0) for key in (3, 18)]
    proxy.forge(ApiKey.API_VERSIONS, lambda request: ApiVersionsResponse(api_keys=keys))
    with pytest.raises(BrokerError, match="speaks no version of INIT_PRODUCER_ID"):
        IdempotentProducer(client).send([(TopicPartition("any", 0), batch_of(b"v"))])


def test_an_address_where_nobody_listens_is_named_after_the_deadline() -> None:
    with (
        Client("127.0.0.1:1", client_id="test", retry_for_s=0.3) as client,
        pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1 for 0 s.*refused"),
    ):
        client.metadata()


def test_a_port_that_speaks_another_protocol_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_as_a_web_server() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer_as_a_web_server)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            Client(address, client_id="test") as client,
            pytest.raises(BrokerError, match=f"{address} does not speak the Kafka protocol"),
        ):
            client.metadata()
        thread.join()


def test_a_topic_that_stays_unknown_is_an_error_before_the_deadline(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.broker.client.client._UNKNOWN_TOPIC_S", 0.2)
    with pytest.raises(BrokerError, match="nowhere/0") as caught:
        client.list_offsets([TopicPartition("nowhere", 0)])
    assert caught.value.error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_an_interrupt_ends_a_fetch_that_waits(client: Client, topic: str, proxy: KafkaProxy) -> None:
    fetcher = Fetcher(client, {TopicPartition(topic, 0): 0}, max_wait_ms=8_000)

    def interrupt_once_fetching() -> None:
        deadline = time.monotonic() + 8
        while ApiKey.FETCH not in proxy.seen and time.monotonic() < deadline:
            time.sleep(0.01)
        client.interrupt()

    thread = threading.Thread(target=interrupt_once_fetching)
    thread.start()
    started = time.monotonic()
    with pytest.raises(InterruptedClientError):
        fetcher.poll()
    assert time.monotonic() - started < 7
    thread.join()
    with pytest.raises(InterruptedClientError):
        client.metadata()


def test_an_interrupt_ends_the_wait_for_a_broker_that_is_down() -> None:
    with Client("127.0.0.1:1", client_id="test", retry_for_s=60) as client:
        timer = threading.Timer(0.2, client.interrupt)
        timer.start()
        with pytest.raises(InterruptedClientError):
            client.metadata()
        timer.join()


@pytest.mark.parametrize("bootstrap", ["", "host", "host:", ":9092", "host:x", "host:70000", "a:1,,b:2"])
def test_an_address_that_is_none_is_a_configuration_error(bootstrap: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        parse_bootstrap(bootstrap)


def test_addresses_are_read_with_brackets_around_ipv6() -> None:
    assert parse_bootstrap("a:1, [::1]:9092") == [Address("a", 1), Address("::1", 9092)]
    assert str(Address("::1", 9092)) == "[::1]:9092"
