"""Every message in every version, against kio's and kafka-python's own codecs."""

import dataclasses
import io
import math
import uuid
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.serial import entity_reader, entity_writer
from tests.unit.broker.protocol.oracles import KAFKA_PYTHON, KAFKA_PYTHON_APIS, kio_class
from tests.unit.broker.protocol.random_messages import random_message

from tailrace.broker.protocol import APIS, ApiKey, Buffer
from tailrace.broker.protocol.codec import decoder, encoder
from tailrace.broker.protocol.messages import ApiVersionsResponse

EXAMPLES = settings(max_examples=10, deadline=None)

# kafka-python makes sets of these bit fields
_TRANSLATED = "authorized_operations"

every_message = pytest.mark.parametrize(
    ("key", "kind"),
    [pytest.param(key, kind, id=f"{key.name}-{kind}") for key in APIS for kind in ("request", "response")],
)


def _versions(key: ApiKey) -> range:
    versions = APIS[key].versions
    return range(versions.first, versions.last + 1)


def _encode(key: ApiKey, kind: str, version: int, message: Any) -> bytes:
    api = APIS[key]
    parts: list[Buffer] = []
    last = encoder(getattr(api, kind), version, version in api.flexible)(message, bytearray(), parts)
    return b"".join([*parts, last])


def _decode(key: ApiKey, kind: str, version: int, data: bytes) -> tuple[Any, int]:
    api = APIS[key]
    return decoder(getattr(api, kind), version, version in api.flexible)(memoryview(data), 0, len(data))


def _plain(value: Any) -> Any:
    """Values of either library in one form: containers of plain Python values."""
    match value:
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case memoryview() | bytearray():
            return bytes(value)
        case uuid.UUID():
            return value.bytes
        case float() if math.isinf(value):
            return str(value)
    return value


@every_message
@given(seed=st.integers(min_value=0))
@EXAMPLES
def test_a_message_is_what_kafka_python_reads_and_what_we_read_back(
    key: ApiKey, kind: str, seed: int
) -> None:
    rng = Random(seed)
    for version in _versions(key):
        message = random_message(getattr(APIS[key], kind), version, rng)
        if isinstance(message, ApiVersionsResponse):
            # kafka-python reads an error as version 0
            message.error_code = 0
        encoded = _encode(key, kind, version, message)

        decoded, position = _decode(key, kind, version, encoded)
        assert (decoded, position) == (message, len(encoded))

        if key not in KAFKA_PYTHON_APIS:
            continue
        theirs = KAFKA_PYTHON[key, kind].decode(encoded, version=version)
        _assert_contains(_plain(dataclasses.asdict(message)), _plain(theirs.to_dict(json=False)))


def _assert_contains(ours: Any, theirs: Any) -> None:
    """Equal, but for fields that only newer versions have."""
    if theirs is None and isinstance(ours, dict):
        # a tagged struct that was not sent, because it has its default
        assert set(ours.values()) == {-1}
    elif isinstance(theirs, dict):
        for name, value in theirs.items():
            if not name.endswith(_TRANSLATED):
                _assert_contains(ours[name], value)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            _assert_contains(mine, other)
    else:
        assert ours == theirs


@every_message
@given(seed=st.integers(min_value=0))
@EXAMPLES
def test_kio_reads_our_bytes_and_writes_them_again(key: ApiKey, kind: str, seed: int) -> None:
    rng = Random(seed)
    for version in _versions(key):
        message = random_message(getattr(APIS[key], kind), version, rng, short_times=True)
        encoded = _encode(key, kind, version, message)
        cls = kio_class(key, kind, version)

        theirs, size = entity_reader(cls)(encoded, 0)
        assert size == len(encoded)
        out = io.BytesIO()
        entity_writer(cls)(out, theirs)
        assert out.getvalue() == encoded


@pytest.mark.parametrize("key", KAFKA_PYTHON_APIS, ids=lambda key: key.name)
def test_the_codec_speaks_the_version_range_of_kafka_4(key: ApiKey) -> None:
    api = APIS[key]
    theirs = KAFKA_PYTHON[key, "request"].valid_versions
    # InitProducerId 6 (two-phase commit) is unstable in Kafka itself
    newest = 5 if key is ApiKey.INIT_PRODUCER_ID else theirs[1]
    assert (api.versions.first, api.versions.last) == (theirs[0], newest)


@pytest.mark.parametrize("key", sorted(APIS.keys() - set(KAFKA_PYTHON_APIS)), ids=lambda key: key.name)
def test_the_codec_speaks_the_version_range_of_kio_where_kafka_python_has_none(key: ApiKey) -> None:
    versions = APIS[key].versions
    assert kio_class(key, "request", versions.last)
    for outside in (versions.first - 1, versions.last + 1):
        with pytest.raises(ImportError):
            kio_class(key, "request", outside)
