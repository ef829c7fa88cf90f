"""The compression codecs of record batches: none, gzip, snappy, lz4, zstd.

A codec compresses the records after the 61 header bytes as one piece.  Snappy comes raw (librdkafka) or in
xerial frames (Java, kafka-python); both are read, xerial frames are written:

    82 'SNAPPY' 00 | int32 version 1 | int32 compatible 1 | (int32 size, raw snappy block of <= 32 KiB)*

LZ4 is the LZ4 frame format (KIP-57), zstd since KIP-110.  Output is bounded: a batch that would inflate past
`limit` is refused before the bytes exist.
"""

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum

import cramjam
import lz4.frame
import zstandard

from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.errors import InvalidBatchError

Buffer = bytes | bytearray | memoryview

DEFAULT_LIMIT = 256 << 20
"""Bytes that one batch may inflate to: 256 MiB."""

_GZIP_WINDOW = 31
_GZIP_PIECE = 16 << 10
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = struct.Struct(">8sii")
_XERIAL_SIZE = struct.Struct(">i")
_XERIAL_BLOCK = 32 << 10


class Codec(IntEnum):
    """Bits 0-2 of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


def compress(codec: int, records: Buffer, *, level: int | None = None) -> bytes:
    """The compressed form of a batch's records; `level` as the codec counts it, None: its own default."""
    match codec:
        case Codec.NONE:
            return bytes(records)
        case Codec.GZIP:
            stream = zlib.compressobj(-1 if level is None else level, wbits=_GZIP_WINDOW)
            return stream.compress(records) + stream.flush()
        case Codec.SNAPPY:
            return _compress_xerial(memoryview(records))
        case Codec.LZ4:
            return bytes(lz4.frame.compress(bytes(records), level or 0, block_linked=False))
        case Codec.ZSTD:
            return zstandard.ZstdCompressor(3 if level is None else level).compress(records)
    raise _unknown(codec)


def decompress(codec: int, records: Buffer, *, limit: int = DEFAULT_LIMIT) -> bytes:
    """The records of a batch compressed with `codec`, at most `limit` bytes.

    Raises InvalidBatchError: UNSUPPORTED_COMPRESSION_TYPE for an unknown codec, CORRUPT_MESSAGE for bytes
    that are not of the codec or inflate past `limit`.
    """
    if codec == Codec.NONE:
        return bytes(records)
    inflate = _INFLATE.get(codec)
    if inflate is None:
        raise _unknown(codec)
    try:
        return inflate(memoryview(records), limit)
    except InvalidBatchError:
        raise
    except (zlib.error, cramjam.DecompressionError, RuntimeError, EOFError, zstandard.ZstdError) as error:
        raise _corrupt(f"its {Codec(codec).name.lower()} data cannot be decompressed") from error


def _inflate_gzip(data: memoryview, limit: int) -> bytes:
    out = bytearray()
    stream = zlib.decompressobj(wbits=_GZIP_WINDOW)
    # by pieces, since each member copies what is behind it: thousands of empty ones would take quadratic time
    for start in range(0, len(data), _GZIP_PIECE):
        rest: Buffer = data[start : start + _GZIP_PIECE]
        while rest:
            if stream.eof:
                stream = zlib.decompressobj(wbits=_GZIP_WINDOW)
            out += stream.decompress(rest, limit + 1 - len(out))
            if len(out) > limit:
                raise _too_large(limit)
            rest = stream.unused_data
    if data and not stream.eof:
        raise _corrupt("its gzip data is cut short")
    return bytes(out)


def _inflate_snappy(data: memoryview, limit: int) -> bytes:
    if bytes(data[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _inflate_snappy_block(data, limit)
    position = _XERIAL_HEADER.size
    out = bytearray()
    while position < len(data):
        if position + _XERIAL_SIZE.size > len(data):
            raise _corrupt("a snappy frame is cut short")
        (size,) = _XERIAL_SIZE.unpack_from(data, position)
        position += _XERIAL_SIZE.size
        if size < 0 or position + size > len(data):
            raise _corrupt("a snappy frame is cut short")
        block = data[position : position + size]
        if block and len(out) + cramjam.snappy.decompress_raw_len(block) > limit:
            raise _too_large(limit)
        out += _inflate_snappy_block(block, limit)
        position += size
    return bytes(out)


def _inflate_snappy_block(block: memoryview, limit: int) -> bytes:
    if not block:
        raise _corrupt("a snappy block is empty")
    if cramjam.snappy.decompress_raw_len(block) > limit:
        raise _too_large(limit)
    return bytes(cramjam.snappy.decompress_raw(block))


def _inflate_lz4(data: memoryview, limit: int) -> bytes:
    stream = lz4.frame.LZ4FrameDecompressor()
    out: bytes = stream.decompress(data, max_length=limit + 1)
    if len(out) > limit:
        raise _too_large(limit)
    if not stream.eof:
        raise _corrupt("its lz4 data is cut short")
    return out


def _inflate_zstd(data: memoryview, limit: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
        out = stream.read(limit + 1)
    if len(out) > limit:
        raise _too_large(limit)
    return out


def _compress_xerial(records: memoryview) -> bytes:
    out = bytearray(_XERIAL_HEADER.pack(_XERIAL_MAGIC, 1, 1))
    for start in range(0, len(records), _XERIAL_BLOCK):
        block = bytes(cramjam.snappy.compress_raw(records[start : start + _XERIAL_BLOCK]))
        out += _XERIAL_SIZE.pack(len(block))
        out += block
    return bytes(out)


_INFLATE: dict[int, Callable[[memoryview, int], bytes]] = {
    Codec.GZIP: _inflate_gzip,
    Codec.SNAPPY: _inflate_snappy,
    Codec.LZ4: _inflate_lz4,
    Codec.ZSTD: _inflate_zstd,
}


def _unknown(codec: int) -> InvalidBatchError:
    return InvalidBatchError(
        f"a record batch names compression codec {codec}, which does not exist",
        error=ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
    )


def _corrupt(what: str) -> InvalidBatchError:
    return InvalidBatchError(f"a record batch is damaged: {what}", error=ErrorCode.CORRUPT_MESSAGE)


def _too_large(limit: int) -> InvalidBatchError:
    return _corrupt(f"it inflates past {limit} bytes")
