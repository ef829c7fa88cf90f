"""From change sets to record batches: the work that needs no broker, so that it runs beside the sending."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailrace.broker.client import TopicPartition
from tailrace.changes import (
    OP_READ,
    ChangeBatch,
    ChangeSet,
    Lsn,
    SourceDataError,
    TableId,
    TableSchema,
    TailraceError,
    Truncate,
    format_lsn,
)
from tailrace.connectors.source import Note, Reselected
from tailrace.registry.avro_schema import avro_to_arrow
from tailrace.registry.envelope import ChangeEncoder, SchemaStore

Reselect = Callable[[TableSchema, pa.RecordBatch, Sequence[str]], Reselected]


@dataclass(frozen=True, slots=True)
class LogNames:
    """Where a pipeline's source publishes."""

    pipeline: str
    topics: Mapping[TableId, str]
    control_topic: str
    partitions: int
    retention_ms: int
    transformed: Mapping[TableId, str] = field(default_factory=dict)
    """Tables that transforms read, with their SQL: they see whole rows only, and no TRUNCATE."""

    @property
    def transactional_id(self) -> str:
        """One per pipeline in the world: a newer instance fences the older."""
        return f"tailrace-source-{self.pipeline}"


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """One record batch of a raw topic, complete but for what the producer fills in."""

    place: TopicPartition
    data: bytearray
    records: int


@dataclass(frozen=True, slots=True)
class PreparedSet:
    """A ChangeSet as record batches, its barriers at their places between them."""

    steps: tuple[EncodedBatch | Truncate, ...]
    notes: tuple[Note, ...]
    position: Lsn | None
    timestamp: int
    changes: Mapping[TableId, int]
    """Changes per table, without the rows of the initial snapshot."""
    size: int
    """Bytes of all record batches."""

    @property
    def is_empty(self) -> bool:
        """Nothing but a position."""
        return not self.steps and not self.notes


class ChangePreparer:
    """Turns change sets into record batches.  One thread at a time.

    Registers a table's schema when it is first seen and when it changes; TailraceError when the registry
    refuses it.  A column that was added or made NOT NULL later stays nullable in its topic, whose older
    records have nothing or null there.
    """

    def __init__(
        self,
        schemas: SchemaStore,
        topics: Mapping[TableId, str],
        partitions: Mapping[str, int],
        transformed: Mapping[TableId, str],
        reselect: Reselect,
    ) -> None:
        """transformed: tables that transforms read, with their SQL; reselect: as `Source.reselect`."""
        self._transformed = transformed
        self._reselect = reselect
        self._topics = topics
        self._partitions = partitions
        self._schemas = schemas
        self._encoders = {topic: ChangeEncoder(schemas, topic) for topic in topics.values()}
        self._evolved: dict[str, tuple[TableSchema, TableSchema]] = {}

    def prepare(self, changes: ChangeSet, notes: Sequence[Note] = ()) -> PreparedSet:
        """Encode a set; `notes` become durable with it."""
        steps: list[EncodedBatch | Truncate] = []
        counts: dict[TableId, int] = defaultdict(int)
        for change in changes.changes:
            if isinstance(change, Truncate):
                self._refuse_unseen(change)
                steps.append(change)
            else:
                counts[change.table.id] += int(np.count_nonzero(change.op != OP_READ))
                steps += self._encode(change)
        size = sum(len(step.data) for step in steps if isinstance(step, EncodedBatch))
        return PreparedSet(tuple(steps), tuple(notes), changes.position, changes.timestamp, counts, size)

    def _refuse_unseen(self, truncate: Truncate) -> None:
        """Stop before a transform would silently compute with rows that are gone."""
        for table in set(truncate.tables).intersection(self._transformed):
            raise TailraceError(
                f"{table} was truncated at LSN {format_lsn(truncate.lsn)}, and a transform that reads it cannot "
                "see that",
                fix="run the pipeline under a new name, or DELETE instead of TRUNCATE from now on",
            )

    def _whole(self, batch: ChangeBatch) -> tuple[ChangeBatch, npt.NDArray[np.uint8] | None]:
        """The batch with those unchanged cells read again that a transform needs, and which rows are gone.

        A cell read again may be newer than its change; the change that made it so follows.
        """
        if not batch.unchanged_sets:
            return batch, None
        sql = self._transformed.get(batch.table.id, "")
        needed = [set(columns_named(sql, columns)) for columns in batch.unchanged_sets]
        columns = sorted(set().union(*needed))
        partial = np.array([bool(names) for names in needed] + [False])[batch.unchanged]
        rows = np.flatnonzero(partial)
        if not rows.size:
            return batch, None
        if not batch.table.key:
            raise SourceDataError(
                f"an update of {batch.table.id} at LSN {format_lsn(int(batch.lsn[rows[0]]))} leaves out the unchanged "
                f"TOASTed value of {', '.join(columns)}, and there is no key to select it again by",
                fix=f"ALTER TABLE {batch.table.id} REPLICA IDENTITY FULL, then run the pipeline under a new name",
            )
        keys = batch.rows.select(list(batch.table.key)).take(pa.array(rows, pa.int64()))
        again = self._reselect(batch.table, keys, columns)
        cells = list(batch.rows.columns)
        for name in columns:
            i = batch.rows.schema.get_field_index(name)
            mine = np.array([name in names for names in needed])[batch.unchanged[rows]]
            source = np.arange(len(batch))
            source[rows[mine]] = len(batch) + np.flatnonzero(mine)
            cells[i] = pa.concat_arrays([cells[i], again.rows.column(name)]).take(
                pa.array(source, pa.int64())
            )
        gone = np.zeros(len(batch), np.uint8)
        gone[rows[~again.found]] = 1
        whole = pa.RecordBatch.from_arrays(cells, schema=batch.rows.schema)
        return replace(batch, rows=whole), gone

    def _encode(self, batch: ChangeBatch) -> Iterator[EncodedBatch]:
        topic = self._topics[batch.table.id]
        whole, gone = self._whole(batch)
        encoder, partitions = self._encoders[topic], self._partitions[topic]
        encoded = encoder.encode(self._evolve(topic, whole), partitions, gone=gone)
        for partition, batches in encoded.items():
            for data, records in batches:
                yield EncodedBatch(TopicPartition(topic, partition), data, records)

    def _evolve(self, topic: str, batch: ChangeBatch) -> ChangeBatch:
        """The batch under the schema that the topic can have."""
        given, evolved = self._evolved.get(topic, (None, None))
        if evolved is None or given is not batch.table:
            before = self._registered(topic) if evolved is None else evolved.arrow
            evolved = _evolved(batch.table, before)
            self._evolved[topic] = batch.table, evolved
        if evolved is batch.table:
            return batch
        rows = pa.RecordBatch.from_arrays(batch.rows.columns, schema=evolved.arrow)
        return replace(batch, table=evolved, rows=rows)

    def _registered(self, topic: str) -> pa.Schema | None:
        latest = self._schemas.latest(f"{topic}-value")
        return None if latest is None else avro_to_arrow(latest[1])


def columns_named(sql: str, columns: Iterable[str]) -> list[str]:
    """Those of a table's columns that the SQL may read: one too many rather than one too few."""
    text = sql.lower()
    return [name for name in columns if text and ("*" in text or name.lower() in text)]


def _evolved(table: TableSchema, before: pa.Schema | None) -> TableSchema:
    """`table` with those columns nullable that older records may lack; `table` itself if there are none."""
    if before is None:
        return table
    fields = [
        field.with_nullable(True)
        if field.name not in table.key
        and (field.name not in before.names or before.field(field.name).nullable)
        else field
        for field in table.arrow
    ]
    schema = pa.schema(fields)
    return table if schema.equals(table.arrow) else replace(table, arrow=schema)
