"""ChangeBatch -> record batches of a raw topic (ARCHITECTURE.md, "What travels, and in which form")."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailrace.broker.records.columnar import BytesColumn, HeaderColumns
from tailrace.broker.records.columnar_build import DEFAULT_LIMIT, build_batch
from tailrace.changes import OP_DELETE, ChangeBatch, ConfigError, TableSchema
from tailrace.registry.avro_encode import encode_rows
from tailrace.registry.avro_plan import RowPlan, plan_rows
from tailrace.registry.avro_schema import arrow_to_avro
from tailrace.registry.envelope.partitioner import partition_rows
from tailrace.registry.envelope.schemas import SchemaStore, frame


@dataclass(frozen=True, slots=True)
class _Format:
    """How rows of one table schema are written."""

    table: TableSchema
    value: RowPlan
    value_frame: bytes
    key: RowPlan | None
    key_frame: bytes


class ChangeEncoder:
    """Writes the changes of one table to its topic; registers a schema before the first row that has it.

    Not thread-safe: one per topic and thread.
    """

    def __init__(self, registry: SchemaStore, topic: str, *, limit: int = DEFAULT_LIMIT) -> None:
        """limit: bytes of an uncompressed record batch."""
        self._registry = registry
        self._topic = topic
        self._limit = limit
        self._format: _Format | None = None

    def encode(
        self, batch: ChangeBatch, partitions: int, *, gone: npt.NDArray[np.uint8] | None = None
    ) -> dict[int, list[tuple[bytearray, int]]]:
        """For each partition that gets records: record batches and their number of records, in order.

        gone  uint8[n], 1 where the row exists no more at the source, so that its unchanged cells could not be
        read again: a reader that needs whole rows takes the record for a delete.

        Order is kept within a partition, and a key always has the same partition (Kafka's default
        partitioner over the record key), so the changes of a row stay in their order.  Rows of a table
        without a key all go to partition 0.  Producer id, sequence, CRC and compression are the producer's to
        fill (`finish_batch`).  Raises TailraceError when the registry refuses a schema, and for a null in a
        column that is not nullable.
        """
        form = self._form(batch.table)
        alive = (batch.op != OP_DELETE).astype(np.uint8)
        values = encode_rows(batch.rows, form.value, prefix=form.value_frame, present=alive)
        keys = None
        if form.key is not None:
            key_rows = _columns(batch.rows, form.key.schema)
            keys = encode_rows(key_rows, form.key, prefix=form.key_frame)
        headers = HeaderColumns(
            batch.op,
            batch.lsn,
            batch.seq,
            batch.xid,
            batch.timestamp,
            batch.unchanged,
            tuple(json.dumps(names, separators=(",", ":")).encode() for names in batch.unchanged_sets),
            _prior(batch, form),
            gone,
        )
        timestamps_ms = batch.timestamp // 1000
        members = partition_rows(keys, len(batch), partitions)
        return {
            partition: build_batch(keys, values, headers, timestamps_ms, rows=rows, limit=self._limit)
            for partition, rows in enumerate(members)
            if len(rows)
        }

    def _form(self, table: TableSchema) -> _Format:
        known = self._format
        if known is not None and (known.table is table or _same(known.table, table)):
            return known
        self._format = self._register(table)
        return self._format

    def _register(self, table: TableSchema) -> _Format:
        key, key_frame = None, b""
        if table.key:
            # The id is part of the key's bytes, hence of its partition: no pg_type, so that a longer varchar
            # leaves it alone.
            schema = table.key_schema()
            if nullable := [field.name for field in schema if field.nullable]:
                raise ConfigError(
                    f"table {table.id}: key column '{nullable[0]}' may be null",
                    fix="choose a key of columns that are NOT NULL",
                )
            avro = arrow_to_avro(schema, name="Key", namespace=self._topic, pg_types=False)
            key, key_frame = plan_rows(avro), frame(self._registered("key", avro))
        avro = arrow_to_avro(table.arrow, name="Value", namespace=self._topic)
        return _Format(table, plan_rows(avro), frame(self._registered("value", avro)), key, key_frame)

    def _registered(self, part: str, avro: dict[str, object]) -> int:
        return self._registry.register(f"{self._topic}-{part}", json.dumps(avro))


def _same(one: TableSchema, other: TableSchema) -> bool:
    """Whether both give the same registered schemas."""
    return one.key == other.key and one.arrow.equals(other.arrow, check_metadata=True)


def _columns(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([rows.column(name) for name in schema.names], schema=schema)


def _prior(batch: ChangeBatch, form: _Format) -> BytesColumn | None:
    """The framed old key of the rows that have one."""
    if batch.prior_key is None or form.key is None:
        return None
    prior = _columns(batch.prior_key, form.key.schema)
    given = np.asarray(prior.column(0).is_valid()).astype(np.uint8)
    return encode_rows(prior, form.key, prefix=form.key_frame, present=given)
