"""Framing: every message is found once, wherever the bytes are cut."""

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.connectors.postgres.frames import Frames, scan_frames

_LSN = st.integers(0, 2**63 - 1)
_DATA = st.tuples(st.just("w"), _LSN, st.binary(min_size=1, max_size=40))
_KEEPALIVE = st.tuples(st.just("k"), _LSN.filter(bool), st.booleans())  # a server has a WAL end


def frame(kind: str, lsn: int, content: bytes | bool) -> bytes:
    if isinstance(content, bool):
        body = struct.pack(">cqqB", b"k", lsn, 0, content)
    else:
        body = struct.pack(">cqqq", b"w", lsn // 2, lsn, 0) + content
    return struct.pack(">cI", b"d", len(body) + 4) + body


def scan(block: bytes) -> Frames:
    return scan_frames(np.frombuffer(block, np.uint8))


@given(st.lists(st.one_of(_DATA, _KEEPALIVE), max_size=12), st.lists(st.integers(0, 900), max_size=6))
@settings(deadline=None)  # the first call may compile
def test_every_message_is_found_once_wherever_the_bytes_are_cut(
    sent: list[tuple[str, int, bytes | bool]], cuts: list[int]
) -> None:
    received = b"".join(frame(*one) for one in sent)
    messages, rest, at, keepalive, asked, newest = [], b"", 0, 0, False, 0
    for cut in [*sorted(min(cut, len(received)) for cut in cuts), len(received)]:
        block = rest + received[at:cut]
        found = scan(block)
        messages += [block[a:b] for a, b in zip(found.starts.tolist(), found.ends.tolist(), strict=True)]
        rest, at = block[found.consumed :], cut
        keepalive, asked = found.keepalive_end or keepalive, asked or found.reply_requested
        newest = max(newest, found.wal_end)
    assert rest == b""
    assert messages == [content for _, _, content in sent if isinstance(content, bytes)]
    assert asked == any(content is True for _, _, content in sent)
    assert newest == max((lsn for _, lsn, _ in sent), default=0)
    keepalives = [lsn for kind, lsn, _ in sent if kind == "k" and lsn]
    assert keepalive == (keepalives[-1] if keepalives else 0)


def test_a_message_that_is_not_copy_data_ends_the_scan() -> None:
    block = frame("w", 7, b"B") + b"E\0\0\0\x08oops" + frame("w", 8, b"C")
    found = scan(block)
    assert chr(found.other) == "E"
    assert block[found.consumed :].startswith(b"E")
    assert found.starts.size == 1
