"""Framed Avro strings of a topic's records -> Arrow columns, whatever schema ids they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailrace.changes import TailraceError
from tailrace.registry.avro_decode import decode_rows
from tailrace.registry.avro_plan import RowPlan, plan_rows
from tailrace.registry.avro_project import project_rows
from tailrace.registry.envelope.schemas import FRAME_SIZE, UNFRAMED, SchemaStore, read_frames

Longs = npt.NDArray[np.int64]


class SchemaPlans:
    """The plans of schema ids, each asked of the registry once."""

    def __init__(self, registry: SchemaStore) -> None:
        self._registry = registry
        self._plans: dict[int, RowPlan] = {}

    def plan(self, schema_id: int) -> RowPlan:
        """The plan of a schema; raises TailraceError when the registry does not know it."""
        if schema_id not in self._plans:
            self._plans[schema_id] = plan_rows(self._registry.schema(schema_id))
        return self._plans[schema_id]

    def latest(self, subject: str) -> int | None:
        """The id of the subject's newest schema."""
        newest = self._registry.latest(subject)
        return None if newest is None else newest[0]


@dataclass(frozen=True, slots=True)
class FramedRows:
    """n framed strings in a buffer, some of them null, and the schema ids that they name.

    where  names row i in errors, as "topic t, partition 0, offset 17".
    """

    data: npt.NDArray[np.uint8]
    starts: Longs
    lengths: Longs
    ids: Longs
    where: Callable[[int], str]

    @classmethod
    def read(
        cls, data: npt.NDArray[np.uint8], starts: Longs, lengths: Longs, where: Callable[[int], str]
    ) -> FramedRows:
        """Read the frames; a length of -1 is null.  Raises TailraceError for a string without a frame."""
        ids = read_frames(data, starts, lengths)
        bad = np.flatnonzero(ids == UNFRAMED)
        if len(bad):
            raise TailraceError(
                f"{where(int(bad[0]))}: not Avro in Confluent's wire format",
                fix="produce the topic with a schema registry's Avro serializer",
            )
        return cls(data, starts, lengths, ids, where)

    def between(self, first: int, last: int) -> FramedRows:
        """The rows first..last - 1."""
        part = slice(first, last)
        where = self.where
        return FramedRows(
            self.data, self.starts[part], self.lengths[part], self.ids[part], lambda row: where(first + row)
        )

    def decode(self, plan: RowPlan, present: npt.NDArray[np.uint8]) -> pa.RecordBatch:
        """All rows under one plan; null where not present."""
        starts = np.where(present == 1, self.starts + FRAME_SIZE, 0)
        lengths = np.where(present == 1, self.lengths - FRAME_SIZE, 0)
        return decode_rows(self.data, starts, lengths, plan, present=present, where=self.where)

    def decode_some(self, rows: Longs, plans: SchemaPlans, schema: pa.Schema) -> pa.RecordBatch:
        """The given rows of record keys, none of them null, each by its own schema, as columns of `schema`.

        Raises TailraceError where a row does not have all of the columns.
        """
        order: list[Longs] = []
        parts: list[pa.RecordBatch] = []
        for schema_id in np.unique(self.ids[rows]).tolist():
            members = rows[self.ids[rows] == schema_id]
            where = _at(self.where, members)
            plan = plans.plan(schema_id)
            if missing := [name for name in schema.names if name not in plan.schema.names]:
                raise TailraceError(
                    f"{where(0)}: the key column '{missing[0]}' is not in it",
                    fix="name as key columns what the record keys hold",
                )
            starts, lengths = self.starts[members] + FRAME_SIZE, self.lengths[members] - FRAME_SIZE
            decoded = decode_rows(self.data, starts, lengths, plan, where=where)
            order.append(members)
            parts.append(project_rows(decoded, schema))
        if len(parts) == 1:
            return parts[0]
        columns = [_joined([part.column(i) for part in parts], field) for i, field in enumerate(schema)]
        back = np.argsort(np.concatenate([*order, rows[:0]]), kind="stable")
        return pa.RecordBatch.from_arrays(columns, schema=schema).take(pa.array(back, pa.int64()))


def _at(where: Callable[[int], str], members: Longs) -> Callable[[int], str]:
    return lambda row: where(int(members[row]))


def _joined(parts: list[pa.Array[Any]], field: pa.Field[Any]) -> pa.Array[Any]:
    return pa.concat_arrays(parts) if parts else pa.nulls(0, field.type)
