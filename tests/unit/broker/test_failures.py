"""A request that fails for an unforeseen reason is answered, in every API and version that can say so."""

from typing import Any

import pytest

from tailrace.broker.handlers.failures import failure_answer
from tailrace.broker.protocol import APIS, ApiKey, ErrorCode, decode_response, encode_response
from tailrace.broker.protocol import messages as m
from tailrace.broker.protocol.fields import wire_fields

CODE = ErrorCode.UNKNOWN_SERVER_ERROR
_SCALARS: dict[str, Any] = {"string": "a", "int8": 1, "int32": 1, "int64": 1}


def codes(message: Any) -> list[int]:
    """Every error code in a message, at any depth."""
    found: list[int] = []
    for name in getattr(message, "__slots__", ()):
        value = getattr(message, name)
        if name in ("error_code", "partition_error_code"):
            found.append(value)
        for item in value if isinstance(value, list) else [value]:
            found += codes(item)
    return found


def with_items(cls: type, version: int) -> Any:
    """A request that asks for one thing at every depth."""
    message = cls()
    for spec in wire_fields(cls):
        if version in spec.versions and spec.is_array:
            item = with_items(spec.item, version) if isinstance(spec.item, type) else _SCALARS[spec.item]
            setattr(message, spec.name, [item])
    return message


@pytest.mark.parametrize("key", list(APIS), ids=lambda key: key.name)
def test_every_api_can_tell_that_a_request_failed(key: ApiKey) -> None:
    served = APIS[key].served
    for version in range(served.first, served.last + 1):
        answer = failure_answer(key, version, with_items(APIS[key].request, version))
        assert answer is not None
        frame = b"".join(encode_response(key, version, 1, answer))
        told = codes(decode_response(key, version, frame[4:])[1])
        assert CODE in told
        assert set(told) <= {CODE, 0}


def test_the_items_of_the_request_are_named_in_the_answer() -> None:
    data = [m.PartitionProduceData(0), m.PartitionProduceData(7)]
    produce = m.ProduceRequest(topic_data=[m.TopicProduceData("t", partition_data=data)])
    (topic,) = failure_answer(ApiKey.PRODUCE, 9, produce).responses  # type: ignore[union-attr]
    assert [topic.name, *((p.index, p.error_code) for p in topic.partition_responses)] == [
        "t",
        (0, CODE),
        (7, CODE),
    ]
    fetch = m.FetchRequest(topics=[m.FetchTopic("t", partitions=[m.FetchPartition(3)])])
    (fetched,) = failure_answer(ApiKey.FETCH, 6, fetch).responses  # type: ignore[union-attr]
    assert (fetched.topic, fetched.partitions[0].partition_index) == ("t", 3)
    added = m.AddPartitionsToTxnRequest(v3_and_below_topics=[m.AddPartitionsToTxnTopic("t", [4])])
    (result,) = failure_answer(ApiKey.ADD_PARTITIONS_TO_TXN, 3, added).results_by_topic_v3_and_below  # type: ignore[union-attr]
    assert (result.name, result.results_by_partition[0].partition_index) == ("t", 4)
    groups = failure_answer(ApiKey.DESCRIBE_GROUPS, 5, m.DescribeGroupsRequest(["a", "b"])).groups  # type: ignore[union-attr]
    assert [group.group_id for group in groups] == ["a", "b"]
    epochs = m.OffsetForLeaderEpochRequest(
        topics=[m.OffsetForLeaderTopic("t", [m.OffsetForLeaderPartition(5)])]
    )
    (told,) = failure_answer(ApiKey.OFFSET_FOR_LEADER_EPOCH, 4, epochs).topics  # type: ignore[union-attr]
    assert (told.topic, told.partitions[0].partition) == ("t", 5)


def test_where_a_version_cannot_say_it_there_is_no_answer() -> None:
    assert failure_answer(ApiKey.METADATA, 12, m.MetadataRequest(None)) is None
    assert failure_answer(ApiKey.METADATA, 13, m.MetadataRequest(None)).error_code == CODE  # type: ignore[union-attr]
