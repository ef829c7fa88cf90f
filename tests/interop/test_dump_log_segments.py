"""Kafka's own reader of log files checks every file of logs with many segments, before and after compaction."""

import asyncio
import re
from pathlib import Path

import pytest
from tests.interop.kafka_tools import KafkaTools
from tests.unit.broker.log.harness import Harness

from tailrace.broker.log import TopicConfig

pytestmark = [pytest.mark.java, pytest.mark.slow]
DUMP = "org.apache.kafka.tools.DumpLogSegments"
PRODUCERS = ((7, 0), (8, 3))


def fill(at: Harness, turns: int) -> None:
    """Two transactions of two producers in each turn, one in three aborted; batches without a producer."""
    for turn in range(turns):
        for who in PRODUCERS:
            known = at.log.states.by_id.get(who[0])
            sequence = known.last_sequence + 1 if known else 0
            value = b"%d" % turn + b"." * 300
            at.append(value, key=b"k%d" % (turn % 5), producer=who, sequence=sequence, transactional=True)
        at.append(b"plain" * 50, b"second", key=b"plain%d" % (turn % 3), timestamp_ms=at.clock.at_ms + turn)
        for number, who in enumerate(PRODUCERS):
            at.end(who, commit=(turn + number) % 3 != 0)
    at.sync()


def check(tools: KafkaTools, at: Harness) -> None:
    """Dump all files of the log."""

    def dump(suffix: str, *options: str) -> str:
        return tools.run(DUMP, "--files", ",".join(map(str, at.files(suffix))), *options)

    batches = dump(".log", "--deep-iteration", "--print-data-log")
    assert batches.count("Log starting offset: ") == len(at.files(".log")) > 4
    holes = re.findall(r"^ +(-?\d+) is followed by \d+$", batches, re.MULTILINE)
    assert at.config.compact or set(holes) <= {"-1"}  # it calls a file that does not begin at 0 a hole
    assert "isvalid: true" in batches and "isvalid: false" not in batches
    assert set(re.findall(r"endTxnMarker: (\w+)", batches)) == {"COMMIT", "ABORT"}
    for suffix in (".index", ".timeindex"):
        sane = re.findall(r"passed sanity check|is empty", dump(suffix, "--index-sanity-check"))
        assert len(sane) == len(at.files(suffix))
        verified = dump(suffix, "--verify-index-only")
        assert not re.search(r"[Mm]ismatch|out of order|Found", verified), verified
    aborted = [(p, first) for p, first in at.log.aborted_transactions(0, at.log.log_end_offset)]
    told = re.findall(r"producerId: (\d+) firstOffset: (\d+)", dump(".txnindex"))
    assert sorted((int(p), int(first)) for p, first in told) == sorted(aborted) != []
    snapshots = dump(".snapshot")
    assert re.search(r"producerId: 7 producerEpoch: 0", snapshots)
    assert re.search(r"producerId: 8 producerEpoch: 3", snapshots)


@pytest.mark.parametrize("compacted", [False, True], ids=["as written", "compacted"])
def test_kafkas_log_reader_finds_every_file_of_a_long_log_valid(
    kafka_tools: KafkaTools, tmp_path: Path, compacted: bool
) -> None:
    config = TopicConfig(segment_bytes=20_000, compact=compacted, min_cleanable_dirty_ratio=0.0)
    at = Harness(tmp_path / "data", config)
    fill(at, 100)
    size = at.log.size
    if compacted:

        async def compact() -> bool:
            await at.logs.checkpoint()
            return await at.logs.compact(at.log)

        assert asyncio.run(compact())
        assert at.log.size < size
        fill(at, 20)
    at.restart()
    check(kafka_tools, at)
    at.stop()
