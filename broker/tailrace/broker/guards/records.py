"""Guards of what reads and writes records: by topic, before it is known whether the topic exists."""

from tailrace.broker.guards.answers import Answer, judge, refused, split, then
from tailrace.broker.handlers.context import CloseConnection, Handler, RequestContext
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.broker.records.batch import HEADER_BYTES, read_header
from tailrace.security.acls import Operation, ResourceType
from tailrace.security.authorizer import Access

_TOPIC = ResourceType.TOPIC


def produce(context: RequestContext, access: Access, request: m.ProduceRequest, handler: Handler) -> Answer:
    """WRITE on each topic; for transactional batches also WRITE on the transactional id (CVE-2018-17196)."""

    def error_of(topic: m.TopicProduceData) -> ErrorCode:
        name = context.topic_name(topic.name, topic.topic_id)
        # no such id, says the handler
        return ErrorCode.NONE if name is None else judge(access, Operation.WRITE, _TOPIC, name)

    named = request.transactional_id
    denied = _is_transactional(request) and not (
        named is not None and access.may(Operation.WRITE, ResourceType.TRANSACTIONAL_ID, named)
    )
    if request.acks == 0 and (denied or any(error_of(topic) for topic in request.topic_data)):
        raise CloseConnection(f"{access.principal} may not write what it sent with acks=0")
    if denied:
        error = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        return refused(context, ApiKey.PRODUCE, request, error)
    return split(
        context, ApiKey.PRODUCE, request, handler, items="topic_data", answers="responses", error_of=error_of
    )


def _is_transactional(request: m.ProduceRequest) -> bool:
    for topic in request.topic_data:
        for data in topic.partition_data:
            batch = memoryview(data.records or b"")
            if len(batch) >= HEADER_BYTES and read_header(batch).is_transactional:
                return True
    return False


def fetch(context: RequestContext, access: Access, request: m.FetchRequest, handler: Handler) -> Answer:
    """READ on each topic; for a replica CLUSTER_ACTION."""
    replica = max(request.replica_id, request.replica_state.replica_id)
    if replica >= 0 and not access.may_cluster(Operation.CLUSTER_ACTION):
        return _refused_fetch(request.topics)

    def error_of(topic: m.FetchTopic) -> ErrorCode:
        name = context.topic_name(topic.topic, topic.topic_id)
        if name is None or replica >= 0:
            return ErrorCode.NONE
        return judge(access, Operation.READ, _TOPIC, name)

    errors = [error_of(topic) for topic in request.topics]
    if not any(errors):
        return handler(context, request)
    denied = [topic for topic, error in zip(request.topics, errors, strict=True) if error]
    request.topics = [topic for topic, error in zip(request.topics, errors, strict=True) if not error]
    # Kafka does not let the denied partitions wait for the data of the others
    request.max_wait_ms = 0

    def merge(answer: m.FetchResponse) -> m.FetchResponse:
        if answer.error_code == ErrorCode.NONE:
            answer.responses += _refused_fetch(denied).responses
        return answer

    return then(handler(context, request), merge)


def _refused_fetch(topics: list[m.FetchTopic]) -> m.FetchResponse:
    error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return m.FetchResponse(
        responses=[
            m.FetchableTopicResponse(
                topic.topic,
                topic.topic_id,
                [
                    m.FetchPartitionResponse(p.partition, error, -1, aborted_transactions=[], records=b"")
                    for p in topic.partitions
                ],
            )
            for topic in topics
        ]
    )


def list_offsets(
    context: RequestContext, access: Access, request: m.ListOffsetsRequest, handler: Handler
) -> Answer:
    """DESCRIBE on each topic."""
    return split(
        context,
        ApiKey.LIST_OFFSETS,
        request,
        handler,
        items="topics",
        answers="topics",
        error_of=lambda topic: judge(access, Operation.DESCRIBE, _TOPIC, topic.name),
    )


def offset_for_leader_epoch(
    context: RequestContext, access: Access, request: m.OffsetForLeaderEpochRequest, handler: Handler
) -> Answer:
    """DESCRIBE on each topic, or CLUSTER_ACTION."""
    if access.may_cluster(Operation.CLUSTER_ACTION):
        return handler(context, request)
    return split(
        context,
        ApiKey.OFFSET_FOR_LEADER_EPOCH,
        request,
        handler,
        items="topics",
        answers="topics",
        error_of=lambda topic: judge(access, Operation.DESCRIBE, _TOPIC, topic.topic),
    )


def delete_records(
    context: RequestContext, access: Access, request: m.DeleteRecordsRequest, handler: Handler
) -> Answer:
    """DELETE on each topic."""
    return split(
        context,
        ApiKey.DELETE_RECORDS,
        request,
        handler,
        items="topics",
        answers="topics",
        error_of=lambda topic: judge(access, Operation.DELETE, _TOPIC, topic.name),
    )


def describe_producers(
    context: RequestContext, access: Access, request: m.DescribeProducersRequest, handler: Handler
) -> Answer:
    """READ on each topic."""
    return split(
        context,
        ApiKey.DESCRIBE_PRODUCERS,
        request,
        handler,
        items="topics",
        answers="topics",
        error_of=lambda topic: judge(access, Operation.READ, _TOPIC, topic.name),
    )
