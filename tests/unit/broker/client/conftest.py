"""One real broker per test file, behind a proxy that can lose and forge answers."""

from collections.abc import Iterator

import pytest
from tests.fixtures.kafka_proxy import KafkaProxy

from tailrace.broker.client import Client, NewTopic
from tailrace.broker.embedded import EmbeddedBroker


@pytest.fixture(scope="module")
def proxy() -> Iterator[KafkaProxy]:
    with KafkaProxy() as running:
        yield running


@pytest.fixture(scope="module")
def shared_broker(proxy: KafkaProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker that tells clients to come through the proxy."""
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), advertised_port=proxy.port)
    with broker:
        proxy.target = (broker.config.host, broker.config.port)
        yield broker


@pytest.fixture
def client(shared_broker: EmbeddedBroker, proxy: KafkaProxy) -> Iterator[Client]:
    proxy.forget_faults()
    with Client(proxy.address, client_id="test", request_timeout_s=10, retry_for_s=30) as connected:
        yield connected


@pytest.fixture
def topic(client: Client, request: pytest.FixtureRequest) -> str:
    """A new topic of two partitions, named after the test."""
    name = str(request.node.originalname)[:100]
    client.create_topics([NewTopic(name, 2)])
    return name
