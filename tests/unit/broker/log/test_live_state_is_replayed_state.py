"""Whatever is done to a log, after a stop or a crash it knows what it knew before: sequences, transactions, epochs."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.broker.log.harness import Harness
from tests.unit.broker.log.model import MAX_SEQUENCE, Event, Model, ModelProducer

from tailrace.broker.log import LogError, TopicConfig
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.batch import iterate_batches
from tailrace.broker.records.record import decode_records

PRODUCERS = st.integers(0, 2)
HOUR_MS = 3_600_000


def key_of(value: bytes) -> bytes:
    """The key that goes with a value."""
    return b"k%d" % (int(value.partition(b".")[0]) % 5)


class LogMachine(RuleBasedStateMachine):
    """One log against the model; the kernel never loses a write here, unless a rule cuts the file."""

    config = TopicConfig(segment_bytes=1200, retention_bytes=6000, retention_ms=-1)

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="log-machine-"))
        self.at = Harness(self.root, self.config)
        self.model = Model()
        self.count = 0

    def teardown(self) -> None:
        self.at.crash()
        shutil.rmtree(self.root)

    def _values(self, records: int) -> tuple[bytes, ...]:
        self.count += 1
        return (
            *(b"%d.%d" % (self.count, number) for number in range(records)),
            b"%d.x" % self.count + b"." * 40,
        )

    def _key(self) -> bytes:
        return key_of(b"%d." % self.count)

    def _note(self, base: int, last: int, producer: tuple[int, int], **fields: object) -> None:
        event = {"sequence": -1, "transactional": False, "values": (), "commit": None} | fields
        self.model.add(Event(base, last, self.at.logs.leader_epoch, producer, **event))  # type: ignore[arg-type]

    @rule(records=st.integers(0, 4))
    def append_plain(self, records: int) -> None:
        values = self._values(records)
        result = self.at.append(*values, key=self._key())
        assert result.base_offset == self.model.end
        self._note(result.base_offset, result.last_offset, (-1, -1), values=values)

    @rule(who=PRODUCERS, records=st.integers(0, 3), transactional=st.booleans(), verified=st.booleans())
    def append_in_sequence(self, who: int, records: int, transactional: bool, verified: bool) -> None:
        known = self.model.producers.get(who)
        epoch = known.epoch if known else 0
        sequence = known.next_sequence if known else MAX_SEQUENCE - 5
        values = self._values(records)
        fields = {"producer": (who, epoch), "sequence": sequence, "transactional": transactional}
        is_open = known is not None and known.open_since is not None
        if (is_open and not transactional) or (transactional and not is_open and not verified):
            with pytest.raises(LogError) as caught:
                self.at.append(*values, key=self._key(), verified=verified, **fields)  # type: ignore[arg-type]
            assert caught.value.code is ErrorCode.INVALID_TXN_STATE
            return
        result = self.at.append(*values, key=self._key(), verified=verified, **fields)  # type: ignore[arg-type]
        assert not result.duplicate and result.base_offset == self.model.end
        self._note(result.base_offset, result.last_offset, values=values, **fields)  # type: ignore[arg-type]

    @rule(who=PRODUCERS, back=st.integers(0, 6))
    def repeat_a_batch(self, who: int, back: int) -> None:
        sent = [e for e in self.model.events if e.producer[0] == who and e.commit is None]
        known = self.model.producers.get(who)
        if known is None or back >= len(sent):
            return
        event = sent[-1 - back]
        last_sequence = (event.sequence + len(event.values) - 1) % (MAX_SEQUENCE + 1)
        remembered = (event.sequence, last_sequence, event.base, event.last) in known.batches
        fields = {
            "producer": event.producer,
            "sequence": event.sequence,
            "transactional": event.transactional,
        }
        if remembered:
            result = self.at.append(*event.values, **fields)  # type: ignore[arg-type]
            assert result.duplicate
            assert (result.base_offset, result.last_offset) == (event.base, event.last)
            return
        with pytest.raises(LogError) as caught:
            self.at.append(*event.values, **fields)  # type: ignore[arg-type]
        stale = event.producer[1] < known.epoch
        expected = ErrorCode.INVALID_PRODUCER_EPOCH if stale else ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        assert caught.value.code is expected

    @rule(who=PRODUCERS, skip=st.integers(1, 1000), bump=st.integers(0, 2))
    def append_out_of_sequence(self, who: int, skip: int, bump: int) -> None:
        known = self.model.producers.get(who)
        if known is None:
            return
        following = known.next_sequence if bump == 0 else 0
        sequence = (following + skip) % (MAX_SEQUENCE + 1)
        with pytest.raises(LogError) as caught:
            self.at.append(b"x", producer=(who, known.epoch + bump), sequence=sequence)
        assert caught.value.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER

    @rule(who=PRODUCERS)
    def begin_a_new_producer_epoch(self, who: int) -> None:
        known = self.model.producers.get(who)
        if known is None or known.open_since is not None:
            return
        values, producer = self._values(1), (who, known.epoch + 1)
        result = self.at.append(*values, key=self._key(), producer=producer, sequence=0)
        self._note(result.base_offset, result.last_offset, producer, sequence=0, values=values)

    @rule(who=PRODUCERS, commit=st.booleans(), bump=st.booleans())
    def end_the_transaction(self, who: int, commit: bool, bump: bool) -> None:
        known = self.model.producers.get(who)
        if known is None:
            return
        producer = (who, known.epoch + bump)
        result = self.at.end(producer, commit=commit)
        self._note(result.base_offset, result.last_offset, producer, commit=commit)

    @rule()
    def sync(self) -> None:
        self.at.sync()

    @rule()
    def roll(self) -> None:
        self.at.log.roll()

    @rule()
    def checkpoint(self) -> None:
        asyncio.run(self.at.logs.checkpoint())

    @rule()
    def maintain(self) -> None:
        self.at.clock.at_ms += HOUR_MS // 10
        asyncio.run(self.at.logs.maintain())

    @rule(part=st.floats(0, 1))
    def delete_records(self, part: float) -> None:
        log = self.at.log
        before = log.log_start_offset + int(part * (log.high_watermark - log.log_start_offset))
        assert self.at.logs.delete_records("orders", 0, before) == before

    @rule()
    def stop_and_start(self) -> None:
        self.at.restart()

    @rule()
    def crash_and_start(self) -> None:
        self.at.crash_and_start()

    @rule(which=st.floats(0, 0.99), part=st.floats(0, 1), garbage=st.binary(max_size=80))
    def lose_power_with_a_torn_tail(self, which: float, part: float, garbage: bytes) -> None:
        segments = self.at.log.segments
        unsynced = [segment for segment in segments if segment.size > segment.synced_size] or segments[-1:]
        segment = unsynced[int(which * len(unsynced))]
        keep = segment.synced_size + int(part * (segment.size - segment.synced_size))
        kept = [header for position, header in segment.headers() if position + header.size <= keep]
        end = kept[-1].last_offset + 1 if kept else segment.base_offset
        self.at.crash()
        os.truncate(segment.file.path, keep)
        with segment.file.path.open("ab") as file:
            file.write(garbage)
        self.model = self.model.cut(end)
        self.at.start()

    @invariant()
    def the_log_knows_what_the_model_knows(self) -> None:
        log, model = self.at.log, self.model
        assert log.log_end_offset == model.end
        assert log.last_stable_offset == model.last_stable_offset(log.high_watermark)
        known = {
            producer_id: ModelProducer(
                producer.epoch,
                [
                    (b.first_sequence, b.last_sequence, b.last_offset - b.offset_delta, b.last_offset)
                    for b in producer.batches
                ],
                None if producer.transaction_start < 0 else producer.transaction_start,
            )
            for producer_id, producer in log.states.by_id.items()
        }
        assert known == model.producers
        for producer_id, producer in model.producers.items():
            for epoch in (producer.epoch - 1, producer.epoch):
                is_open = producer.open_since is not None and epoch == producer.epoch
                assert log.has_open_transaction(producer_id, epoch) == is_open

    @invariant()
    def a_read_committed_consumer_sees_the_committed_records(self) -> None:
        log = self.at.log
        start, upper = log.log_start_offset, log.last_stable_offset
        aborted = log.aborted_transactions(start, upper)
        pending = sorted(aborted, key=lambda entry: entry[1])
        dropping: set[int] = set()
        seen: list[tuple[int, bytes | None]] = []
        offset = start
        while offset < upper:
            for view in log.read(offset, 400, upper=upper):
                for header, batch in iterate_batches(view):
                    offset = header.last_offset + 1
                    while pending and pending[0][1] <= header.last_offset:
                        dropping.add(pending.pop(0)[0])
                    if header.is_control:
                        dropping.discard(header.producer_id)
                    elif not (header.is_transactional and header.producer_id in dropping):
                        seen += [(r.offset, r.value) for r in decode_records(batch) if r.offset >= start]
        self.compare(seen, self.model.committed(start, upper))

    def compare(self, seen: list[tuple[int, bytes | None]], expected: list[tuple[int, bytes]]) -> None:
        assert seen == expected

    @invariant()
    def every_leader_epoch_ends_where_the_next_begins(self) -> None:
        for epoch, end in self.model.epoch_ends(self.at.log.log_start_offset).items():
            assert self.at.log.end_offset_for_epoch(epoch) == (epoch, end)


TestLiveStateIsReplayedState = LogMachine.TestCase
TestLiveStateIsReplayedState.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


class CompactedLogMachine(LogMachine):
    """The same log compacted now and then: offsets may be missing, the latest of every key never is."""

    config = TopicConfig(
        segment_bytes=1200,
        compact=True,
        delete=False,
        delete_retention_ms=HOUR_MS,
        min_cleanable_dirty_ratio=0.0,
    )

    @rule()
    def compact(self) -> None:
        self.at.log.roll()
        self.at.sync()

        async def compact_after_a_checkpoint() -> None:
            await self.at.logs.checkpoint()
            await self.at.logs.compact(self.at.log)

        asyncio.run(compact_after_a_checkpoint())

    @rule(who=PRODUCERS)
    def abort_what_was_latest(self, who: int) -> None:
        known = self.model.producers.get(who)
        if known is not None and known.open_since is None:
            self.append_in_sequence(who=who, records=1, transactional=True, verified=True)
            self.end_the_transaction(who=who, commit=False, bump=False)

    @rule()
    def pass_the_delete_horizon(self) -> None:
        self.at.clock.at_ms += 2 * HOUR_MS

    def compare(self, seen: list[tuple[int, bytes | None]], expected: list[tuple[int, bytes]]) -> None:
        assert set(seen) <= set(expected)
        assert latest(seen) == latest(expected)
        assert [offset for offset, _ in seen] == sorted({offset for offset, _ in seen})


def latest(records: Sequence[tuple[int, bytes | None]]) -> dict[bytes, tuple[int, bytes | None]]:
    return {key_of(value or b""): (offset, value) for offset, value in records}


TestACompactedLog = CompactedLogMachine.TestCase
TestACompactedLog.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
