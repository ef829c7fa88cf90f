"""Record batches of a topic -> ChangeBatches (ARCHITECTURE.md, "What travels, and in which form").

Reads what our source writes and what anybody else writes in Confluent's wire format (Flink's avro-confluent
and upsert-kafka): a record without our headers is a create, or a delete when its value is null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tailrace.broker.records.columnar import ChangeHeaders, RecordColumns
from tailrace.broker.records.columnar_parse import change_headers, parse_batches
from tailrace.changes import (
    OP_CREATE,
    OP_DELETE,
    OP_READ,
    OP_UPDATE,
    ChangeBatch,
    TableId,
    TableSchema,
    TailraceError,
)
from tailrace.registry.arrow_buffers import joined
from tailrace.registry.avro_plan import RowPlan
from tailrace.registry.envelope.framed_rows import FramedRows, Longs, SchemaPlans
from tailrace.registry.envelope.schemas import NULL, SchemaStore

_MAX_SETS = np.iinfo(np.int16).max


@dataclass(frozen=True, slots=True)
class Decoded:
    """Changes of one schema, and the offset of each in its partition, increasing."""

    batch: ChangeBatch
    offsets: npt.NDArray[np.int64]


class ChangeDecoder:
    """Reads the changes of one topic.  Not thread-safe: one per topic and thread."""

    def __init__(
        self, registry: SchemaStore, topic: str, table: TableId, *, key: Sequence[str] | None = None
    ) -> None:
        """table  name that the batches carry.
        key    the key columns; None: the columns of the record key, none where record keys are null.
        """
        self._topic = topic
        self._table = table
        self._key = None if key is None else tuple(key)
        self._plans = SchemaPlans(registry)
        self._value_id: int | None = None

    def decode(
        self, batches: Sequence[memoryview], *, partition: int, start_offset: int = 0
    ) -> list[Decoded]:
        """The changes in fetched record batches of one partition, in offset order, a new batch per schema.

        start_offset  records before it are left out: a fetch from the middle of a record batch gives all of it.

        A delete has its key columns from the record key and nulls elsewhere.  A record without our headers has
        lsn 0, its offset as seq, xid 0 and the record's timestamp.  Records of an older schema come as a batch
        of that schema: `avro_project.project_rows` puts them under a newer one.  Raises TailraceError, naming
        topic, partition and offset, for bytes that are not what they should be.
        """
        where = f"topic {self._topic}, partition {partition}"
        records = parse_batches(batches, where=where)
        records = records.between(int(np.searchsorted(records.offset, start_offset)), len(records))
        if len(records) == 0:
            return []
        headers = change_headers(records)
        at = _offset_namer(where, records.offset)
        values = FramedRows.read(records.buffer, records.value_start, records.value_length, at)
        ids = self._schema_of_each(values.ids)
        bounds = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
        return [
            self._decode_run(
                records.between(first, last),
                headers.between(first, last),
                values.between(first, last),
                int(ids[first]),
            )
            for first, last in pairwise(bounds)
        ]

    def _schema_of_each(self, ids: Longs) -> Longs:
        """The schema id of each row; a delete goes with the row before it, the first ones with the next."""
        given = np.flatnonzero(ids != NULL)
        before = self._value_id
        if before is None:
            before = int(ids[given[0]]) if len(given) else self._plans.latest(f"{self._topic}-value")
        last_given = np.maximum.accumulate(np.where(ids != NULL, np.arange(len(ids)), -1))
        filled = np.where(last_given < 0, NULL if before is None else before, ids[last_given])
        self._value_id = None if filled[-1] == NULL else int(filled[-1])
        return filled

    def _decode_run(
        self, records: RecordColumns, headers: ChangeHeaders, values: FramedRows, schema_id: int
    ) -> Decoded:
        op = _operations(headers.op, records.value_length)
        keys = _Keys(records, values.where, self._plans)
        schema, rows = self._rows(values, keys, op, schema_id)
        ours = headers.lsn >= 0
        unchanged, sets = _unchanged_sets(records, headers, ours, values.where)
        rows = _without_copies(rows, unchanged, sets)
        batch = ChangeBatch(
            table=schema,
            rows=rows,
            op=op,
            lsn=np.where(ours, headers.lsn, 0),
            seq=np.where(ours, headers.seq, records.offset),
            xid=np.maximum(headers.xid, 0),
            timestamp=np.where(ours & (headers.ts >= 0), headers.ts, records.timestamp_ms * 1000),
            unchanged=unchanged,
            unchanged_sets=sets,
            prior_key=_prior_key(records, headers, ours, schema, values.where, self._plans),
        )
        return Decoded(batch, records.offset)

    def _rows(
        self, values: FramedRows, keys: _Keys, op: npt.NDArray[np.uint8], schema_id: int
    ) -> tuple[TableSchema, pa.RecordBatch]:
        key = keys.columns() if self._key is None else self._key
        # Before the topic's first row its deletes are all that is known: the key alone is the schema.
        plan = self._plans.plan(schema_id) if schema_id != NULL else RowPlan(keys.schema(), ())
        if missing := [name for name in key if name not in plan.schema.names]:
            raise TailraceError(
                f"{values.where(0)}: the rows of schema {schema_id} have no key column '{missing[0]}'",
                fix="carry the key columns in the value too (Flink: value.fields-include = ALL)",
            )
        schema = TableSchema(self._table, plan.schema, key)
        deleted = np.flatnonzero(op == OP_DELETE)
        if schema_id == NULL:
            return schema, keys.decode(deleted, plan.schema)
        rows = values.decode(plan, (op != OP_DELETE).astype(np.uint8))
        if len(deleted) and key:
            rows = _with_keys(rows, keys.decode(deleted, schema.key_schema()), deleted)
        return schema, rows


class _Keys:
    """The record keys of a run, decoded only where they are needed."""

    def __init__(self, records: RecordColumns, where: Callable[[int], str], plans: SchemaPlans) -> None:
        self._records, self._where, self._plans = records, where, plans

    def schema(self) -> pa.Schema:
        """The columns of the first record key that is not null."""
        given = np.flatnonzero(self._records.key_length != NULL)
        if not len(given):
            return pa.schema([])
        first = self._framed(given[:1])
        return self._plans.plan(int(first.ids[0])).schema

    def columns(self) -> tuple[str, ...]:
        return tuple(self.schema().names)

    def decode(self, rows: Longs, schema: pa.Schema) -> pa.RecordBatch:
        """The keys of some rows as columns of `schema`."""
        framed = self._framed(rows)
        missing = np.flatnonzero(framed.ids == NULL)
        if len(missing) and len(schema):
            raise TailraceError(
                f"{framed.where(int(missing[0]))}: neither key nor value: no row can be deleted by it",
                fix="produce deletes of a table with a key as a record key and a null value",
            )
        if not len(schema):
            return _empty_rows(len(rows))
        return framed.decode_some(np.arange(len(rows)), self._plans, schema)

    def _framed(self, rows: Longs) -> FramedRows:
        records, where = self._records, self._where
        return FramedRows.read(
            records.buffer,
            records.key_start[rows],
            records.key_length[rows],
            lambda row: f"{where(int(rows[row]))}, key",
        )


def _empty_rows(count: int) -> pa.RecordBatch:
    """Rows without columns, which only a struct can count."""
    rows = pa.Array.from_buffers(pa.struct([]), count, [None], children=[])
    return pa.RecordBatch.from_struct_array(cast(pa.StructArray, rows))


def _operations(op: npt.NDArray[np.uint8], value_length: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The operation of each record: its header's, if it is one of ours, else create; a null value deletes."""
    known = np.isin(op, np.array([OP_CREATE, OP_UPDATE, OP_READ, OP_DELETE], np.uint8))
    live = np.where(known, op, OP_CREATE)
    return np.where(value_length == NULL, OP_DELETE, live).astype(np.uint8)


def _with_keys(rows: pa.RecordBatch, keys: pa.RecordBatch, deleted: Longs) -> pa.RecordBatch:
    """The rows with the key columns of the deleted ones filled in."""
    source = np.arange(rows.num_rows)
    source[deleted] = rows.num_rows + np.arange(len(deleted))
    indexes = pa.array(source, pa.int64())
    columns: list[pa.Array[Any]] = list(rows.columns)
    for name in keys.schema.names:
        i = rows.schema.get_field_index(name)
        columns[i] = pa.concat_arrays([columns[i], keys.column(name)]).take(indexes)
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _unchanged_sets(
    records: RecordColumns, headers: ChangeHeaders, ours: npt.NDArray[np.bool_], where: Callable[[int], str]
) -> tuple[npt.NDArray[np.int16], tuple[tuple[str, ...], ...]]:
    """Index of each row's set of unchanged columns, and the distinct sets."""
    indexes = np.full(len(records), -1, np.int16)
    rows = np.flatnonzero(ours & (headers.unchanged_length >= 0))
    if not len(rows):
        return indexes, ()
    texts = joined(records.buffer, headers.unchanged_start[rows], headers.unchanged_length[rows])
    encoded = texts.dictionary_encode()
    numbers = np.asarray(encoded.indices)
    if len(encoded.dictionary) > _MAX_SETS:
        raise TailraceError(
            f"{where(0)}: more than {_MAX_SETS} sets of unchanged columns", fix="fetch fewer bytes at a time"
        )
    indexes[rows] = numbers
    first_rows = rows[np.unique(numbers, return_index=True)[1]].tolist()
    distinct = cast(list[bytes], encoded.dictionary.to_pylist())
    return indexes, tuple(_names(text, where(row)) for text, row in zip(distinct, first_rows, strict=True))


def _without_copies(
    rows: pa.RecordBatch, unchanged: npt.NDArray[np.int16], sets: tuple[tuple[str, ...], ...]
) -> pa.RecordBatch:
    """Unchanged cells as nulls: a copy that was read again for other readers may be newer than its record."""
    for name in {name for names in sets for name in names}.intersection(rows.schema.names):
        i = rows.schema.get_field_index(name)
        is_kept = np.array([name in names for names in sets] + [False])[unchanged]
        cells = pc.if_else(pa.array(is_kept), pa.scalar(None, rows.schema.field(i).type), rows.column(i))
        rows = rows.set_column(i, rows.schema.field(i), cells)
    return rows


def _names(text: bytes, where: str) -> tuple[str, ...]:
    try:
        return tuple(str(name) for name in json.loads(text))
    except (ValueError, TypeError):
        raise TailraceError(
            f"{where}: its header 'unchanged' is not a JSON array of column names",
            fix="find the producer that wrote it; only a source of Tailrace sets the header lsn",
        ) from None


def _prior_key(
    records: RecordColumns,
    headers: ChangeHeaders,
    ours: npt.NDArray[np.bool_],
    schema: TableSchema,
    where: Callable[[int], str],
    plans: SchemaPlans,
) -> pa.RecordBatch | None:
    rows = np.flatnonzero(ours & (headers.prior_length >= 0))
    if not len(rows) or not schema.key:
        return None
    framed = FramedRows.read(
        records.buffer,
        headers.prior_start[rows],
        headers.prior_length[rows],
        lambda row: f"{where(int(rows[row]))}, header 'prior'",
    )
    given = framed.decode_some(np.arange(len(rows)), plans, schema.key_schema())
    place = np.zeros(len(records), np.int64)
    place[rows] = np.arange(len(rows))
    absent = np.ones(len(records), np.bool_)
    absent[rows] = False
    return given.take(pa.array(place, pa.int64(), mask=absent))


def _offset_namer(where: str, offsets: npt.NDArray[np.int64]) -> Callable[[int], str]:
    return lambda row: f"{where}, offset {offsets[row]}"
