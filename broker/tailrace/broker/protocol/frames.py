"""Whole frames: size, header, body.

    request   int32 size | int16 api key | int16 api version | int32 correlation id
              | nullable string client id | tagged section (flexible versions) | body
    response  int32 size | int32 correlation id | tagged section (flexible versions, never ApiVersions) | body

The client id has its two-byte length in every version.  Decoders take a frame without its size, encoders
return it with the size.  Source: https://kafka.apache.org/protocol#protocol_messages, KIP-482, KIP-511.
"""

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

from tailrace.broker.protocol.api import APIS, Api, ApiKey
from tailrace.broker.protocol.codec import Decoder, Encoder, decoder, encoder
from tailrace.broker.protocol.errors import MalformedMessageError, UnsupportedVersionError
from tailrace.broker.protocol.fields import Buffer
from tailrace.broker.protocol.source import skip_tags

_REQUEST_HEADER = struct.Struct(">hhih")
_RESPONSE_START = struct.Struct(">Ii")
_SIZE = struct.Struct(">I")
_CORRELATION_ID = struct.Struct(">i")
MOST_REQUEST_ITEMS = 1 << 18
"""Array items and unknown tags in one request: more would keep the broker busy for over a second."""
_APIS_BY_NUMBER: dict[int, Api] = {int(key): api for key, api in APIS.items()}
_REQUESTS: dict[tuple[int, int], tuple[ApiKey, bool, Decoder]] = {}  # by API key and version, once asked for


@dataclass(slots=True)
class RequestHeader:
    """Who asks for what."""

    api_key: ApiKey
    api_version: int
    correlation_id: int
    client_id: str | None


def decode_request(frame: Buffer) -> tuple[RequestHeader, Any]:
    """The header and the request (an instance of the API's request class) of a frame without its size.

    Record batches in the request are memoryviews of `frame`: use them before the receive buffer is reused.
    Raises UnsupportedVersionError for an API or version that is not served, and MalformedMessageError for
    anything that is not a request.
    """
    view = memoryview(frame)
    end = len(view)
    try:
        key, version, correlation_id, length = _REQUEST_HEADER.unpack_from(view, 0)
        position = _REQUEST_HEADER.size + max(length, 0)
        if position > end:
            raise MalformedMessageError("the client id runs past the end of the frame")
        client_id = str(view[_REQUEST_HEADER.size : position], "utf-8") if length >= 0 else None
    except (struct.error, UnicodeDecodeError) as error:
        raise MalformedMessageError(f"request header: {error}") from error
    known = _REQUESTS.get((key, version)) or _request_form(key, version)
    if known is None:
        raise UnsupportedVersionError(key, version, correlation_id)
    api_key, flexible, decode = known
    if flexible:
        position = _skip_header_tags(view, position, end)
    request, _ = decode(view, position, end, MOST_REQUEST_ITEMS)
    return RequestHeader(api_key, version, correlation_id, client_id), request


def _request_form(key: int, version: int) -> tuple[ApiKey, bool, Decoder] | None:
    """The API, whether its requests of this version have tagged sections, and their decoder; None: not served."""
    api = _APIS_BY_NUMBER.get(key)
    if api is None or version not in api.served:
        return None
    flexible = version in api.flexible
    _REQUESTS[key, version] = form = (ApiKey(key), flexible, decoder(api.request, version, flexible))
    return form


def encode_request(
    api_key: ApiKey, version: int, correlation_id: int, client_id: str | None, request: Any
) -> list[Buffer]:
    """The frame of a request, size first, in pieces to be sent one after the other."""
    api = APIS[api_key]
    flexible = version in api.flexible
    name = b"" if client_id is None else client_id.encode()
    out = bytearray(_SIZE.size)
    out += _REQUEST_HEADER.pack(api_key, version, correlation_id, -1 if client_id is None else len(name))
    out += name
    if flexible:
        out.append(0)
    return _finish(out, encoder(api.request, version, flexible), request)


def encode_response(api_key: ApiKey, version: int, correlation_id: int, response: Any) -> list[Buffer]:
    """The frame of a response, size first, in pieces; record batches are not copied."""
    start, encode = _response_form(api_key, version)
    out = bytearray(_RESPONSE_START.pack(0, correlation_id))
    out += start
    return _finish(out, encode, response)


@cache
def _response_form(api_key: ApiKey, version: int) -> tuple[bytes, Encoder]:
    """What stands between the correlation id and the body, and the body's encoder."""
    api = APIS[api_key]
    flexible = version in api.flexible
    start = b"\0" if flexible and api_key is not ApiKey.API_VERSIONS else b""
    return start, encoder(api.response, version, flexible)


def decode_response(api_key: ApiKey, version: int, frame: Buffer) -> tuple[int, Any]:
    """The correlation id and the response of a frame without its size; raises MalformedMessageError.

    Record batches in the response are memoryviews of `frame`.
    """
    api = APIS[api_key]
    view = memoryview(frame)
    end = len(view)
    flexible = version in api.flexible
    try:
        (correlation_id,) = _CORRELATION_ID.unpack_from(view, 0)
    except struct.error as error:
        raise MalformedMessageError(f"response header: {error}") from error
    position = _CORRELATION_ID.size
    if flexible and api_key is not ApiKey.API_VERSIONS:
        position = _skip_header_tags(view, position, end)
    response, _ = decoder(api.response, version, flexible)(view, position, end)
    return correlation_id, response


def _skip_header_tags(view: memoryview, position: int, end: int) -> int:
    if position >= end:
        raise MalformedMessageError("the header has no tagged section")
    if view[position] == 0:
        return position + 1
    try:
        return skip_tags(view, position, end, MOST_REQUEST_ITEMS)[0]
    except IndexError as error:
        raise MalformedMessageError(f"header tags: {error}") from error


def _finish(out: bytearray, encode: Any, message: Any) -> list[Buffer]:
    parts: list[Buffer] = []
    last = encode(message, out, parts)
    if last:
        parts.append(last)
    _SIZE.pack_into(out, 0, sum(map(len, parts)) - _SIZE.size)
    return parts
