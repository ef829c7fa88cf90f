"""The Kafka protocol: messages by version, frames, error codes.  No I/O, no state.

    header, request = decode_request(frame)                                # server side
    parts = encode_response(header.api_key, header.api_version, header.correlation_id, ProduceResponse(...))
    parts = encode_request(ApiKey.METADATA, 12, 7, "me", MetadataRequest())    # client side
    correlation_id, response = decode_response(ApiKey.METADATA, 12, frame)

Messages are in `tailrace.broker.protocol.messages`, the records of internal topics in
`tailrace.broker.protocol.internal_topics`.
"""

from tailrace.broker.protocol import messages
from tailrace.broker.protocol.api import API_VERSIONS, APIS, Api, ApiKey
from tailrace.broker.protocol.encoding import default_instance
from tailrace.broker.protocol.errors import (
    ErrorCode,
    MalformedMessageError,
    ProtocolError,
    UnsupportedVersionError,
)
from tailrace.broker.protocol.fields import NULL_UUID, Buffer
from tailrace.broker.protocol.frames import (
    RequestHeader,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

__all__ = [
    "APIS",
    "API_VERSIONS",
    "NULL_UUID",
    "Api",
    "ApiKey",
    "Buffer",
    "ErrorCode",
    "MalformedMessageError",
    "ProtocolError",
    "RequestHeader",
    "UnsupportedVersionError",
    "decode_request",
    "decode_response",
    "default_instance",
    "encode_request",
    "encode_response",
    "messages",
]
