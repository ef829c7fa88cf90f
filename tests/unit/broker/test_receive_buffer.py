"""Where frames that come in pieces are kept."""

import pytest

from tailrace.broker.receive_buffer import ReceiveBuffer, SharedBuffer

MIB = 1 << 20
FRAME = bytes(range(256)) * (20 * MIB // 256)


def receive(buffer: ReceiveBuffer, data: bytes) -> memoryview:
    """What the kernel does with one read, and what the connection then does with a frame that is not whole."""
    room = buffer.room()
    room[: len(data)] = data
    buffer.filled += len(data)
    buffer.keep_rest(0, len(FRAME), 1.0)
    return room


@pytest.mark.parametrize("held", [False, True])
def test_a_large_frame_in_pieces_is_whole_whoever_still_looks_at_what_has_come(held: bool) -> None:
    buffer = ReceiveBuffer(SharedBuffer())
    pieces, at = [], 0
    while at < len(FRAME) - 1:
        size = min(60_000, len(FRAME) - 1 - at)
        piece = receive(buffer, FRAME[at : at + size])
        if held:
            pieces.append(piece)
        at += size
    assert buffer.view[: buffer.filled] == FRAME[:-1]
    assert len(buffer.view) <= len(FRAME)


def test_a_frame_that_grows_takes_no_second_memory() -> None:
    buffer = ReceiveBuffer(SharedBuffer())
    at = 0
    memories = set()
    while at < len(FRAME) - 1:
        size = min(60_000, len(FRAME) - 1 - at)
        receive(buffer, FRAME[at : at + size])
        at += size
        memories.add(id(buffer.memory))
    # the shared one is not grown
    assert len(memories) == 1
    assert len(buffer.view) == len(FRAME)
