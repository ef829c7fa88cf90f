"""Producer snapshots of a log's directory: `<offset>.snapshot` says what was known before `offset`."""

import logging
from pathlib import Path

from tailrace.broker.log.durable import replace_file
from tailrace.broker.log.producers import ProducerStates
from tailrace.broker.log.segment import segment_name

SUFFIX = ".snapshot"

_log = logging.getLogger(__name__)


def snapshot_offsets(directory: Path) -> list[int]:
    """Offsets of all snapshot files, ascending."""
    return sorted(int(path.stem) for path in directory.glob("*" + SUFFIX) if path.stem.isdecimal())


def write_snapshot(directory: Path, offset: int, states: ProducerStates, *, durable: bool) -> None:
    """Keep `states` as the state before `offset`.  Raises OSError."""
    replace_file(directory / segment_name(offset, SUFFIX), states.to_snapshot(), durable=durable)


def load_snapshot(directory: Path, up_to: int, seen_ms: int) -> tuple[int, ProducerStates]:
    """(offset, state) of the newest whole snapshot at or before `up_to`; (-1, nothing known) without one.

    Damaged ones are passed over: the log itself tells the same.
    """
    for offset in reversed(snapshot_offsets(directory)):
        if offset <= up_to:
            path = directory / segment_name(offset, SUFFIX)
            try:
                return offset, ProducerStates.from_snapshot(path.read_bytes(), seen_ms)
            except ValueError as error:
                _log.warning("passing over %s: %s", path, error)
    return -1, ProducerStates()


def remove_snapshots(directory: Path, *, keep: set[int]) -> None:
    """Remove the snapshots of all other offsets."""
    for offset in snapshot_offsets(directory):
        if offset not in keep:
            (directory / segment_name(offset, SUFFIX)).unlink(missing_ok=True)
