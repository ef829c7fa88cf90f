"""Replacing segments by rewritten ones, so that a crash leaves the old ones or the new one.

.cleaned    being written; dropped at start
.swap       complete and durable: from the rename of the .log on, it stands for all segments whose
            first offset it covers; the start finishes the exchange
.deleted    no longer part of the log; unlinked when nobody waits for it
"""

import shutil
import struct
from pathlib import Path

from tailrace.broker.log.durable import sync_directory
from tailrace.broker.log.errors import StorageFailure
from tailrace.broker.log.frames import read_frame
from tailrace.broker.log.segment import INDEX_SUFFIXES, Segment, segment_name
from tailrace.broker.records.batch import HEADER_BYTES
from tailrace.changes import crash_point

CRASH_POINTS = (
    "broker.compaction.before_swap",
    "broker.compaction.swap_durable",
    "broker.compaction.old_renamed",
    "broker.compaction.after_swap",
)
CLEANING = "cleaning"


def finish_swaps(directory: Path) -> None:
    """Finish or drop what an earlier process left half done.  Before any segment is opened."""
    if (directory / CLEANING).exists():
        shutil.rmtree(directory / CLEANING)
    for leftover in ("*.deleted", "*.tmp"):
        for path in directory.glob(leftover):
            path.unlink()
    for swap in sorted(directory.glob("*.log.swap")):
        base = int(swap.name.split(".")[0])
        end = _end_of(swap)
        for path in sorted(directory.glob("*.log")):
            if base <= int(path.stem) < end:
                path.unlink()
        for suffix in INDEX_SUFFIXES:  # rebuilt from the segment
            (directory / segment_name(base, suffix)).unlink(missing_ok=True)
        swap.rename(directory / segment_name(base, ".log"))
    for path in directory.glob("*.swap"):
        path.unlink()
    for suffix in INDEX_SUFFIXES:
        for path in directory.glob("*" + suffix):
            if not path.with_suffix(".log").exists():
                path.unlink()
    sync_directory(directory)


def _end_of(log: Path) -> int:
    """Offset after the last batch of a whole segment file."""
    end, position, size = 0, 0, log.stat().st_size
    with log.open("rb") as file:
        while position + HEADER_BYTES <= size:
            file.seek(position)
            try:
                step, last_offset = read_frame(file.read(HEADER_BYTES), 0)
            except struct.error:
                break
            position += step
            end = last_offset + 1
    return end


def exchange(group: list[Segment], cleaned: Path, now_ms: int) -> tuple[Segment, list[Path]]:
    """Put the files of a rewritten group in the place of the old ones; the new segment, and what to unlink.

    On the loop, and the caller exchanges the segments in the log at once: a reader sees the old ones or the
    new one.  A crash is finished by `finish_swaps`, from the moment on that the `.log.swap` is there.
    """
    directory, base = group[0].directory, group[0].base_offset
    crash_point("broker.compaction.before_swap")
    for suffix in (*INDEX_SUFFIXES, ".log"):
        source = cleaned / group[0].path(suffix).name
        source.rename(directory / (source.name + ".swap"))
    sync_directory(directory)
    crash_point("broker.compaction.swap_durable")
    away: list[Path] = []
    for segment in group:
        away += segment.renamed_away()
    crash_point("broker.compaction.old_renamed")
    for suffix in (*INDEX_SUFFIXES, ".log"):
        final = group[0].path(suffix)
        final.with_name(final.name + ".swap").rename(final)
    replacement = Segment(directory, base, create=False, created_ms=now_ms)
    if not replacement.load_indexes():
        raise StorageFailure(
            f"the rewritten segment {replacement.file.path} is damaged", fix="Check the disk"
        )
    crash_point("broker.compaction.after_swap")
    return replacement, away
