"""Replacing segments by rewritten ones, so that a crash leaves the old ones or the new one.

.cleaned    being written; dropped at start
.swap       complete and durable: from the rename of the .log on, it stands for all segments whose
            first offset it covers; the start finishes the exchange
.deleted    no longer part of the log; unlinked when nobody waits for it

Between two steps the folder is synced: a file system may keep a later name and lose an earlier one.
"""

import struct
from pathlib import Path

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import sync_directory
from tailrace.broker.log.errors import StorageFailure
from tailrace.broker.log.frames import read_frame
from tailrace.broker.log.segment import INDEX_SUFFIXES, Segment, segment_name, segment_offsets
from tailrace.broker.records.batch import HEADER_BYTES
from tailrace.changes import crash_point

CRASH_POINTS = (
    "broker.compaction.before_swap",
    "broker.compaction.swap_durable",
    "broker.compaction.old_renamed",
    "broker.compaction.after_swap",
)
CLEANING = "cleaning"
_LOG_SWAP = ".log.swap"


def finish_swaps(disk: Disk, directory: Path) -> None:
    """Finish or drop what an earlier process left half done.  Before any segment is opened."""
    if disk.exists(directory / CLEANING):
        disk.remove_tree(directory / CLEANING)
    names = disk.names(directory)
    given_up = [name for name in names if name.endswith((".deleted", ".tmp"))]
    for name in given_up:
        disk.unlink(directory / name)
    swaps = [name for name in names if name.endswith(_LOG_SWAP)]
    for name in swaps:
        base, end = int(name.removesuffix(_LOG_SWAP)), _end_of(disk, directory / name)
        for old in segment_offsets(disk, directory):
            if base <= old < end:
                disk.unlink(directory / segment_name(old, ".log"))
        for suffix in INDEX_SUFFIXES:  # rebuilt from the segment
            disk.unlink(directory / segment_name(base, suffix))
        sync_directory(disk, directory)
        disk.rename(directory / name, directory / segment_name(base, ".log"))
    kept = set(segment_offsets(disk, directory))
    for name in disk.names(directory):
        stem, _, suffix = name.partition(".")
        if name.endswith(".swap") or ("." + suffix in INDEX_SUFFIXES and int(stem) not in kept):
            given_up.append(name)
            disk.unlink(directory / name)
    if given_up or swaps:
        sync_directory(disk, directory)


def _end_of(disk: Disk, log: Path) -> int:
    """Offset after the last batch of a whole segment file."""
    fd = disk.open(log)
    try:
        end, position, size = 0, 0, disk.size(fd)
        while position + HEADER_BYTES <= size:
            try:
                step, last_offset = read_frame(disk.read(fd, HEADER_BYTES, position), 0)
            except struct.error:
                break
            position += step
            end = last_offset + 1
    finally:
        disk.close(fd)
    return end


def stage(first: Segment, cleaned: Path) -> None:
    """Put the finished files of a rewritten group beside the old ones, durably.  In a worker thread.

    From now on they stand for the group: a crash is finished by `finish_swaps`.
    """
    disk, directory = first.disk, first.directory
    crash_point("broker.compaction.before_swap")
    for suffix in (*INDEX_SUFFIXES, ".log"):
        source = cleaned / first.path(suffix).name
        disk.rename(source, directory / (source.name + ".swap"))
    sync_directory(disk, directory)
    crash_point("broker.compaction.swap_durable")


def exchange(group: list[Segment], now_ms: int) -> tuple[Segment, list[Path]]:
    """Give the staged files the place of the old ones; the new segment, and what to unlink once that is durable.

    On the loop, and the caller exchanges the segments in the log at once: a reader sees the old ones or the
    new one.
    """
    disk, directory, base = group[0].disk, group[0].directory, group[0].base_offset
    away: list[Path] = []
    for segment in group:
        away += segment.renamed_away()
    sync_directory(disk, directory)
    crash_point("broker.compaction.old_renamed")
    for suffix in (*INDEX_SUFFIXES, ".log"):
        final = group[0].path(suffix)
        disk.rename(final.with_name(final.name + ".swap"), final)
    replacement = Segment(disk, directory, base, create=False, created_ms=now_ms)
    if not replacement.load_indexes():
        raise StorageFailure(
            f"the rewritten segment {replacement.file.path} is damaged", fix="Check the disk"
        )
    crash_point("broker.compaction.after_swap")
    return replacement, away
