"""The load loop of one sink: topics -> tables, exactly once.

Where to read from comes from the tables alone: each table's own checkpoint holds its offsets, the control
topic's included.  Then, over and over:

1. read the control topic up to the newest position W (its LSN, its vector of offsets);
2. read every raw topic exactly up to W's offsets, TRUNCATEs applied at theirs;
3. commit every table that changed, with its rows, its offsets and `tailrace.lsn` = W in one table commit.

So all tables that come straight from raw topics stand at the same W, a state that the source was in.  A kill
between two table commits leaves some at W and some before; the next run brings these to a later W.
Tables without changes move their LSN every few seconds, and at once when everything is read.

Topics that a transform fills have no positions: their tables commit what has been read, with its offsets.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.broker.client import BrokerError, Client, FetchedPartition, Fetcher, TopicPartition
from tailrace.changes import crash_point, format_lsn
from tailrace.changes.status import StatusFile
from tailrace.sinks.control import ControlLog, Segment
from tailrace.sinks.feed import TableFeed

_log = logging.getLogger(__name__)

_IDLE_EVERY_S = 3.0
_REPORT_EVERY_S = 5.0
_POLL_MS = 100
_PACE_S = 0.02
_HELD_BYTES = 64 << 20
_SMALL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class CommitPolicy:
    """When to commit.

    every     seconds between the table commits of one sink, at least; a commit costs two or three syncs.
    max_rows  about how many records one commit may span when positions allow it (catching up).
    """

    every: float = 0.5
    max_rows: int = 1_000_000


class LoadLoop:
    """Drives the feeds of one sink."""

    def __init__(
        self,
        client: Client,
        feeds: Sequence[TableFeed],
        control: ControlLog | None,
        control_start: int,
        *,
        group: str,
        policy: CommitPolicy,
        status: StatusFile,
    ) -> None:
        """control_start: first offset of the control topic to read; group: for lag display only."""
        self._client = client
        self._raw = [feed for feed in feeds if feed.raw]
        self._free = [feed for feed in feeds if not feed.raw]
        self._feeds = list(feeds)
        self._by_topic = {feed.topic: feed for feed in feeds}
        self._control = control
        self._policy = policy
        self._group = group
        self._status = status
        self._segment: Segment | None = None
        self._due = 0.0
        self._report_due = time.monotonic() + _REPORT_EVERY_S
        self._quiet = self._slow = False
        self._reached: Segment | None = None
        self._has_moved = False
        self._paused: set[TopicPartition] = set()
        positions = {TopicPartition(*place): at for feed in feeds for place, at in feed.positions().items()}
        if control is not None:
            positions[TopicPartition(*control.place)] = control_start
        self._fetcher = Fetcher(client, positions, max_wait_ms=_POLL_MS)

    def run(self, stop: threading.Event) -> None:
        """Load until `stop` is set; everything that is visible then is complete."""
        try:
            while not stop.is_set():
                self._read()
                self._load_raw()
                self._load_free()
                self._report()
                if self._slow:
                    # Many small fetches cost more than they hurry: let a few transactions gather.
                    stop.wait(_PACE_S)
            self._report_offsets()
        finally:
            for feed in self._feeds:
                feed.writer.close()

    def _read(self) -> None:
        news = 0
        for fetched in self._fetcher.poll():
            news += sum(map(len, fetched.batches))
            if self._control is not None and fetched.partition == self._control.place:
                self._control.arrive(fetched)
            else:
                self._by_topic[fetched.partition.topic].arrive(fetched)
                self._pause(fetched)
        self._quiet, self._slow = news == 0, news < _SMALL_BYTES

    def _pause(self, fetched: FetchedPartition) -> None:
        """Stop reading a partition that is far past the aim; its bytes would only wait in memory."""
        feed, place = self._by_topic[fetched.partition.topic], fetched.partition
        if feed.raw and feed.held(place.partition) > _HELD_BYTES:
            self._fetcher.remove(place)
            self._paused.add(place)

    def _resume(self) -> None:
        for place in list(self._paused):
            feed = self._by_topic[place.topic]
            if feed.held(place.partition) <= _HELD_BYTES // 2:
                self._fetcher.seek(place, feed.positions()[place])
                self._paused.remove(place)

    def _load_raw(self) -> None:
        if self._control is None:
            return
        if self._segment is None and time.monotonic() >= self._due:
            self._take_segment(self._control)
        segment = self._segment
        if segment is None:
            self._move_idle(at_once=self._has_moved and self._quiet and not self._control.pending())
            return
        reached = [feed.advance() for feed in self._raw]
        if not all(reached):
            self._resume()
            return
        self._due = time.monotonic() + self._policy.every
        self._segment, self._reached = None, segment
        for feed in self._raw:
            if feed.dirty:
                self._commit_raw(feed, segment)
                self._has_moved = True
        self._move_idle(at_once=False)
        self._resume()

    def _move_idle(self, *, at_once: bool) -> None:
        """Move the LSN of tables without changes: all once nothing is left to read, else now and then."""
        if self._reached is None:
            return
        latest = time.monotonic() - _IDLE_EVERY_S
        for feed in self._raw:
            if feed.writer.checkpoint.lsn < self._reached.position.lsn and (
                at_once or feed.committed_at <= latest
            ):
                self._commit_raw(feed, self._reached)
        if at_once:
            self._has_moved = False

    def _commit_raw(self, feed: TableFeed, segment: Segment) -> None:
        assert self._control is not None
        offsets = {(feed.topic, number): at for number, at in segment.offsets(feed.topic).items()}
        offsets[self._control.place] = segment.next_offset
        feed.commit(max(segment.position.lsn, feed.writer.checkpoint.lsn), offsets)
        feed.newest_ms = max(segment.position.timestamp // 1000, feed.newest_ms or 0)
        feed.writer.upkeep()

    def _load_free(self) -> None:
        now = time.monotonic()
        for feed in self._free:
            feed.take_some()
            if feed.dirty and now - feed.committed_at >= self._policy.every:
                feed.take_all()
                feed.commit(feed.writer.checkpoint.lsn, feed.positions())
                feed.writer.upkeep()

    def _take_segment(self, control: ControlLog) -> None:
        read = {place: at for feed in self._raw for place, at in feed.decoded().items()}
        segment = control.take(read, self._policy.max_rows)
        if segment is None:
            return
        for feed in self._raw:
            known = feed.positions()
            for number in segment.offsets(feed.topic):
                if (feed.topic, number) not in known:
                    feed.add_partition(number, 0)
                    self._fetcher.seek(TopicPartition(feed.topic, number), 0)
            feed.aim(segment)
        self._segment = segment

    def _report(self) -> None:
        if self._status.due():
            self._status.write(self._state(), **self.document())
        if time.monotonic() >= self._report_due:
            self._report_due = time.monotonic() + _REPORT_EVERY_S
            self._report_offsets()

    def _report_offsets(self) -> None:
        """Tell the broker how far the tables are, so that any Kafka tool shows the lag; nothing reads it back."""
        offsets = {
            TopicPartition(*place): at
            for feed in self._feeds
            for place, at in feed.writer.checkpoint.offsets.items()
        }
        if not offsets:
            return
        crash_point("sink.before_offset_report")
        try:
            self._client.commit_offsets(self._group, offsets)
        except BrokerError as error:
            _log.warning("cannot report offsets of group %s: %s", self._group, error)

    def _state(self) -> str:
        behind = any(feed.lag() for feed in self._feeds)
        waiting = self._segment is not None or (self._control is not None and self._control.pending())
        return "running" if behind or waiting or not self._quiet else "caught_up"

    def document(self) -> dict[str, Any]:
        """What the status file says about the tables."""
        lsn = min((feed.writer.checkpoint.lsn for feed in self._raw), default=0)
        return {
            "lsn": lsn,
            "position": format_lsn(lsn),
            "tables": {feed.name: _described(feed) for feed in self._feeds},
        }


def _described(feed: TableFeed) -> dict[str, Any]:
    p50, p99 = feed.freshness.percentiles()
    lag, checkpoint = feed.lag(), feed.writer.checkpoint
    return {
        "topic": feed.topic,
        "location": feed.writer.location,
        "state": "running" if lag or feed.dirty else "caught_up",
        "rows": feed.writer.result.rows,
        "version": feed.writer.result.version,
        "changes": feed.changes,
        "lsn": checkpoint.lsn,
        "lag_rows": lag,
        "newest_ms": feed.newest_ms,
        "waiting_since_ms": feed.waiting_since_ms(),
        "freshness_p50_ms": p50,
        "freshness_p99_ms": p99,
    }
