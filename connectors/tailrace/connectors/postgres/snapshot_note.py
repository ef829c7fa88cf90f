"""What the log remembers about the initial snapshot, under the key `snapshot` of the control topic.

    {"state": "started" | "done", "slot": "...", "lsn": <consistent point, 0 while started>,
     "system_id": "...", "timeline": 1, "tables": ["public.orders", ...]}

"started" is durable before the slot is created, so a slot of ours that a crash left behind is known as ours;
"done" becomes durable in one producer transaction with the rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from tailrace.changes import Lsn, TableId
from tailrace.connectors.postgres.slot import SystemIdentity
from tailrace.connectors.source import LogState, Note

KEY = "snapshot"


@dataclass(frozen=True, slots=True)
class SnapshotNote:
    """The note, typed."""

    state: Literal["started", "done"]
    slot: str
    lsn: Lsn
    system: SystemIdentity
    tables: frozenset[TableId]

    @property
    def is_done(self) -> bool:
        return self.state == "done"

    @classmethod
    def started(cls, slot: str, system: SystemIdentity, tables: Iterable[TableId]) -> Self:
        return cls("started", slot, 0, system, frozenset(tables))

    def done(self, consistent_point: Lsn) -> "SnapshotNote":
        return SnapshotNote("done", self.slot, consistent_point, self.system, self.tables)

    @classmethod
    def of(cls, log: LogState) -> Self | None:
        """The newest note in the log, None when there never was one."""
        value = log.notes.get(KEY)
        if value is None:
            return None
        system = SystemIdentity(value["system_id"], value["timeline"])
        tables = frozenset(TableId.parse(name) for name in value["tables"])
        return cls(value["state"], value["slot"], value["lsn"], system, tables)

    def to_note(self) -> Note:
        return Note(
            KEY,
            {
                "state": self.state,
                "slot": self.slot,
                "lsn": self.lsn,
                "system_id": self.system.system_id,
                "timeline": self.system.timeline,
                "tables": sorted(str(table) for table in self.tables),
            },
        )
