"""Replacing segments by rewritten ones, so that a crash leaves the old ones or the new one.

.cleaned    being written; dropped at start
.swap       complete and durable: from the rename of the .log on, it stands for all segments whose
            first offset it covers; the start finishes the exchange
.deleted    no longer part of the log; unlinked when nobody waits for it
"""

import struct
from pathlib import Path

from tailrace.broker.log.durable import sync_directory
from tailrace.broker.log.frames import read_frame
from tailrace.broker.log.segment import INDEX_SUFFIXES, segment_name
from tailrace.broker.records.batch import HEADER_BYTES


def finish_swaps(directory: Path) -> None:
    """Finish or drop what an earlier process left half done.  Before any segment is opened."""
    for leftover in ("*.cleaned", "*.deleted", "*.tmp"):
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
