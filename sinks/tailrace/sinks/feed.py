"""One topic on its way into one table: batches that arrived, the cut they must be read to, what is staged.

A raw topic is read from cut to cut (the offsets of a TRUNCATE, then those of the position), and every cut is
exact: not a record more, not one less.  A topic that a transform fills has no cuts.

Big segments are staged in chunks.  A chunk of a raw topic ends at the same place in all partitions, so that
both halves of a key change are in one chunk: the new row may need the cells of the old one.  The place of a
change is (lsn, seq); that of a row with a prior key is the place of its other half, the delete just before; rows
of the initial snapshot come before all and need no one.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from tailrace.broker.client import FetchedPartition
from tailrace.broker.records.batch import read_header
from tailrace.changes import OP_READ, ChangeBatch, Lsn, Truncate
from tailrace.registry.envelope import TruncateMark
from tailrace.registry.envelope.decoder import ChangeDecoder
from tailrace.sinks.checkpoint import TopicPartition
from tailrace.sinks.control import Segment
from tailrace.sinks.freshness import Freshness
from tailrace.sinks.sink import TableWriter

CHUNK_ROWS = 250_000
CHUNK_BYTES = 96 << 20
_FIRST, _SNAPSHOT, _END = (-1, 0), (-2, 0), (1 << 62, 0)


@dataclass(slots=True)
class _Partition:
    """raw: (offset after the batch, bytes), not yet decoded; ready: decoded, not yet staged.

    held: bytes in raw.
    start: records before it are decoded already, or were before this run.
    seen: place of the last decoded change; all that still comes is there or later.
    """

    arrived: int
    start: int
    high_watermark: int = 0
    held: int = 0
    raw: deque[tuple[int, memoryview]] = field(default_factory=deque)
    ready: list[ChangeBatch] = field(default_factory=list)
    seen: tuple[int, int] = _FIRST


@dataclass(frozen=True, slots=True)
class _Cut:
    """Read every partition up to (exclusive) its offset, then apply the barrier if there is one."""

    offsets: dict[int, int]
    barrier: Truncate | None = None


class TableFeed:
    """Moves one topic into one writer."""

    def __init__(
        self,
        topic: str,
        name: str,
        *,
        raw: bool,
        writer: TableWriter,
        decoder: ChangeDecoder,
        starts: Mapping[int, int],
    ) -> None:
        """name: the table's name in the sink; starts: first offset to read per partition."""
        self.topic = topic
        self.name = name
        self.raw = raw
        self.writer = writer
        self.freshness = Freshness()
        self.changes = 0
        self.committed_at = time.monotonic()
        self.newest_ms: int | None = None
        """Commit time at the source up to which the table is known to be; None before the first commit of this run."""
        self._decoder = decoder
        self._partitions = {partition: _Partition(start, start) for partition, start in starts.items()}
        self._cuts: deque[_Cut] = deque()
        self._staged_rows = 0
        self._staged_ms: tuple[int, int] | None = None  # commit times of the oldest and newest staged change
        self._dirty = False

    @property
    def dirty(self) -> bool:
        """Whether the next commit would change rows."""
        return self._dirty

    def positions(self) -> dict[TopicPartition, int]:
        """Offset after the last record that arrived, per partition."""
        return {(self.topic, number): part.arrived for number, part in self._partitions.items()}

    def decoded(self) -> dict[TopicPartition, int]:
        """Offset after the last record that left the raw buffers, per partition."""
        return {(self.topic, number): part.start for number, part in self._partitions.items()}

    def add_partition(self, number: int, start: int) -> None:
        """The topic grew."""
        self._partitions[number] = _Partition(start, start)

    def backlog(self) -> int:
        """Records that arrived but are not in the table: an estimate that counts what compaction removed."""
        return self._staged_rows + sum(
            sum(map(len, part.ready)) + sum(read_header(data).record_count for _end, data in part.raw)
            for part in self._partitions.values()
        )

    def waiting_since_ms(self) -> int | None:
        """Commit time of the oldest change that arrived and is not in the table; None when nothing waits."""
        times = [] if self._staged_ms is None else [self._staged_ms[0]]
        for part in self._partitions.values():
            if part.ready:
                times.append(int(part.ready[0].timestamp[0]) // 1000)
            elif part.raw:
                times.append(read_header(part.raw[0][1]).base_timestamp)
        return min(times, default=None)

    def lag(self) -> int:
        """Records of the topic that are not in the table yet; an estimate, exact when it is 0."""
        behind = sum(max(0, part.high_watermark - part.arrived) for part in self._partitions.values())
        return behind + self.backlog()

    def held(self, number: int) -> int:
        """Bytes of a partition that wait for a cut."""
        return self._partitions[number].held

    def arrive(self, fetched: FetchedPartition) -> None:
        """Take what one poll brought of one partition."""
        part = self._partitions[fetched.partition.partition]
        for data in fetched.batches:
            part.raw.append((read_header(data).last_offset + 1, data))
            part.held += len(data)
        part.arrived = fetched.next_offset
        part.high_watermark = fetched.high_watermark

    def aim(self, segment: Segment) -> None:
        """Read to a position, with the barriers on the way that this table has not passed yet."""
        assert not self._cuts
        for mark in segment.truncates:
            if mark.topic == self.topic and mark.lsn > self.writer.checkpoint.lsn:
                self._cuts.append(_Cut(dict(mark.offsets), _barrier(mark)))
        self._cuts.append(_Cut(segment.offsets(self.topic)))

    def advance(self) -> bool:
        """Decode and stage what may be; True once the aim is reached and all of it is staged."""
        while self._cuts:
            cut = self._cuts[0]
            self._decode_to(cut.offsets)
            if not all(self._is_read(number, cut) for number in self._partitions):
                self._stage_chunk(cut)
                return False
            self._stage_all()
            if cut.barrier is not None:
                self.writer.truncate(cut.barrier)
                self._dirty = True
            self._cuts.popleft()
        return True

    def take_some(self) -> None:
        """Decode what arrived, and stage it once it is worth a file (topics without positions)."""
        self._decode_to(None)
        ready = [batch for part in self._partitions.values() for batch in part.ready]
        self._dirty |= bool(ready)
        if _is_worth_a_file(ready):
            self._stage_all()

    def take_all(self) -> None:
        """Decode and stage everything that arrived (topics without positions)."""
        self._decode_to(None)
        self._stage_all()

    def commit(self, lsn: Lsn, offsets: dict[TopicPartition, int]) -> None:
        """Commit what is staged at `offsets`, none of which goes back."""
        known = self.writer.checkpoint.offsets
        forward = {place: max(offset, known.get(place, 0)) for place, offset in offsets.items()}
        self.writer.commit(forward, lsn)
        self.changes += self._staged_rows
        self._staged_rows = 0
        self._dirty = False
        self.committed_at = time.monotonic()
        if self._staged_ms is not None:
            self.newest_ms = max(self._staged_ms[1], self.newest_ms or 0)
            self._staged_ms = None
        self.freshness.visible()

    def _is_read(self, number: int, cut: _Cut) -> bool:
        return self._partitions[number].arrived >= cut.offsets.get(number, 0)

    def _decode_to(self, offsets: dict[int, int] | None) -> None:
        for number, part in self._partitions.items():
            end = _END[0] if offsets is None else offsets.get(number, 0)
            run = []
            while part.raw and part.raw[0][0] <= end:
                run.append(part.raw.popleft()[1])
                part.held -= len(run[-1])
            if part.raw and max(read_header(part.raw[0][1]).base_offset, part.start) < end:
                # The batch reaches over the end: its later records are decoded again with the next cut.
                run.append(part.raw[0][1])
            if not run:
                continue
            for decoded in self._decoder.decode(run, partition=number, start_offset=part.start):
                count = int(np.searchsorted(decoded.offsets, end))
                if count:
                    part.ready.append(_rows(decoded.batch, 0, count))
                    part.seen = max(part.seen, _last_place(part.ready[-1]))
            part.start = max(part.start, min(end, part.arrived))

    def _stage_all(self) -> None:
        self._stage([batch for part in self._partitions.values() for batch in part.ready])
        for part in self._partitions.values():
            part.ready = []

    def _stage_chunk(self, cut: _Cut) -> None:
        """Stage what is complete in all partitions, once it is worth a file."""
        ready = [batch for part in self._partitions.values() for batch in part.ready]
        if not _is_worth_a_file(ready):
            return
        frontier = min(
            _END if self._is_read(number, cut) else part.seen for number, part in self._partitions.items()
        )
        chunk: list[ChangeBatch] = []
        for part in self._partitions.values():
            kept: list[ChangeBatch] = []
            for batch in part.ready:
                count = 0 if kept else _count_before(batch, frontier)
                if count:
                    chunk.append(_rows(batch, 0, count))
                if count < len(batch):
                    kept.append(_rows(batch, count, len(batch)))
            part.ready = kept
        self._stage(chunk)

    def _stage(self, batches: list[ChangeBatch]) -> None:
        if not batches:
            return
        self.writer.stage(batches)
        self._staged_rows += sum(map(len, batches))
        self._dirty = True
        for batch in batches:
            self.freshness.staged(batch.timestamp[batch.op != OP_READ])
            if len(batch):
                oldest, newest = int(batch.timestamp.min()) // 1000, int(batch.timestamp.max()) // 1000
                known = self._staged_ms or (oldest, newest)
                self._staged_ms = min(known[0], oldest), max(known[1], newest)


def _is_worth_a_file(batches: Sequence[ChangeBatch]) -> bool:
    return sum(map(len, batches)) >= CHUNK_ROWS or sum(b.rows.nbytes for b in batches) >= CHUNK_BYTES


def _barrier(mark: TruncateMark) -> Truncate:
    return Truncate((mark.table,), mark.lsn, mark.seq, mark.timestamp)


def _places(batch: ChangeBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    lsn, seq = batch.lsn, batch.seq
    if batch.prior_key is not None and batch.prior_key.num_columns:
        seq = seq - pc.is_valid(batch.prior_key.column(0)).to_numpy(zero_copy_only=False)
    snapshot = batch.op == OP_READ
    if snapshot.any():
        lsn = np.where(snapshot, _SNAPSHOT[0], lsn)
        seq = np.where(snapshot, _SNAPSHOT[1], seq)
    return lsn, seq


def _last_place(batch: ChangeBatch) -> tuple[int, int]:
    lsn, seq = _places(_rows(batch, len(batch) - 1, len(batch)))
    return int(lsn[0]), int(seq[0])


def _count_before(batch: ChangeBatch, frontier: tuple[int, int]) -> int:
    """How many changes at the head of the batch are strictly before the frontier."""
    lsn, seq = _places(batch)
    after = (lsn > frontier[0]) | ((lsn == frontier[0]) & (seq >= frontier[1]))
    return int(np.argmax(after)) if after.any() else len(batch)


def _rows(batch: ChangeBatch, start: int, end: int) -> ChangeBatch:
    """Part of a batch; nothing is copied."""
    if start == 0 and end == len(batch):
        return batch
    prior = None if batch.prior_key is None else batch.prior_key.slice(start, end - start)
    return replace(
        batch,
        rows=batch.rows.slice(start, end - start),
        op=batch.op[start:end],
        lsn=batch.lsn[start:end],
        seq=batch.seq[start:end],
        xid=batch.xid[start:end],
        timestamp=batch.timestamp[start:end],
        unchanged=batch.unchanged[start:end],
        prior_key=prior,
    )
