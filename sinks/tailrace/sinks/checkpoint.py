"""What a table commit covers, and the two forms in which a table stores it.

The table is the only truth about a sink's progress: a checkpoint is written in the same atomic commit
as the rows, and read back when the sink starts.  Consumer-group offsets are for lag display only.

Delta (protocol, "Transaction Identifiers"): `txn` actions, `version` an int64::

    <owner>/<topic>/<partition>   next offset to read
    <owner>//lsn                  the table is complete through this LSN
    <owner>//epoch                counts the owners; a writer with an older one is fenced
    <owner>//sequence             counts the commits of all owners, never goes back

Iceberg: table properties (authoritative: they survive snapshot expiry and foreign maintenance), and the
same keys in each snapshot's summary for audit and time travel::

    tailrace.owner      <owner>
    tailrace.lsn        decimal
    tailrace.epoch      decimal
    tailrace.sequence   decimal
    tailrace.offsets    JSON {"<topic>": {"<partition>": offset}}

`<owner>` is `<pipeline>/<sink>`.  Topic names hold no `/` (Kafka), so app ids parse from the right.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tailrace.changes import Lsn

TopicPartition = tuple[str, int]
"""A topic's name and a partition of it."""

_COUNTERS = ("lsn", "epoch", "sequence")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Progress of one table.

    offsets    next offset per topic partition: every record before it is in the table.
    lsn        the table equals the source at this LSN; 0 before the first position, and for tables
               that a transform fills.
    epoch      the owner's number, raised by each take-over, from 1.
    sequence   number of this commit, raised by each commit: the token that tells after a lost answer
               whether a commit landed (no two commits of one epoch share it).
    """

    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)
    lsn: Lsn = 0
    epoch: int = 0
    sequence: int = 0

    def taken_over(self) -> "Checkpoint":
        """What a new owner writes before anything else: the fence."""
        return replace(self, epoch=self.epoch + 1, sequence=self.sequence + 1)

    def advanced(self, offsets: Mapping[TopicPartition, int], lsn: Lsn) -> "Checkpoint":
        """The next commit's checkpoint; offsets and LSN never go back (no library checks that)."""
        for place, offset in offsets.items():
            if offset < self.offsets.get(place, 0):
                raise ValueError(f"offset of {place[0]}/{place[1]} would go back to {offset}")
        if lsn < self.lsn:
            raise ValueError(f"LSN would go back from {self.lsn} to {lsn}")
        return Checkpoint({**self.offsets, **offsets}, lsn, self.epoch, self.sequence + 1)


def to_transactions(owner: str, checkpoint: Checkpoint) -> dict[str, int]:
    """Delta app ids and versions of a checkpoint."""
    versions = {f"{owner}/{topic}/{partition}": n for (topic, partition), n in checkpoint.offsets.items()}
    return versions | {f"{owner}//{name}": getattr(checkpoint, name) for name in _COUNTERS}


def from_transactions(owner: str, versions: Mapping[str, int]) -> Checkpoint:
    """Read a checkpoint from a table's app ids; epoch 0 when `owner` never wrote to it."""
    counters = {name: versions.get(f"{owner}//{name}", 0) for name in _COUNTERS}
    offsets: dict[TopicPartition, int] = {}
    for app_id, version in versions.items():
        prefix, _, partition = app_id.rpartition("/")
        prefix, _, topic = prefix.rpartition("/")
        if prefix == owner and topic:
            offsets[topic, int(partition)] = version
    return Checkpoint(offsets, **counters)


def to_properties(owner: str, checkpoint: Checkpoint) -> dict[str, str]:
    """Iceberg properties of a checkpoint."""
    offsets: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in sorted(checkpoint.offsets.items()):
        offsets.setdefault(topic, {})[str(partition)] = offset
    return {
        "tailrace.owner": owner,
        "tailrace.offsets": json.dumps(offsets, separators=(",", ":")),
    } | {f"tailrace.{name}": str(getattr(checkpoint, name)) for name in _COUNTERS}


def from_properties(owner: str, properties: Mapping[str, str]) -> Checkpoint:
    """Read a checkpoint from table properties; epoch 0 when `owner` never wrote to the table."""
    if properties.get("tailrace.owner") != owner:
        return Checkpoint()
    stored: dict[str, dict[str, int]] = json.loads(properties["tailrace.offsets"])
    offsets = {(topic, int(p)): n for topic, partitions in stored.items() for p, n in partitions.items()}
    return Checkpoint(offsets, **{name: int(properties[f"tailrace.{name}"]) for name in _COUNTERS})
