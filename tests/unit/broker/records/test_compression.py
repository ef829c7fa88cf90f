"""Codecs against other implementations, and the cap on what a batch may inflate to."""

import gzip
import random
import time

import lz4.frame
import pytest
import zstandard
from aiokafka.codec import snappy_decode, snappy_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.broker.protocol import ErrorCode
from tailrace.broker.records.compression import Codec, compress, decompress
from tailrace.broker.records.errors import InvalidBatchError

DATA = st.binary(max_size=300) | st.builds(
    lambda text, times: text * times, st.binary(max_size=20), st.integers(0, 9000)
)
COMPRESSED = [Codec.GZIP, Codec.SNAPPY, Codec.LZ4, Codec.ZSTD]


@given(data=DATA, codec=st.sampled_from(list(Codec)))
@settings(max_examples=150, deadline=None)
def test_what_was_compressed_comes_back(data: bytes, codec: Codec) -> None:
    assert decompress(codec, compress(codec, data)) == data


@given(data=DATA.filter(bool), framed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_snappy_is_aiokafkas_snappy_raw_and_framed(data: bytes, framed: bool) -> None:
    assert decompress(Codec.SNAPPY, snappy_encode(data, xerial_compatible=framed)) == data
    assert bytes(snappy_decode(compress(Codec.SNAPPY, data))) == data


def test_pieces_that_other_clients_write_are_read() -> None:
    data = b"abc" * 100_000
    assert decompress(Codec.GZIP, gzip.compress(data[:7]) + gzip.compress(data[7:])) == data
    assert decompress(Codec.LZ4, lz4.frame.compress(data, block_linked=True, content_checksum=True)) == data
    # Java streams zstd without the content size in the frame
    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(data)
    assert decompress(Codec.ZSTD, streamed) == data


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_bomb_is_refused_before_it_inflates(codec: Codec) -> None:
    bomb = compress(codec, bytes(5_000_000))
    assert len(bomb) < 300_000
    with pytest.raises(InvalidBatchError, match="inflates past 1000000 bytes"):
        decompress(codec, bomb, limit=1_000_000)
    assert len(decompress(codec, bomb, limit=5_000_000)) == 5_000_000


def test_thousands_of_empty_gzip_members_take_linear_time() -> None:
    def seconds(count: int) -> float:
        members = gzip.compress(b"") * count
        began = time.process_time()
        assert decompress(Codec.GZIP, members + gzip.compress(b"x")) == b"x"
        return time.process_time() - began

    seconds(1_000)
    assert seconds(80_000) < 32 * max(seconds(10_000), 0.01)  # quadratic: 64 times


@given(data=DATA, at=st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_gzip_that_is_cut_short_is_refused_and_members_join_anywhere(data: bytes, at: int) -> None:
    noise = random.Random(len(data)).randbytes(40_000)  # longer than a piece
    parts = [gzip.compress(data), gzip.compress(noise), gzip.compress(data)]
    assert decompress(Codec.GZIP, b"".join(parts)) == data + noise + data
    with pytest.raises(InvalidBatchError, match="cut short"):
        decompress(Codec.GZIP, parts[1][:-at])


@pytest.mark.parametrize("codec", COMPRESSED)
@given(data=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_bytes_of_no_codec_are_refused_or_inflated(codec: Codec, data: bytes) -> None:
    try:
        decompress(codec, data)
    except InvalidBatchError as error:
        assert error.error == ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("codec", COMPRESSED)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_data_is_refused_or_inflated(codec: Codec, data: st.DataObject) -> None:
    packed = bytearray(compress(codec, b"a sentence, and another sentence" * 20))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decompress(codec, packed[: data.draw(st.integers(1, len(packed)))])
    except InvalidBatchError as error:
        assert error.error == ErrorCode.CORRUPT_MESSAGE


def test_an_unknown_codec_has_its_own_error() -> None:
    with pytest.raises(InvalidBatchError) as caught:
        decompress(7, b"")
    assert caught.value.error == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    with pytest.raises(InvalidBatchError):
        compress(7, b"")
