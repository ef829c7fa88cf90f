"""Reading back what tests wrote."""

import time
from collections.abc import Mapping

from tailrace.broker.client import Client, Fetcher, Isolation, TopicPartition
from tailrace.broker.records.record import Record, decode_records, encode_batch

DEADLINE_S = 30.0


def batch_of(*values: bytes) -> bytearray:
    """One batch with a record per value."""
    now = time.time_ns() // 1_000_000
    return encode_batch([Record(None, value, now) for value in values])


def read_until_end(
    client: Client,
    positions: Mapping[TopicPartition, int],
    *,
    isolation: Isolation = "read_committed",
) -> dict[TopicPartition, list[bytes]]:
    """The values of every partition from the given offsets to the end that a reader may see."""
    ends = client.list_offsets(positions, isolation=isolation)
    found: dict[TopicPartition, list[bytes]] = {partition: [] for partition in positions}
    fetcher = Fetcher(client, positions, isolation=isolation, max_wait_ms=100)
    deadline = time.monotonic() + DEADLINE_S
    while any(fetcher.positions[partition] < end for partition, end in ends.items()):
        assert time.monotonic() < deadline
        for fetched in fetcher.poll():
            for batch in fetched.batches:
                found[fetched.partition] += [
                    record.value or b""
                    for record in decode_records(batch)
                    if record.offset >= fetched.start_offset
                ]
    return found
