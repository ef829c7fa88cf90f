"""Guards of transactions: WRITE on the transactional id to use it, DESCRIBE to look."""

from tailrace.broker.guards.answers import Answer, judge, refused, split, then
from tailrace.broker.handlers.context import Handler, RequestContext
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.security.acls import Operation, ResourceType
from tailrace.security.authorizer import Access

_GROUP, _TOPIC, _TXN = ResourceType.GROUP, ResourceType.TOPIC, ResourceType.TRANSACTIONAL_ID


def init_producer_id(
    context: RequestContext, access: Access, request: m.InitProducerIdRequest, handler: Handler
) -> Answer:
    """WRITE on the transactional id; without one IDEMPOTENT_WRITE, or WRITE on any topic (KIP-679)."""
    if request.transactional_id is not None:
        error = judge(access, Operation.WRITE, _TXN, request.transactional_id)
    elif access.may_cluster(Operation.IDEMPOTENT_WRITE) or access.may_any(Operation.WRITE, _TOPIC):
        error = ErrorCode.NONE
    else:
        error = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    return refused(context, ApiKey.INIT_PRODUCER_ID, request, error) if error else handler(context, request)


def add_partitions_to_txn(
    context: RequestContext, access: Access, request: m.AddPartitionsToTxnRequest, handler: Handler
) -> Answer:
    """WRITE on the transactional id and on each topic: all partitions are added, or none.

    From v4 on the request is one of brokers among themselves: CLUSTER_ACTION.
    """
    if request.transactions:
        if access.may_cluster(Operation.CLUSTER_ACTION):
            return handler(context, request)
        return m.AddPartitionsToTxnResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    topics = request.v3_and_below_topics
    error = judge(access, Operation.WRITE, _TXN, request.v3_and_below_transactional_id)
    errors = {topic.name: error or judge(access, Operation.WRITE, _TOPIC, topic.name) for topic in topics}
    if not any(errors.values()):
        return handler(context, request)
    return m.AddPartitionsToTxnResponse(
        results_by_topic_v3_and_below=[
            m.AddPartitionsToTxnTopicResult(
                topic.name,
                [
                    m.AddPartitionsToTxnPartitionResult(
                        index, errors[topic.name] or ErrorCode.OPERATION_NOT_ATTEMPTED
                    )
                    for index in topic.partitions
                ],
            )
            for topic in topics
        ]
    )


def add_offsets_to_txn(
    context: RequestContext, access: Access, request: m.AddOffsetsToTxnRequest, handler: Handler
) -> Answer:
    """WRITE on the transactional id, READ on the group."""
    error = judge(access, Operation.WRITE, _TXN, request.transactional_id)
    error = error or judge(access, Operation.READ, _GROUP, request.group_id)
    return refused(context, ApiKey.ADD_OFFSETS_TO_TXN, request, error) if error else handler(context, request)


def end_txn(context: RequestContext, access: Access, request: m.EndTxnRequest, handler: Handler) -> Answer:
    """WRITE on the transactional id."""
    error = judge(access, Operation.WRITE, _TXN, request.transactional_id)
    return refused(context, ApiKey.END_TXN, request, error) if error else handler(context, request)


def write_txn_markers(
    context: RequestContext, access: Access, request: m.WriteTxnMarkersRequest, handler: Handler
) -> Answer:
    """ALTER on the cluster, which operators have, or CLUSTER_ACTION, which brokers have."""
    if access.may_cluster(Operation.ALTER) or access.may_cluster(Operation.CLUSTER_ACTION):
        return handler(context, request)
    return refused(context, ApiKey.WRITE_TXN_MARKERS, request, ErrorCode.CLUSTER_AUTHORIZATION_FAILED)


def txn_offset_commit(
    context: RequestContext, access: Access, request: m.TxnOffsetCommitRequest, handler: Handler
) -> Answer:
    """WRITE on the transactional id, READ on the group and on each topic."""
    error = judge(access, Operation.WRITE, _TXN, request.transactional_id)
    error = error or judge(access, Operation.READ, _GROUP, request.group_id)
    if error:
        return refused(context, ApiKey.TXN_OFFSET_COMMIT, request, error)
    return split(
        context,
        ApiKey.TXN_OFFSET_COMMIT,
        request,
        handler,
        items="topics",
        answers="topics",
        error_of=lambda topic: judge(access, Operation.READ, _TOPIC, topic.name),
    )


def describe_transactions(
    context: RequestContext, access: Access, request: m.DescribeTransactionsRequest, handler: Handler
) -> Answer:
    """DESCRIBE on each transactional id; topics without DESCRIBE are left out."""

    def leave_out(answer: m.DescribeTransactionsResponse) -> m.DescribeTransactionsResponse:
        for state in answer.transaction_states:
            state.topics = [t for t in state.topics if access.may(Operation.DESCRIBE, _TOPIC, t.topic)]
        return answer

    return then(
        split(
            context,
            ApiKey.DESCRIBE_TRANSACTIONS,
            request,
            handler,
            items="transactional_ids",
            answers="transaction_states",
            error_of=lambda name: judge(access, Operation.DESCRIBE, _TXN, name),
        ),
        leave_out,
    )


def list_transactions(
    context: RequestContext, access: Access, request: m.ListTransactionsRequest, handler: Handler
) -> Answer:
    """Only transactional ids with DESCRIBE."""

    def leave_out(answer: m.ListTransactionsResponse) -> m.ListTransactionsResponse:
        answer.transaction_states = [
            state
            for state in answer.transaction_states
            if access.may(Operation.DESCRIBE, _TXN, state.transactional_id)
        ]
        return answer

    return then(handler(context, request), leave_out)
