"""Whether the rows of an Iceberg table are still those that this sink committed.

Others may do maintenance (snapshots of operation `replace`, Iceberg specification, "Snapshots"), nothing else.  Where
expiry has cut the snapshots that would tell, the number of live rows that our last commit stored must still hold.
"""

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from tailrace.sinks.backend import ForeignWriteError
from tailrace.sinks.checkpoint import Checkpoint

ROWS = "tailrace.rows"
"""Table property: live rows after our newest commit."""

_FIX = "roll back to the last snapshot of this sink or rebuild; others may only do maintenance"


def refuse_foreign_rows(table: Table, checkpoint: Checkpoint, live_rows: int, location: str) -> None:
    """Walk back from the head to our last snapshot: what lies between must not have changed rows."""
    head = table.current_snapshot()
    while head is not None:
        if _is_ours(head, checkpoint):
            return
        if head.summary is not None and head.summary.operation is not Operation.REPLACE:
            raise ForeignWriteError(
                f"snapshot {head.snapshot_id} of table {location} was written by somebody else and changes rows",
                fix=_FIX,
            )
        parent = head.parent_snapshot_id
        head = table.metadata.snapshot_by_id(parent) if parent is not None else None
    expected = table.metadata.properties.get(ROWS)
    if expected is not None and int(expected) != live_rows:
        raise ForeignWriteError(
            f"table {location} holds {live_rows} rows, this sink committed {expected}, and the snapshots between have "
            "expired",
            fix=_FIX,
        )


def _is_ours(snapshot: Snapshot, checkpoint: Checkpoint) -> bool:
    summary = snapshot.summary
    sequence = None if summary is None else summary.additional_properties.get("tailrace.sequence")
    return sequence == str(checkpoint.sequence)
