"""The proxy does to a chosen answer what it was told, and to no other."""

import time
from collections.abc import Iterator

import pytest
from tests.fixtures.kafka_proxy import Fault, KafkaProxy
from tests.fixtures.wire import WireClient

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m

METADATA = m.MetadataRequest([])
TOPICS = m.ListTransactionsRequest()
LONG_S = 60.0


@pytest.fixture
def proxy(broker: EmbeddedBroker) -> Iterator[KafkaProxy]:
    with KafkaProxy() as running:
        running.target = (broker.config.host, broker.config.port)
        yield running


@pytest.fixture
def client(proxy: KafkaProxy) -> Iterator[WireClient]:
    with WireClient(proxy.address) as connected:
        yield connected


def test_without_a_fault_everything_passes(proxy: KafkaProxy, client: WireClient) -> None:
    assert client.ask(ApiKey.METADATA, METADATA).brokers
    assert proxy.seen == [ApiKey.METADATA]


def test_a_fault_waits_for_its_request(proxy: KafkaProxy, client: WireClient) -> None:
    proxy.lose_answer(ApiKey.METADATA, after=2)
    for _ in range(2):
        client.ask(ApiKey.METADATA, METADATA)
    client.ask(ApiKey.LIST_TRANSACTIONS, TOPICS)
    with pytest.raises(ConnectionError):
        client.ask(ApiKey.METADATA, METADATA)
    with WireClient(proxy.address) as again:
        again.ask(ApiKey.METADATA, METADATA)


def test_a_dropped_answer_never_comes_and_the_next_one_does(proxy: KafkaProxy, client: WireClient) -> None:
    proxy.add(Fault(ApiKey.METADATA, "drop_answer"))
    client.send(ApiKey.METADATA, METADATA)
    next_one = client.send(ApiKey.METADATA, METADATA)
    assert client.receive(ApiKey.METADATA)[0] == next_one


def test_a_reordered_answer_comes_behind_the_next_one(proxy: KafkaProxy, client: WireClient) -> None:
    proxy.add(Fault(ApiKey.METADATA, "reorder_answer", seconds=LONG_S))
    late = client.send(ApiKey.METADATA, METADATA)
    early = client.send(ApiKey.METADATA, METADATA)
    assert [client.receive(ApiKey.METADATA)[0] for _ in range(2)] == [early, late]


def test_a_reordered_answer_without_a_next_one_comes_in_the_end(
    proxy: KafkaProxy, client: WireClient
) -> None:
    proxy.add(Fault(ApiKey.METADATA, "reorder_answer", seconds=0.01))
    assert client.ask(ApiKey.METADATA, METADATA).brokers


def test_a_held_answer_holds_those_behind_it(proxy: KafkaProxy, client: WireClient) -> None:
    proxy.add(Fault(ApiKey.METADATA, "hold_answer", seconds=0.2))
    started = time.monotonic()
    order = [client.send(ApiKey.METADATA, METADATA) for _ in range(2)]
    assert [client.receive(ApiKey.METADATA)[0] for _ in range(2)] == order
    assert time.monotonic() - started >= 0.2


def test_a_late_request_arrives_when_its_client_is_gone(proxy: KafkaProxy, client: WireClient) -> None:
    proxy.add(Fault(ApiKey.CREATE_TOPICS, "late_request", seconds=0.01))
    client.send(ApiKey.CREATE_TOPICS, m.CreateTopicsRequest([m.CreatableTopic("late", 1, 1)]))
    assert client.is_closed_by_broker()
    with WireClient(proxy.address) as again:
        deadline = time.monotonic() + LONG_S
        while "late" not in {t.name for t in again.ask(ApiKey.METADATA, m.MetadataRequest(None)).topics}:
            assert time.monotonic() < deadline


def test_a_cut_ends_every_connection_and_none_of_the_next(proxy: KafkaProxy, client: WireClient) -> None:
    client.ask(ApiKey.METADATA, METADATA)
    proxy.cut()
    assert client.is_closed_by_broker()
    with WireClient(proxy.address) as again:
        again.ask(ApiKey.METADATA, METADATA)
