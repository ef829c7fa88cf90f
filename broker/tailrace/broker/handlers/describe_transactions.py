"""DescribeProducers (61), DescribeTransactions (65), ListTransactions (66): who writes, and what hangs (KIP-664)."""

import re

from tailrace.broker.coordinator.schemas import TxnStatus, by_topic
from tailrace.broker.coordinator.transaction import Transaction
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    DescribedTransaction,
    DescribedTransactionTopic,
    DescribeProducersPartitionResponse,
    DescribeProducersRequest,
    DescribeProducersResponse,
    DescribeProducersTopicResponse,
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    ListedTransaction,
    ListTransactionsRequest,
    ListTransactionsResponse,
    ProducerState,
)


def describe_producers(
    context: RequestContext, request: DescribeProducersRequest
) -> DescribeProducersResponse:
    """Every producer that the partition's log knows, with the start of its open transaction."""
    return DescribeProducersResponse(
        topics=[
            DescribeProducersTopicResponse(
                topic.name, [_producers(context, topic.name, index) for index in topic.partition_indexes]
            )
            for topic in request.topics
        ]
    )


def _producers(context: RequestContext, topic: str, partition: int) -> DescribeProducersPartitionResponse:
    try:
        log = context.broker.topics.log(topic, partition)
    except LogError as error:
        return DescribeProducersPartitionResponse(partition, error.code, str(error))
    states = [
        ProducerState(
            producer.producer_id,
            producer.epoch,
            producer.last_sequence,
            producer.last_timestamp_ms,
            producer.coordinator_epoch,
            producer.transaction_start_offset,
        )
        for producer in log.producers()
    ]
    return DescribeProducersPartitionResponse(partition, 0, None, states)


def describe_transactions(
    context: RequestContext, request: DescribeTransactionsRequest
) -> DescribeTransactionsResponse:
    """State, timeout and partitions of transactional ids."""
    described = []
    for transactional_id in request.transactional_ids:
        txn = context.broker.transactions.get(transactional_id)
        if not transactional_id:
            described.append(DescribedTransaction(ErrorCode.INVALID_REQUEST, transactional_id))
        elif txn is None:
            described.append(DescribedTransaction(ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, transactional_id))
        else:
            described.append(_described(txn))
    return DescribeTransactionsResponse(transaction_states=described)


def _described(txn: Transaction) -> DescribedTransaction:
    state = txn.state
    return DescribedTransaction(
        0,
        txn.transactional_id,
        state.status.label,
        state.timeout_ms,
        state.started_at_ms,
        state.producer_id,
        state.epoch,
        [DescribedTransactionTopic(topic, ids) for topic, ids in by_topic(state.partitions).items()],
    )


def list_transactions(context: RequestContext, request: ListTransactionsRequest) -> ListTransactionsResponse:
    """Transactions that pass every filter; state names that are unknown are echoed."""
    known = {status.label for status in TxnStatus}
    states = set(request.state_filters)
    producers = set(request.producer_id_filters)
    try:
        pattern = re.compile(request.transactional_id_pattern or "")
    except re.error:
        return ListTransactionsResponse(error_code=ErrorCode.INVALID_REGULAR_EXPRESSION)
    now_ms = context.broker.clock.now_ms()
    listed = [
        ListedTransaction(txn.transactional_id, txn.state.producer_id, txn.state.status.label)
        for txn in context.broker.transactions
        if (not states or txn.state.status.label in states)
        and (not producers or txn.state.producer_id in producers)
        and (
            request.duration_filter < 0
            or (txn.state.started_at_ms >= 0 and now_ms - txn.state.started_at_ms > request.duration_filter)
        )
        and (not request.transactional_id_pattern or pattern.fullmatch(txn.transactional_id))
    ]
    return ListTransactionsResponse(unknown_state_filters=sorted(states - known), transaction_states=listed)
