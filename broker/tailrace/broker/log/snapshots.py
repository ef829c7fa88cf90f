"""Producer snapshots of a log's directory: `<offset>.snapshot` says what was known before `offset`."""

import logging
from pathlib import Path

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import read_file, replace_file, sync_directory, sync_file
from tailrace.broker.log.producers import ProducerStates
from tailrace.broker.log.segment import segment_name

SUFFIX = ".snapshot"

_log = logging.getLogger(__name__)


def snapshot_offsets(disk: Disk, directory: Path, suffix: str = SUFFIX) -> list[int]:
    """Offsets of all snapshot files, ascending."""
    stems = [name.removesuffix(suffix) for name in disk.names(directory) if name.endswith(suffix)]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def write_snapshot(
    disk: Disk, directory: Path, offset: int, states: ProducerStates, *, durable: bool
) -> None:
    """Keep `states` as the state before `offset`.  Raises OSError."""
    replace_file(disk, directory / segment_name(offset, SUFFIX), states.to_snapshot(), durable=durable)


def load_snapshot(disk: Disk, directory: Path, up_to: int, seen_ms: int) -> tuple[int, ProducerStates]:
    """(offset, state) of the newest whole snapshot at or before `up_to`; (-1, nothing known) without one.

    Damaged ones are passed over: the log itself tells the same.
    """
    for offset in reversed(snapshot_offsets(disk, directory)):
        if offset <= up_to:
            path = directory / segment_name(offset, SUFFIX)
            try:
                return offset, ProducerStates.from_snapshot(read_file(disk, path), seen_ms)
            except ValueError as error:
                _log.warning("passing over %s: %s", path, error)
    return -1, ProducerStates()


def sync_snapshot(disk: Disk, directory: Path, at_least: int) -> None:
    """Make the first snapshot from offset `at_least` on durable: what came before it may go now."""
    found = next((offset for offset in snapshot_offsets(disk, directory) if offset >= at_least), None)
    if found:  # nothing comes before offset 0
        sync_file(disk, directory / segment_name(found, SUFFIX))
    sync_directory(disk, directory)


def remove_snapshots(disk: Disk, directory: Path, *, keep: set[int]) -> None:
    """Remove the snapshots of all other offsets."""
    for offset in snapshot_offsets(disk, directory):
        if offset not in keep:
            disk.unlink(directory / segment_name(offset, SUFFIX))
