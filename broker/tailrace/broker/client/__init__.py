"""A synchronous Kafka client for whole record batches; works against any Kafka since 2.5.

    client = Client("127.0.0.1:9092", client_id="source")
    producer = TransactionalProducer(client, "shop-source")
    producer.init(); producer.begin()
    base_offsets = producer.send([(TopicPartition("raw.shop.orders", 0), batch)])
    producer.commit()

    fetcher = Fetcher(client, {TopicPartition("raw.shop.orders", 0): 0})
    for fetched in fetcher.poll(): ...

Nothing here is thread-safe but `Client.interrupt`; a thread that needs a client has its own.
"""

from tailrace.broker.client.client import EARLIEST, LATEST, Client, Isolation
from tailrace.broker.client.errors import (
    BrokerError,
    BrokerUnavailableError,
    InterruptedClientError,
    LoginError,
)
from tailrace.broker.client.fetcher import FetchedPartition, Fetcher
from tailrace.broker.client.partition import NewTopic, TopicMetadata, TopicPartition
from tailrace.broker.client.producer import IdempotentProducer
from tailrace.broker.client.security import PLAINTEXT, ClientSecurity
from tailrace.broker.client.transactions import TransactionalProducer

__all__ = [
    "EARLIEST",
    "LATEST",
    "PLAINTEXT",
    "BrokerError",
    "BrokerUnavailableError",
    "Client",
    "ClientSecurity",
    "FetchedPartition",
    "Fetcher",
    "IdempotentProducer",
    "InterruptedClientError",
    "Isolation",
    "LoginError",
    "NewTopic",
    "TopicMetadata",
    "TopicPartition",
    "TransactionalProducer",
]
