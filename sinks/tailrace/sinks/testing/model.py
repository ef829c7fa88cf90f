"""A source table in memory, for tests of sinks: random transactions, the changes they make, the rows they leave.

`ModelSource.rows` is the truth that a mirror must equal.  The changes have what real ones have: several
partitions, unchanged TOAST cells, key changes, a key that comes back, columns added later.
"""

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from tailrace.changes import OP_CREATE, OP_DELETE, OP_UPDATE, ChangeBatch, TableId, TableSchema

Row = dict[str, Any]
Key = tuple[Any, ...]


def _schema(fields: "list[pa.Field[Any]]") -> pa.Schema:
    return pa.schema(fields)


ORDERS = TableSchema(
    TableId("public", "orders"),
    _schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("customer", pa.string()),
            pa.field("amount", pa.decimal128(12, 2)),
            pa.field("doc", pa.string()),
            pa.field("note", pa.string()),
            pa.field("paid", pa.bool_()),
        ]
    ),
    ("id",),
)
"""A table with an integer key and two columns (`doc`, `note`) that may be TOASTed."""

EVENTS = TableSchema(
    TableId("public", "events"),
    _schema(
        [
            pa.field("tenant", pa.string(), nullable=False),
            pa.field("doc", pa.string()),
            pa.field("day", pa.date32(), nullable=False),
            pa.field("amount", pa.decimal128(12, 2)),
            pa.field("note", pa.string()),
        ]
    ),
    ("day", "tenant"),
)
"""A table with a composite key whose columns are neither first nor in table order."""


@dataclass(slots=True)
class _Change:
    op: int
    key: Key
    row: Row
    unchanged: tuple[str, ...] = ()
    prior: Key | None = None


@dataclass(slots=True)
class ModelSource:
    """One source table; `lsn` is the end LSN of the last transaction; without `toast` every cell is given."""

    table: TableSchema = ORDERS
    seed: int = 0
    keys: int = 200
    partitions: int = 2
    toast: bool = True
    rows: dict[Key, Row] = field(default_factory=dict)
    lsn: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def transaction(self, changes: int) -> list[ChangeBatch]:
        """One source transaction of about so many changes; one batch per partition that it meets."""
        self.lsn += self._random.randrange(1, 1000)
        log: list[_Change] = []
        for _ in range(changes):
            log += self._change()
        return self._batches(log)

    def insert(self, count: int) -> list[ChangeBatch]:
        """One transaction that inserts rows under new keys."""
        self.lsn += 1
        free = [key for key in map(self._key, range(self.keys)) if key not in self.rows][:count]
        return self._batches([self._insert(key) for key in free])

    def delete_all(self) -> list[ChangeBatch]:
        """One transaction that deletes every row."""
        self.lsn += 1
        return self._batches([self._delete(key) for key in list(self.rows)])

    def add_column(self, column: "pa.Field[Any]") -> None:
        """ALTER TABLE ADD COLUMN without default."""
        self.table = TableSchema(self.table.id, self.table.arrow.append(column), self.table.key)
        for row in self.rows.values():
            row[column.name] = None

    def drop_column(self, name: str) -> None:
        """ALTER TABLE DROP COLUMN; a table keeps it, with nulls in rows written from now on."""
        arrow = self.table.arrow.remove(self.table.arrow.get_field_index(name))
        self.table = TableSchema(self.table.id, arrow, self.table.key)

    def widen_column(self, column: "pa.Field[Any]") -> None:
        """ALTER TABLE ALTER COLUMN TYPE to a wider type."""
        index = self.table.arrow.get_field_index(column.name)
        self.table = TableSchema(self.table.id, self.table.arrow.set(index, column), self.table.key)

    def _change(self) -> list[_Change]:
        key = self._key(self._random.randrange(self.keys))
        if key not in self.rows:
            return [self._insert(key)]
        what = self._random.random()
        if what < 0.2:
            return [self._delete(key)]
        if what < 0.35:
            return self._move(key)
        return [self._update(key)]

    def _insert(self, key: Key) -> _Change:
        row = {field.name: self._value(field) for field in self.table.arrow}
        row.update(zip(self.table.key, key, strict=True))
        self.rows[key] = row
        return _Change(OP_CREATE, key, row)

    def _delete(self, key: Key) -> _Change:
        del self.rows[key]
        return _Change(OP_DELETE, key, dict(zip(self.table.key, key, strict=True)))

    def _update(self, key: Key) -> _Change:
        old = self.rows[key]
        row = {field.name: self._value(field) for field in self.table.arrow}
        row.update(zip(self.table.key, key, strict=True))
        unchanged = self._unchanged()
        row.update({name: old[name] for name in unchanged})
        self.rows[key] = row
        return _Change(OP_UPDATE, key, row, unchanged)

    def _move(self, key: Key) -> list[_Change]:
        """A key change: delete of the old key, create of the new one."""
        new = self._key(self._random.randrange(self.keys))
        if new in self.rows:
            return [self._update(key)]
        old = self.rows[key]
        gone = self._delete(key)
        come = self._insert(new)
        come.unchanged = self._unchanged()
        come.row.update({name: old[name] for name in come.unchanged})
        come.prior = key
        return [gone, come]

    def _unchanged(self) -> tuple[str, ...]:
        names = [name for name in ("doc", "note") if self.toast and name in self.table.arrow.names]
        return tuple(name for name in names if self._random.random() < 0.4)

    def _key(self, number: int) -> Key:
        values = {
            "int64": number * 7 - 300,
            "string": f"tenant-{number % 13}",
            "date32[day]": date.fromordinal(738_000 + number // 13),
        }
        return tuple(values[str(self.table.arrow.field(name).type)] for name in self.table.key)

    def _value(self, column: "pa.Field[Any]") -> Any:
        if column.nullable and self._random.random() < 0.1:
            return None
        number = self._random.randrange(30_000)
        if pa.types.is_decimal(column.type):
            return Decimal(number).scaleb(-2)
        if pa.types.is_boolean(column.type):
            return number % 2 == 0
        if pa.types.is_string(column.type):
            return f"{column.name} {number} é"
        if pa.types.is_int64(column.type):
            return number << 40
        return number if pa.types.is_integer(column.type) else None

    def _batches(self, log: Sequence[_Change]) -> list[ChangeBatch]:
        parts: dict[int, list[tuple[int, _Change]]] = {}
        for seq, change in enumerate(log):
            parts.setdefault(zlib.crc32(repr(change.key).encode()) % self.partitions, []).append(
                (seq, change)
            )
        return [self._batch(part) for part in parts.values()]

    def _batch(self, part: list[tuple[int, _Change]]) -> ChangeBatch:
        changes = [change for _seq, change in part]
        sets = sorted({change.unchanged for change in changes if change.unchanged})
        rows = [
            {name: None if name in change.unchanged else value for name, value in change.row.items()}
            for change in changes
        ]
        n = len(part)
        return ChangeBatch(
            table=self.table,
            rows=pa.RecordBatch.from_pylist(rows, _all_nullable(self.table)),
            op=np.array([change.op for change in changes], np.uint8),
            lsn=np.full(n, self.lsn, np.int64),
            seq=np.array([seq for seq, _change in part], np.int64),
            xid=np.full(n, self.lsn % 1000, np.int64),
            timestamp=np.full(n, 1_700_000_000_000_000 + self.lsn, np.int64),
            unchanged=np.array([sets.index(c.unchanged) if c.unchanged else -1 for c in changes], np.int16),
            unchanged_sets=tuple(sets),
            prior_key=self._prior(changes),
        )

    def _prior(self, changes: Sequence[_Change]) -> pa.RecordBatch | None:
        if not any(change.prior for change in changes):
            return None
        none = dict.fromkeys(self.table.key)
        rows = [dict(zip(self.table.key, c.prior, strict=True)) if c.prior else none for c in changes]
        schema = pa.schema([field.with_nullable(True) for field in self.table.key_schema()])
        return pa.RecordBatch.from_pylist(rows, schema)


def _all_nullable(table: TableSchema) -> pa.Schema:
    """A delete carries its key only, whatever the columns allow."""
    return pa.schema([f if f.name in table.key else f.with_nullable(True) for f in table.arrow])


def plain_batch(table: TableSchema, rows: pa.RecordBatch) -> ChangeBatch:
    """Rows as inserts of one transaction."""
    n = rows.num_rows
    return ChangeBatch(
        table=table,
        rows=rows,
        op=np.full(n, OP_CREATE, np.uint8),
        lsn=np.full(n, 1, np.int64),
        seq=np.arange(n, dtype=np.int64),
        xid=np.full(n, 1, np.int64),
        timestamp=np.full(n, 1_700_000_000_000_000, np.int64),
        unchanged=np.full(n, -1, np.int16),
    )


def with_unchanged(batch: ChangeBatch, names: tuple[str, ...]) -> ChangeBatch:
    """The same changes, but saying that they left these columns as they were."""
    columns = [
        pa.nulls(len(batch), column.type) if name in names else column
        for name, column in zip(batch.rows.schema.names, batch.rows.columns, strict=True)
    ]
    return replace(
        batch,
        rows=pa.RecordBatch.from_arrays(columns, schema=batch.rows.schema),
        unchanged=np.zeros(len(batch), np.int16),
        unchanged_sets=(names,),
    )
