"""Compile a field table into one encoder and one decoder per (message, version).

Both are straight-line Python made from source: consecutive numbers share one `struct.Struct`, nested
messages are written out in place, and no version is asked about at run time.

    decode(buffer, position, end, most_items) -> (message, position)
    encode(message, out, parts) -> out

A decoder checks every length against `end` before it takes the bytes, and an array's count against the
smallest size of that many items, so that a forged count allocates nothing; `most_items` bounds the objects
that many small items become.  Record batches come out
as memoryviews of the buffer.  An encoder appends to `out`; record batches of `BY_REFERENCE` bytes and more
are not copied: what was written so far and the batch go to `parts`, and the encoder carries on in a new
`out`.
"""

import struct
from collections.abc import Callable
from typing import Any, Protocol

from tailrace.broker.protocol.decoding import DecoderWriter
from tailrace.broker.protocol.encoding import EncoderWriter
from tailrace.broker.protocol.errors import MalformedMessageError
from tailrace.broker.protocol.fields import Buffer
from tailrace.broker.protocol.source import Source

_ANY_NUMBER = 1 << 40


class Decoder(Protocol):
    """What a field table becomes for reading."""

    def __call__(
        self, buffer: memoryview, position: int, end: int, most_items: int = ..., /
    ) -> tuple[Any, int]: ...


Encoder = Callable[[Any, bytearray, list[Buffer]], bytearray]

_decoders: dict[tuple[type, int, bool], Decoder] = {}
_encoders: dict[tuple[type, int, bool], Encoder] = {}


def decoder(message: type, version: int, flexible: bool) -> Decoder:
    """The decoder of a message version; it raises MalformedMessageError, whatever the bytes are."""
    found = _decoders.get((message, version, flexible))
    return found if found is not None else _compile_decoder(message, version, flexible)


def encoder(message: type, version: int, flexible: bool) -> Encoder:
    """The encoder of a message version; it raises struct.error where a number does not fit its field."""
    found = _encoders.get((message, version, flexible))
    return found if found is not None else _compile_encoder(message, version, flexible)


def _compile_decoder(message: type, version: int, flexible: bool) -> Decoder:
    source = Source()
    source.line("def decode(b, p, end, k):")
    with_result = DecoderWriter(source, version, flexible).message(message, 1)
    source.line(f"    return {with_result}, p")
    raw = source.compile("decode", f"{message.__name__} v{version} decoder")

    def decode(buffer: memoryview, position: int, end: int, most_items: int = _ANY_NUMBER) -> tuple[Any, int]:
        try:
            result: tuple[Any, int] = raw(buffer, position, end, most_items)
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise MalformedMessageError(f"{message.__name__} v{version}: {error}") from error
        if result[1] > end:
            raise MalformedMessageError(f"{message.__name__} v{version}: runs past its frame")
        return result

    _decoders[message, version, flexible] = decode
    return decode


def _compile_encoder(message: type, version: int, flexible: bool) -> Encoder:
    source = Source()
    source.line("def encode(m, w, parts):")
    EncoderWriter(source, version, flexible).message(message, "m", "w", 1)
    source.line("    return w")
    compiled: Encoder = source.compile("encode", f"{message.__name__} v{version} encoder")
    _encoders[message, version, flexible] = compiled
    return compiled
