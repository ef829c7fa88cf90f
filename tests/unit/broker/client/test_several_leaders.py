"""A cluster of two nodes: two proxies in front of one broker, and metadata that tells them apart."""

from collections.abc import Iterator

import pytest
from tests.fixtures.kafka_proxy import KafkaProxy
from tests.unit.broker.client.reading import batch_of, read_until_end

from tailrace.broker.client import Client, IdempotentProducer, TopicPartition
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol.messages import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)


@pytest.fixture
def second(shared_broker: EmbeddedBroker) -> Iterator[KafkaProxy]:
    with KafkaProxy() as running:
        running.target = (shared_broker.config.host, shared_broker.config.port)
        yield running


@pytest.fixture
def places(client: Client, topic: str, proxy: KafkaProxy, second: KafkaProxy) -> list[TopicPartition]:
    """Partition 0 is led by node 1, partition 1 by node 2."""

    def describe(request: MetadataRequest) -> MetadataResponse:
        return MetadataResponse(
            brokers=[
                MetadataResponseBroker(node_id=1, host="127.0.0.1", port=proxy.port),
                MetadataResponseBroker(node_id=2, host="127.0.0.1", port=second.port),
            ],
            topics=[
                MetadataResponseTopic(
                    name=topic,
                    partitions=[
                        MetadataResponsePartition(partition_index=index, leader_id=index + 1)
                        for index in range(2)
                    ],
                )
            ],
        )

    for _ in range(20):
        for front in (proxy, second):
            front.forge(ApiKey.METADATA, describe)
    return [TopicPartition(topic, 0), TopicPartition(topic, 1)]


def test_each_partition_goes_through_its_leader(
    client: Client, places: list[TopicPartition], proxy: KafkaProxy, second: KafkaProxy
) -> None:
    sent = [(places[number % 2], batch_of(b"%d" % number)) for number in range(20)]
    assert IdempotentProducer(client).send(sent) == [number // 2 for number in range(20)]
    found = read_until_end(client, dict.fromkeys(places, 0))
    assert found == {
        places[0]: [b"%d" % number for number in range(0, 20, 2)],
        places[1]: [b"%d" % number for number in range(1, 20, 2)],
    }
    for front in (proxy, second):
        assert {ApiKey.PRODUCE, ApiKey.FETCH} <= set(front.seen)


@pytest.mark.parametrize("api_key", [ApiKey.PRODUCE, ApiKey.FETCH], ids=lambda api_key: api_key.name)
def test_one_leader_that_fails_costs_the_other_nothing(
    client: Client, places: list[TopicPartition], second: KafkaProxy, api_key: ApiKey
) -> None:
    second.lose_answer(api_key)
    second.lose_request(api_key, after=1)
    before = client.list_offsets(places)
    sent = [(places[number % 2], batch_of(b"%d" % number)) for number in range(20)]
    IdempotentProducer(client).send(sent)
    found = read_until_end(client, before)
    assert [len(found[place]) for place in places] == [10, 10]
    assert found[places[1]] == [b"%d" % number for number in range(1, 20, 2)]
