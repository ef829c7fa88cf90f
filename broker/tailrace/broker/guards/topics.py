"""Guards of topic administration and metadata: what a client may not describe is left out or refused alike."""

from tailrace.broker.guards.answers import Answer, judge, split, then
from tailrace.broker.handlers.context import Handler, RequestContext
from tailrace.broker.protocol import NULL_UUID, ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.security.acls import CLUSTER_NAME, Operation, ResourceType
from tailrace.security.authorizer import Access

_TOPIC = ResourceType.TOPIC
_NOT_ASKED = -(2**31)


def metadata(context: RequestContext, access: Access, request: m.MetadataRequest, handler: Handler) -> Answer:
    """DESCRIBE on each topic: others are left out of all, refused by name, unknown by id (KIP-516).

    A topic is created on the way only with CREATE on the cluster or on the topic.
    """
    refusals = []
    if request.topics is not None and not (context.version == 0 and not request.topics):
        allowed = []
        for wanted in request.topics:
            error = _metadata_error(context, access, request, wanted)
            if error is ErrorCode.NONE:
                allowed.append(wanted)
            else:
                refusals.append(m.MetadataResponseTopic(error, wanted.name, wanted.topic_id))
        if not allowed and context.version == 0:
            return then(
                handler(context, m.MetadataRequest()), lambda answer: _with_topics(answer, refusals)
            )  # an empty list means all topics to v0
        request.topics = allowed

    def finish(answer: m.MetadataResponse) -> m.MetadataResponse:
        shown = [
            topic
            for topic in answer.topics
            if topic.error_code or access.may(Operation.DESCRIBE, _TOPIC, topic.name or "")
        ]
        for topic in shown:
            if topic.topic_authorized_operations != _NOT_ASKED:
                topic.topic_authorized_operations = access.operations(_TOPIC, topic.name or "")
        if answer.cluster_authorized_operations != _NOT_ASKED:
            answer.cluster_authorized_operations = _cluster_operations(access)
        return _with_topics(answer, shown + refusals)

    return then(handler(context, request), finish)


def _with_topics(answer: m.MetadataResponse, topics: list[m.MetadataResponseTopic]) -> m.MetadataResponse:
    answer.topics = topics
    return answer


def _metadata_error(
    context: RequestContext, access: Access, request: m.MetadataRequest, wanted: m.MetadataRequestTopic
) -> ErrorCode:
    by_id = wanted.topic_id != NULL_UUID
    name = context.topic_name(wanted.name or "", wanted.topic_id)
    if name is None:
        return ErrorCode.NONE  # no such id, says the handler
    if not access.may(Operation.DESCRIBE, _TOPIC, name):
        return ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.TOPIC_AUTHORIZATION_FAILED
    creates = request.allow_auto_topic_creation and context.broker.config.auto_create_topics
    if creates and context.broker.topics.find(name) is None:
        return _may_create(access, name)
    return ErrorCode.NONE


def _may_create(access: Access, name: str) -> ErrorCode:
    if access.may_cluster(Operation.CREATE):
        return ErrorCode.NONE
    return judge(access, Operation.CREATE, _TOPIC, name)


def _cluster_operations(access: Access) -> int:
    if not access.may_cluster(Operation.DESCRIBE):
        return 0
    return access.operations(ResourceType.CLUSTER, CLUSTER_NAME)


def describe_cluster(
    context: RequestContext, access: Access, request: m.DescribeClusterRequest, handler: Handler
) -> Answer:
    """Answered to everybody who is connected, who needs the address; what may be done needs DESCRIBE."""

    def finish(answer: m.DescribeClusterResponse) -> m.DescribeClusterResponse:
        if answer.cluster_authorized_operations != _NOT_ASKED:
            answer.cluster_authorized_operations = _cluster_operations(access)
        return answer

    return then(handler(context, request), finish)


def describe_topic_partitions(
    context: RequestContext, access: Access, request: m.DescribeTopicPartitionsRequest, handler: Handler
) -> Answer:
    """DESCRIBE on each topic: others are left out of all, and refused by name."""

    def may(name: str) -> bool:
        return access.may(Operation.DESCRIBE, _TOPIC, name)

    everything = not request.topics
    if everything:
        request.topics = [m.DescribeTopicPartitionsTopic(topic.name) for topic in context.broker.topics.all()]
    denied = {topic.name for topic in request.topics if not may(topic.name)}
    request.topics = [topic for topic in request.topics if topic.name not in denied]
    after = request.cursor.topic_name if request.cursor else ""
    refusals = [
        m.DescribeTopicPartitionsResponseTopic(ErrorCode.TOPIC_AUTHORIZATION_FAILED, name)
        for name in sorted(denied)
        if not everything and name >= after
    ]
    if not request.topics:
        return m.DescribeTopicPartitionsResponse(topics=refusals)

    def finish(answer: m.DescribeTopicPartitionsResponse) -> m.DescribeTopicPartitionsResponse:
        for topic in answer.topics:
            topic.topic_authorized_operations = access.operations(_TOPIC, topic.name or "")
        answer.topics = sorted(answer.topics + refusals, key=lambda topic: topic.name or "")
        return answer

    return then(handler(context, request), finish)


def create_topics(
    context: RequestContext, access: Access, request: m.CreateTopicsRequest, handler: Handler
) -> Answer:
    """CREATE on the cluster or on each topic; the configs are told with DESCRIBE_CONFIGS on the topic."""

    def hide(answer: m.CreateTopicsResponse) -> m.CreateTopicsResponse:
        for topic in answer.topics:
            if topic.error_code:
                topic.num_partitions = topic.replication_factor = -1
            elif not access.may(Operation.DESCRIBE_CONFIGS, _TOPIC, topic.name):
                topic.topic_config_error_code = ErrorCode.TOPIC_AUTHORIZATION_FAILED
                topic.num_partitions = topic.replication_factor = -1
                topic.configs = []
        return answer

    return then(
        split(
            context,
            ApiKey.CREATE_TOPICS,
            request,
            handler,
            items="topics",
            answers="topics",
            error_of=lambda topic: _may_create(access, topic.name),
        ),
        hide,
    )


def delete_topics(
    context: RequestContext, access: Access, request: m.DeleteTopicsRequest, handler: Handler
) -> Answer:
    """DELETE on each topic; a name is told for an id only with DESCRIBE."""

    def error_of(wanted: m.DeleteTopicState) -> ErrorCode:
        name = context.topic_name(wanted.name or "", wanted.topic_id)
        if name is None:
            return ErrorCode.NONE  # no such id, says the handler
        return judge(access, Operation.DELETE, _TOPIC, name)

    if not request.topics:
        request.topics = [m.DeleteTopicState(name) for name in request.topic_names]
        request.topic_names = []
    refusals = {}
    for at, wanted in enumerate(request.topics):
        error = error_of(wanted)
        if error:
            refusals[at] = m.DeletableTopicResult(wanted.name, wanted.topic_id, error)
    asked = len(request.topics)
    request.topics = [wanted for at, wanted in enumerate(request.topics) if at not in refusals]

    def merge(answer: m.DeleteTopicsResponse) -> m.DeleteTopicsResponse:
        served = iter(answer.responses)
        answer.responses = [refusals[at] if at in refusals else next(served) for at in range(asked)]
        return answer

    return then(handler(context, request), merge)


def create_partitions(
    context: RequestContext, access: Access, request: m.CreatePartitionsRequest, handler: Handler
) -> Answer:
    """ALTER on each topic."""
    return split(
        context,
        ApiKey.CREATE_PARTITIONS,
        request,
        handler,
        items="topics",
        answers="results",
        error_of=lambda topic: judge(access, Operation.ALTER, _TOPIC, topic.name),
    )
