"""Producer transactions: which are open, since when, and ending one that hangs."""

import time
from collections.abc import Sequence
from typing import Any

from tailrace.broker.client import Client
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.changes import TailraceError
from tailrace.pipeline.admin.cluster import (
    TRANSACTION,
    ask_coordinator,
    ask_every_node,
    check,
    check_coordinated,
)


def list_transactions(client: Client, states: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every transactional id of the cluster, or those in the named states."""
    found = []
    request = m.ListTransactionsRequest(state_filters=list(states))
    for response in ask_every_node(client, ApiKey.LIST_TRANSACTIONS, request):
        check(response.error_code, "list transactions")
        if response.unknown_state_filters:
            raise TailraceError(
                f"there is no transaction state '{response.unknown_state_filters[0]}'",
                fix="states are Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort",
            )
        found += [
            {
                "transactional_id": listed.transactional_id,
                "state": listed.transaction_state,
                "producer_id": listed.producer_id,
            }
            for listed in response.transaction_states
        ]
    return sorted(found, key=lambda listed: listed["transactional_id"])


def describe_transaction(client: Client, transactional_id: str) -> dict[str, Any]:
    """State, age and partitions; raises BrokerError for an id that the cluster does not know."""

    def described(response: Any) -> dict[str, Any]:
        (found,) = response.transaction_states
        check_coordinated(
            client, TRANSACTION, transactional_id, found.error_code, f"describe '{transactional_id}'"
        )
        began_ms = found.transaction_start_time_ms
        return {
            "transactional_id": transactional_id,
            "state": found.transaction_state,
            "producer_id": found.producer_id,
            "producer_epoch": found.producer_epoch,
            "timeout_ms": found.transaction_timeout_ms,
            "open_for_s": round(time.time() - began_ms / 1000, 1) if began_ms > 0 else None,
            "partitions": [
                f"{topic.topic}/{index}" for topic in found.topics for index in sorted(topic.partitions)
            ],
        }

    request = m.DescribeTransactionsRequest(transactional_ids=[transactional_id])
    return ask_coordinator(
        client, TRANSACTION, transactional_id, ApiKey.DESCRIBE_TRANSACTIONS, request, described
    )


def abort_transaction(client: Client, transactional_id: str) -> dict[str, Any]:
    """End the open transaction of an id by taking its next epoch, which also shuts its producer out (KIP-664).

    Raises TailraceError when no transaction is open.
    """
    before = describe_transaction(client, transactional_id)
    if before["state"] not in ("Ongoing", "PrepareAbort"):
        raise TailraceError(
            f"'{transactional_id}' has no open transaction: it is {before['state']}",
            fix="see tailrace transactions list --state Ongoing",
        )

    def fenced(response: Any) -> None:
        if response.error_code == ErrorCode.CONCURRENT_TRANSACTIONS:  # the abort is under way
            client.check_coordinator(TRANSACTION, transactional_id, response.error_code, "abort")
        check_coordinated(
            client, TRANSACTION, transactional_id, response.error_code, f"abort '{transactional_id}'"
        )

    request = m.InitProducerIdRequest(
        transactional_id=transactional_id, transaction_timeout_ms=before["timeout_ms"]
    )
    ask_coordinator(client, TRANSACTION, transactional_id, ApiKey.INIT_PRODUCER_ID, request, fenced)
    return before
