"""A process that appends to a log until it is killed, and tells on standard output what is durable.

`python -m tests.unit.broker.log.crashing_writer DIR MODE BATCHES` prints one line `ack <end offset>` after each
durable batch.  Batch n holds the value n; three producers take turns.  MODE: `append` plainly,
`transactions` of four batches, each ended by a marker, or `compact`.
"""

import asyncio
import sys
from pathlib import Path

from tailrace.broker.log import Flusher, LogManager, checked
from tailrace.broker.records.record import Record, encode_batch
from tailrace.broker.topics import Topics

CONFIGS = {
    "append": {"segment.bytes": "1500", "retention.bytes": "5000", "retention.ms": "-1"},
    "transactions": {"segment.bytes": "1500", "retention.ms": "-1"},
    "compact": {"segment.bytes": "1500", "cleanup.policy": "compact"},
}


async def write(data_dir: Path, mode: str, batches: int) -> None:
    checked.CHECKED_BYTES = 300
    logs = LogManager(data_dir)
    topics = Topics(data_dir, logs)
    flusher = Flusher(on_high_watermark=lambda _: None, on_failure=lambda _: None)
    if topics.find("orders") is None:
        topics.create("orders", 1, CONFIGS[mode])
    log = topics.log("orders", 0)
    epoch = logs.leader_epoch
    producers = [topics.allocate_producer_id() for _ in range(3)]
    sequences = dict.fromkeys(producers, 0)
    if topics.find("passing") is not None:
        topics.delete("passing")
    number = log.log_end_offset
    for turn in range(batches):
        producer_id = producers[turn // 4 % 3]
        now_ms = logs.clock.now_ms()
        batch = encode_batch(
            [Record(b"k%d" % (turn % 50), b"%d" % number, now_ms)],
            producer_id=producer_id,
            producer_epoch=0,
            base_sequence=sequences[producer_id],
            transactional=mode == "transactions",
        )
        sequences[producer_id] += 1
        result = log.append(batch, now_ms=now_ms, leader_epoch=epoch, verified_transaction=True)
        if mode == "transactions" and turn % 4 == 3:
            result = log.append_marker(
                producer_id, 0, 0, commit=turn % 8 == 3, now_ms=now_ms, leader_epoch=epoch
            )
        number = result.last_offset + 1
        await flusher.wait_durable([(log, number)])
        sys.stdout.write(f"ack {number}\n")
        sys.stdout.flush()
        if turn % 25 == 24:
            await logs.maintain()
            await logs.checkpoint()
            if mode == "compact":
                await logs.compact(log)
    topics.create("passing", 2, {})
    topics.delete("passing")
    await logs.maintain()
    await flusher.close()
    logs.close()
    topics.close()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
