"""A source without Postgres: model tables, published as the real source publishes them."""

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from tests.fixtures.registry import Stack

from tailrace.broker.client import Client, NewTopic, TopicPartition, TransactionalProducer
from tailrace.broker.records.columnar_build import build_batch
from tailrace.changes import OP_DELETE, ChangeBatch, ChangeSet, TableId, TableSchema, Truncate
from tailrace.connectors.prepare import ChangePreparer, LogNames
from tailrace.connectors.publish import Publisher
from tailrace.connectors.source import Reselected
from tailrace.registry.avro_encode import encode_rows
from tailrace.registry.avro_plan import RowPlan, plan_rows
from tailrace.registry.avro_schema import arrow_to_avro
from tailrace.registry.client import RegistryClient
from tailrace.registry.envelope.partitioner import partition_rows
from tailrace.registry.envelope.schemas import frame


class SourceLog:
    """Raw topics and control topic of the pipeline `shop`, for some model tables."""

    control_topic = "_tailrace.shop.control"

    def __init__(self, stack: Stack, tables: Iterable[TableId], partitions: int = 3) -> None:
        self.topics = {table: f"raw.shop.{table.name}" for table in tables}
        self._client = Client(stack.bootstrap, client_id="test-source")
        names = LogNames("shop", self.topics, self.control_topic, partitions, 3_600_000)
        self._publisher = Publisher(self._client, names)
        self._publisher.open()
        counts = self._publisher.create_topics()
        self.registry = RegistryClient(stack.registry_url)
        self._preparer = ChangePreparer(self.registry, self.topics, counts, {}, _nothing_to_reselect)
        self.lsn = 0

    def publish(self, *changes: ChangeBatch | Truncate, lsn: int) -> None:
        """One source transaction that ends at `lsn`, durable and readable when this returns."""
        self.lsn = lsn
        stamped = ChangeSet(tuple(changes), lsn, time.time_ns() // 1000)
        self._publisher.publish([self._preparer.prepare(stamped)])

    def publish_open(self, *changes: ChangeBatch) -> None:
        """Part of a source transaction that is still open: nobody may read it yet."""
        self._publisher.publish([self._preparer.prepare(ChangeSet(tuple(changes), None, 0))])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self.registry.close()


def _nothing_to_reselect(table: TableSchema, keys: pa.RecordBatch, columns: Sequence[str]) -> Reselected:
    raise AssertionError("no transform reads these tables")


class FreeTopic:
    """A topic that a transform fills: keyed rows in transactions, without change headers."""

    def __init__(self, stack: Stack, topic: str, table: TableSchema, partitions: int = 2) -> None:
        self.topic = topic
        self._partitions = partitions
        self._client = Client(stack.bootstrap, client_id="test-transform")
        self._client.create_topics([NewTopic(topic, partitions, {"cleanup.policy": "compact"})])
        self._registry = RegistryClient(stack.registry_url)
        self._key = table.key_schema()
        self._value = table.arrow
        self._key_frame, self._value_frame = self._register("key"), self._register("value")
        self._producer = TransactionalProducer(self._client, f"transform-{topic}")
        self._producer.init()

    def publish(self, changes: Iterable[ChangeBatch]) -> None:
        """One producer transaction."""
        self._producer.begin()
        for batch in changes:
            key_rows = batch.rows.select(self._key.names)
            alive = (batch.op != OP_DELETE).astype(np.uint8)
            keys = encode_rows(key_rows, self._plan("key"), prefix=self._key_frame)
            values = encode_rows(batch.rows, self._plan("value"), prefix=self._value_frame, present=alive)
            for partition, rows in enumerate(partition_rows(keys, len(batch), self._partitions)):
                if len(rows):
                    batches = build_batch(keys, values, None, batch.timestamp // 1000, rows=rows)
                    place = TopicPartition(self.topic, partition)
                    self._producer.send([(place, data) for data, _count in batches])
        self._producer.commit()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._registry.close()

    def _avro(self, part: str) -> dict[str, Any]:
        return arrow_to_avro(self._key if part == "key" else self._value, name=part, namespace=self.topic)

    def _plan(self, part: str) -> RowPlan:
        return plan_rows(self._avro(part))

    def _register(self, part: str) -> bytes:
        return frame(self._registry.register(f"{self.topic}-{part}", json.dumps(self._avro(part))))
