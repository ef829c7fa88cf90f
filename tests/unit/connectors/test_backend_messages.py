"""Cutting a COPY stream into messages, whatever the pieces are."""

import struct

import numpy as np
import psycopg
from hypothesis import given
from hypothesis import strategies as st

from tailrace.connectors.postgres.backend import error_of, join_copy_data, messages
from tailrace.connectors.source import SourceUnavailable

payloads = st.lists(st.binary(max_size=40), max_size=20)


def copy_data(payload: bytes) -> bytes:
    return b"d" + struct.pack(">i", len(payload) + 4) + payload


@given(payloads, st.data())
def test_payloads_are_joined_whole_and_the_rest_is_left(sent: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(copy_data, sent))
    cut = data.draw(st.integers(0, len(stream)))
    joined = b""
    rest = b""
    for piece in (stream[:cut], stream[cut:]):
        block = np.frombuffer(rest + piece, np.uint8)
        out = np.empty(block.size, np.uint8)
        written, used = join_copy_data(block, out)
        joined += out[:written].tobytes()
        rest = block[used:].tobytes()
    assert (joined, rest) == (b"".join(sent), b"")


@given(payloads)
def test_joining_stops_at_another_kind_of_message(sent: list[bytes]) -> None:
    stream = b"".join(map(copy_data, sent))
    block = np.frombuffer(stream + b"c\0\0\0\4" + copy_data(b"never"), np.uint8)
    out = np.empty(block.size, np.uint8)
    written, used = join_copy_data(block, out)
    assert (out[:written].tobytes(), used) == (b"".join(sent), len(stream))


@given(st.lists(st.tuples(st.sampled_from(b"dcENSZ"), st.binary(max_size=30)), max_size=10), st.binary())
def test_messages_are_read_one_by_one(sent: list[tuple[int, bytes]], tail: bytes) -> None:
    cut_short = b"d" + struct.pack(">i", len(tail) + 5) + tail
    stream = b"".join(bytes([kind]) + struct.pack(">i", len(body) + 4) + body for kind, body in sent)
    assert [(kind, body) for kind, body, _ in messages(stream + cut_short)] == sent


def test_an_error_message_becomes_the_error_of_its_state() -> None:
    error = error_of(b"SERROR\0VERROR\0C55006\0Mslot is active\0\0")
    assert isinstance(error, psycopg.errors.ObjectInUse)
    assert str(error) == "slot is active"
    assert isinstance(error_of(b"Mnothing else\0\0"), SourceUnavailable)
