"""A client that takes record batches and looks only at their headers: what limits it is the broker.

A consumer that parses records spends several times the CPU of the broker that sends them.
"""

import selectors
import socket
import struct
from collections.abc import Iterable

from tailrace.broker.protocol import ApiKey, ErrorCode, decode_response, encode_request
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.batch import iterate_batches

_VERSION = 12
_ANSWERS = (
    ErrorCode.NONE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
)  # Kafka gives the latter for a topic that is new
_SIZE = struct.Struct(">i")
_MOST_BYTES = 50 << 20
_DEADLINE_S = 30


class PlainReader:
    """One connection that reads partitions of a topic from the start, one request at a time."""

    def __init__(self, bootstrap: str, topic: str, partitions: Iterable[int], partition_bytes: int) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), _DEADLINE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._topic = topic
        self._next = dict.fromkeys(partitions, 0)
        self._partition_bytes = partition_bytes
        self._answer = memoryview(bytearray(_MOST_BYTES + (1 << 20)))
        self._filled = 0
        self.records = 0

    def ask(self) -> None:
        """Send a fetch of all partitions."""
        wanted = [
            m.FetchPartition(partition=p, fetch_offset=offset, partition_max_bytes=self._partition_bytes)
            for p, offset in self._next.items()
        ]
        request = m.FetchRequest(
            max_wait_ms=500,
            min_bytes=1,
            max_bytes=_MOST_BYTES,
            topics=[m.FetchTopic(topic=self._topic, partitions=wanted)],
        )
        self.socket.sendall(b"".join(encode_request(ApiKey.FETCH, _VERSION, 1, "plain", request)))

    def receive(self) -> bool:
        """Take what has come; whether the answer is whole, and counted."""
        got = self.socket.recv_into(self._answer[self._filled :])
        assert got, "the broker hung up"
        self._filled += got
        end = _SIZE.size + (_SIZE.unpack_from(self._answer)[0] if self._filled >= _SIZE.size else 0)
        if self._filled < max(end, _SIZE.size + 1):
            return False
        _, answer = decode_response(ApiKey.FETCH, _VERSION, self._answer[_SIZE.size : end])
        self._filled = 0
        for partition in answer.responses[0].partitions if answer.responses else ():
            assert partition.error_code in _ANSWERS, partition.error_code
            for header, _ in iterate_batches(partition.records or b""):
                self.records += header.last_offset + 1 - self._next[partition.partition_index]
                self._next[partition.partition_index] = header.last_offset + 1
        return True

    def read(self, count: int) -> None:
        """Read until `count` records were there."""
        while self.records < count:
            self.ask()
            while not self.receive():
                pass
        self.socket.close()


def read_side_by_side(readers: list[PlainReader], count: int) -> None:
    """Every reader reads `count` records; all at once, on this thread."""
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.socket, selectors.EVENT_READ, reader)
            reader.ask()
        left = len(readers)
        while left:
            for key, _ in selector.select(_DEADLINE_S):
                reader = key.data
                if not reader.receive():
                    continue
                if reader.records < count:
                    reader.ask()
                else:
                    selector.unregister(reader.socket)
                    reader.socket.close()
                    left -= 1
