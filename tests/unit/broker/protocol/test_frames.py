"""Headers, sizes, unknown versions, and records that are not copied."""

import pytest
from tests.unit.broker.protocol.oracles import KAFKA_PYTHON, KAFKA_PYTHON_APIS

from tailrace.broker.protocol import (
    API_VERSIONS,
    APIS,
    ApiKey,
    ErrorCode,
    MalformedMessageError,
    UnsupportedVersionError,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from tailrace.broker.protocol.messages import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FetchableTopicResponse,
    FetchPartitionResponse,
    FetchResponse,
    MetadataRequest,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)


def _frame(parts: list[bytes | bytearray | memoryview]) -> bytes:
    whole = b"".join(parts)
    assert int.from_bytes(whole[:4], "big") == len(whole) - 4
    return whole[4:]


@pytest.mark.parametrize("key", KAFKA_PYTHON_APIS, ids=lambda key: key.name)
@pytest.mark.parametrize("client_id", [None, "", "me"])
def test_a_request_frame_is_kafka_pythons_byte_for_byte(key: ApiKey, client_id: str | None) -> None:
    for version in range(APIS[key].served.first, APIS[key].served.last + 1):
        theirs = KAFKA_PYTHON[key, "request"](version=version)
        theirs.with_header(correlation_id=77, client_id=client_id)
        request = decode_request(_frame([bytes(theirs.encode(header=True, framed=True))]))[1]
        ours = encode_request(key, version, 77, client_id, request)
        assert b"".join(ours) == bytes(theirs.encode(header=True, framed=True))


def test_a_request_comes_back_with_its_header() -> None:
    parts = encode_request(ApiKey.METADATA, 12, 99, "me", MetadataRequest(topics=None))
    header, request = decode_request(_frame(parts))
    assert (header.api_key, header.api_version, header.correlation_id, header.client_id) == (3, 12, 99, "me")
    assert request == MetadataRequest(topics=None)


def test_header_tags_of_newer_clients_are_skipped() -> None:
    plain = _frame(encode_request(ApiKey.METADATA, 12, 1, None, MetadataRequest()))
    tagged = plain[:10] + bytes([1, 5, 2, 0xAA, 0xBB]) + plain[11:]
    assert decode_request(tagged)[1] == MetadataRequest()


def test_large_records_are_neither_copied_in_nor_out() -> None:
    records = bytearray(b"r" * 5000)
    produce = ProduceRequest(
        topic_data=[TopicProduceData(name="t", partition_data=[PartitionProduceData(records=records)])]
    )
    parts = encode_request(ApiKey.PRODUCE, 9, 1, None, produce)
    assert any(part is records for part in parts)

    frame = bytearray(_frame(parts))
    _, request = decode_request(frame)
    view = request.topic_data[0].partition_data[0].records
    assert isinstance(view, memoryview)
    assert view.obj is frame

    partition = FetchPartitionResponse(records=records)
    response = FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=[partition])])
    assert any(part is records for part in encode_response(ApiKey.FETCH, 12, 1, response))


@pytest.mark.parametrize(("key", "version"), [(18, 9), (3, 99), (3, -1), (0, 2), (26, 6), (999, 0)])
def test_a_version_that_is_not_served_can_still_be_answered(key: int, version: int) -> None:
    frame = (
        key.to_bytes(2, "big") + version.to_bytes(2, "big", signed=True) + bytes([0, 0, 0, 7, 0, 2]) + b"me"
    )
    with pytest.raises(UnsupportedVersionError) as caught:
        decode_request(frame)
    assert (caught.value.api_key, caught.value.correlation_id) == (key, 7)


def test_an_unsupported_api_versions_request_can_be_answered_in_version_0() -> None:
    keys = [
        ApiVersion(api_key=key, min_version=low, max_version=high)
        for key, (low, high) in API_VERSIONS.items()
    ]
    answer = ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=keys)
    frame = _frame(encode_response(ApiKey.API_VERSIONS, 0, 5, answer))
    assert decode_response(ApiKey.API_VERSIONS, 0, frame) == (5, answer)
    # no tagged section after the correlation id, whatever the version
    newest = _frame(encode_response(ApiKey.API_VERSIONS, 4, 5, answer))
    assert newest[4:6] == ErrorCode.UNSUPPORTED_VERSION.to_bytes(2, "big")


def test_produce_is_advertised_from_version_0_and_served_from_3() -> None:
    assert API_VERSIONS[ApiKey.PRODUCE] == (0, 13)
    assert APIS[ApiKey.PRODUCE].served.first == 3


def test_what_brokers_speak_among_themselves_is_not_advertised() -> None:
    assert API_VERSIONS[ApiKey.END_TXN] == (0, 5)
    assert API_VERSIONS[ApiKey.TXN_OFFSET_COMMIT] == (0, 5)
    assert API_VERSIONS[ApiKey.ADD_PARTITIONS_TO_TXN] == (0, 3)


def test_a_null_where_none_may_be_is_refused_both_ways() -> None:
    request = ProduceRequest(topic_data=[TopicProduceData(name=None)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name cannot be null"):
        encode_request(ApiKey.PRODUCE, 9, 1, None, request)
    # Heartbeat v0 with group id of length -1
    with pytest.raises(MalformedMessageError, match="null"):
        decode_request(bytes([0, 12, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]) + bytes(8))


def test_a_client_id_that_is_no_utf8_is_malformed() -> None:
    with pytest.raises(MalformedMessageError):
        decode_request(bytes([0, 3, 0, 1, 0, 0, 0, 1, 0, 2, 0xFF, 0xFE, 0, 0, 0, 0]))


def test_the_request_of_an_api_versions_handshake_names_the_software() -> None:
    request = ApiVersionsRequest(client_software_name="tailrace", client_software_version="1")
    parts = encode_request(ApiKey.API_VERSIONS, 3, 1, "me", request)
    assert decode_request(_frame(parts))[1] == request
