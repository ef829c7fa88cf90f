"""An oracle beside the sinks: the tables that a pipeline's topics add up to, as plain Python rows.

Reads raw and control topics as any read_committed consumer sees them and applies every change in the order
(LSN, index in the transaction).  It objects to a change that comes twice.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tailrace.broker.client import EARLIEST, Client, Fetcher, TopicPartition
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.changes import OP_DELETE, OP_UPDATE, TableId
from tailrace.connectors.control_log import read_control_log
from tailrace.registry.client import RegistryClient
from tailrace.registry.envelope import ChangeDecoder, SourcePosition, TruncateMark, parse_control

Row = dict[str, Any]
Rows = dict[tuple[Any, ...], Row]


@dataclass(frozen=True, slots=True)
class Change:
    """One change as it stands in a raw topic."""

    lsn: int
    seq: int
    partition: int
    offset: int
    op: int
    key: tuple[Any, ...]
    row: Row
    unchanged: tuple[str, ...]
    prior_key: tuple[Any, ...] | None


def read_changes(client: Client, registry: RegistryClient, topic: str, table: TableId) -> list[Change]:
    """Every committed change of a topic, partition by partition in offset order."""
    if topic not in client.metadata([topic]):
        return []
    changes = []
    for place in client.metadata([topic])[topic].partitions:
        decoder = ChangeDecoder(registry, topic, table)
        for batches, start in _everything(client, place):
            for decoded in decoder.decode(batches, partition=place.partition, start_offset=start):
                batch = decoded.batch
                prior = None if batch.prior_key is None else batch.prior_key.to_pylist()
                for index, row in enumerate(batch.rows.to_pylist()):
                    unchanged = batch.unchanged[index]
                    old = None if prior is None else tuple(prior[index].values())
                    changes.append(
                        Change(
                            lsn=int(batch.lsn[index]),
                            seq=int(batch.seq[index]),
                            partition=place.partition,
                            offset=int(decoded.offsets[index]),
                            op=int(batch.op[index]),
                            key=tuple(row[name] for name in batch.table.key),
                            row=row,
                            unchanged=() if unchanged < 0 else batch.unchanged_sets[unchanged],
                            prior_key=None if old is None or None in old else old,
                        )
                    )
    return changes


def read_truncates(client: Client, control_topic: str) -> list[TruncateMark]:
    """Every TRUNCATE barrier of a pipeline, in order."""
    marks = (mark for mark in _control_marks(client, control_topic) if isinstance(mark, TruncateMark))
    return sorted(marks, key=lambda mark: (mark.lsn, mark.seq))


def read_positions(client: Client, control_topic: str) -> list[SourcePosition]:
    """Every committed position of a pipeline, in order."""
    return [mark for mark in _control_marks(client, control_topic) if isinstance(mark, SourcePosition)]


def durable_position(client: Client, control_topic: str) -> int:
    """The newest committed position, 0 when there is none."""
    return read_control_log(client, control_topic).state.position or 0


def apply(changes: list[Change], truncates: list[TruncateMark]) -> Rows:
    """The table after all changes; AssertionError for one that stands in the log twice or does not fit."""
    seen = [(change.lsn, change.seq, change.op) for change in changes]
    assert len(seen) == len(set(seen)), "a change stands in the topic twice"
    rows: Rows = {}
    gone: Rows = {}
    steps: list[Change | TruncateMark] = [*changes, *truncates]
    for step in sorted(steps, key=lambda step: (step.lsn, step.seq)):
        if isinstance(step, TruncateMark):
            rows.clear()
        elif step.op == OP_DELETE:
            assert step.key in rows, "a delete of a row that is not there"
            gone[step.key] = rows.pop(step.key)
        else:
            assert (step.key in rows) == (step.op == OP_UPDATE), (
                "an update of nothing, or a row created twice"
            )
            old = rows.get(step.key) if step.prior_key is None else gone[step.prior_key]
            kept = {} if old is None else {name: old[name] for name in step.unchanged}
            assert len(kept) == len(step.unchanged), "an unchanged cell of no row"
            rows[step.key] = {**step.row, **kept}
    return rows


def read_table(dsn: str, table: str, key: str) -> Rows:
    """The table as the source has it, by key."""
    with psycopg.connect(dsn) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return {(row[key],): row for row in cursor.execute(f"SELECT * FROM {table}".encode())}


def _everything(client: Client, place: TopicPartition) -> list[tuple[list[memoryview], int]]:
    end = client.list_offsets([place], isolation="read_committed")[place]
    fetcher = Fetcher(client, client.list_offsets([place], EARLIEST))
    found = []
    while fetcher.positions[place] < end:
        found += [(fetched.batches, fetched.start_offset) for fetched in fetcher.poll()]
    return found


def _control_marks(client: Client, control_topic: str) -> list[Any]:
    found = [parse_batches(batches) for batches, _ in _everything(client, TopicPartition(control_topic, 0))]
    return [
        parse_control(records.value(index), where=control_topic)
        for records in found
        for index in range(len(records))
    ]
