"""Records of a pipeline's control topic: the source's position, TRUNCATEs, the state of the initial snapshot.

Keys and JSON values are those of ARCHITECTURE.md, "The control topic".  A consumer ignores a type that it
does not know (`parse_control` gives None), so that the topic can grow.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from tailrace.broker.records.columnar import BytesColumn
from tailrace.broker.records.columnar_build import build_batch
from tailrace.changes import Lsn, TableId, TailraceError


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """The log up to `offsets` (exclusive) is the source up to `lsn`; ends every producer transaction."""

    lsn: Lsn
    timestamp: int
    """Commit time of the newest source transaction, microseconds since the epoch."""
    offsets: Mapping[str, Mapping[int, int]]
    """Next offset of ALL raw partitions of the pipeline: topic -> partition -> offset."""
    tables: Mapping[TableId, str]
    """Raw topic of each table."""

    def to_record(self) -> tuple[bytes, bytes]:
        """Key and value."""
        return b"position", _json(
            type="position",
            lsn=self.lsn,
            timestamp=self.timestamp,
            offsets={topic: _offsets_json(offsets) for topic, offsets in self.offsets.items()},
            tables={str(table): topic for table, topic in self.tables.items()},
        )


@dataclass(frozen=True, slots=True)
class TruncateMark:
    """Rows of `topic` before `offsets` came before the TRUNCATE of `table`."""

    table: TableId
    topic: str
    lsn: Lsn
    seq: int
    timestamp: int
    offsets: Mapping[int, int]

    def to_record(self) -> tuple[bytes, bytes]:
        """Key and value."""
        return f"truncate/{self.table}/{self.lsn}/{self.seq}".encode(), _json(
            type="truncate",
            table=str(self.table),
            topic=self.topic,
            lsn=self.lsn,
            seq=self.seq,
            timestamp=self.timestamp,
            offsets=_offsets_json(self.offsets),
        )


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """Whether the initial snapshot taken with `slot` at `lsn` is complete."""

    state: Literal["started", "done"]
    slot: str
    lsn: Lsn

    def to_record(self) -> tuple[bytes, bytes]:
        """Key and value."""
        return b"snapshot", _json(type="snapshot", state=self.state, slot=self.slot, lsn=self.lsn)


ControlMark = SourcePosition | TruncateMark | SnapshotMark


class _Record(Protocol):
    def to_record(self) -> tuple[bytes, bytes]: ...


def parse_control(value: bytes | None, *, where: str) -> ControlMark | None:
    """The mark in a control record's value; None for a tombstone or a type this version does not know.

    `where` names topic and offset in the TailraceError raised for a value that is not such a document.
    """
    if value is None:
        return None
    try:
        document = json.loads(value)
        match document["type"]:
            case "position":
                return SourcePosition(
                    int(document["lsn"]),
                    int(document["timestamp"]),
                    {str(topic): _parse_offsets(offsets) for topic, offsets in document["offsets"].items()},
                    {TableId.parse(table): str(topic) for table, topic in document["tables"].items()},
                )
            case "truncate":
                return TruncateMark(
                    TableId.parse(document["table"]),
                    str(document["topic"]),
                    int(document["lsn"]),
                    int(document["seq"]),
                    int(document["timestamp"]),
                    _parse_offsets(document["offsets"]),
                )
            case "snapshot":
                if document["state"] not in ("started", "done"):
                    raise ValueError
                return SnapshotMark(document["state"], str(document["slot"]), int(document["lsn"]))
            case _:
                return None
    except (ValueError, KeyError, TypeError, AttributeError, TailraceError):
        raise TailraceError(
            f"{where} does not hold a control record of a pipeline",
            fix="check that nothing else writes to this topic, or give the pipeline another name",
        ) from None


def control_batch(marks: Sequence[_Record], *, timestamp_ms: int) -> list[tuple[bytearray, int]]:
    """Record batches of the marks in their order, as `build_batch` gives them."""
    keys, values = zip(*(mark.to_record() for mark in marks), strict=True)
    timestamps = np.full(len(marks), timestamp_ms, np.int64)
    return build_batch(
        BytesColumn.from_strings([*keys]), BytesColumn.from_strings([*values]), None, timestamps
    )


def _json(**document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _offsets_json(offsets: Mapping[int, int]) -> dict[str, int]:
    return {str(partition): offset for partition, offset in sorted(offsets.items())}


def _parse_offsets(document: dict[str, int]) -> dict[int, int]:
    return {int(partition): int(offset) for partition, offset in document.items()}
