"""Bytes that are no message: one kind of error, bounded work, and no crash."""

import struct
import time
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.broker.protocol.random_messages import random_message

from tailrace.broker.protocol import (
    APIS,
    ApiKey,
    MalformedMessageError,
    ProtocolError,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)


@given(frame=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_decode_or_raise_a_protocol_error(frame: bytes) -> None:
    with suppress(ProtocolError):
        decode_request(frame)


@pytest.mark.parametrize("key", list(APIS), ids=lambda key: key.name)
@given(seed=st.integers(min_value=0))
@settings(max_examples=10, deadline=None)
def test_a_damaged_message_decodes_or_raises_a_protocol_error(key: ApiKey, seed: int) -> None:
    rng = Random(seed)
    served = APIS[key].served
    for version in range(served.first, served.last + 1):
        request = b"".join(
            encode_request(key, version, 1, "me", random_message(APIS[key].request, version, rng))
        )
        response = b"".join(
            encode_response(key, version, 1, random_message(APIS[key].response, version, rng))
        )
        with suppress(ProtocolError):
            decode_request(_damage(request, rng))
        with suppress(ProtocolError):
            decode_response(key, version, _damage(response, rng))


def _damage(frame: bytes, rng: Random) -> bytes:
    damaged = bytearray(frame[4:])
    for _ in range(3):
        damaged[rng.randrange(len(damaged))] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(damaged)


@pytest.mark.parametrize("key", list(APIS), ids=lambda key: key.name)
def test_every_truncation_of_a_message_is_malformed(key: ApiKey) -> None:
    rng = Random(7)
    version = APIS[key].served.last
    frame = b"".join(encode_response(key, version, 1, random_message(APIS[key].response, version, rng)))[4:]
    for size in range(min(len(frame), 400)):
        with pytest.raises(MalformedMessageError):
            decode_response(key, version, frame[:size])


def test_a_request_of_very_many_tiny_items_is_refused_before_they_become_objects() -> None:
    # Metadata v1: 30 million empty topic names, which do fit the frame
    count = 30_000_000
    frame = struct.pack(">hhihi", 3, 1, 1, -1, count) + bytes(2 * count)
    started = time.monotonic()
    with pytest.raises(MalformedMessageError, match="more array items"):
        decode_request(frame)
    # Metadata v12: an array of two, then as many unknown tags
    tags = bytes([0x80, 0x80, 0x80, 0x10])
    frame = struct.pack(">hhih", 3, 12, 1, -1) + bytes([0, 1, 0, 0]) + tags + bytes(2 << 25)
    with pytest.raises(MalformedMessageError, match="more array items"):
        decode_request(frame)
    assert time.monotonic() - started < 1
    # in the header too
    frame = struct.pack(">hhih", 3, 12, 1, -1) + tags + bytes(2 << 25)
    with pytest.raises(MalformedMessageError, match="more array items"):
        decode_request(frame)
    assert time.monotonic() - started < 1


def test_a_forged_array_count_is_refused_before_anything_is_allocated() -> None:
    # Metadata v1: int32 count of topic names
    forged = bytes([0, 3, 0, 1, 0, 0, 0, 1, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF])
    with pytest.raises(MalformedMessageError, match="past the end"):
        decode_request(forged)
