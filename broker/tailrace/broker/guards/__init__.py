"""Authorization: in front of every handler stands the guard of its API, which asks the one authorizer.

`GUARDS` is Kafka's table of operations and resources.  Without an authorizer no guard is asked; with one, an
API that has no entry here is not served at all, so that a new API cannot be forgotten.

Source: kafka.server.KafkaApis, ControllerApis, AclApis (4.3); CVE-2018-17196, CVE-2026-41115.
"""

from tailrace.broker.guards import cluster, groups, records, topics, transactions
from tailrace.broker.guards.answers import Answer, Guard
from tailrace.broker.handlers.context import CloseConnection, Handler, RequestContext
from tailrace.broker.protocol import ApiKey
from tailrace.security.acls import Operation
from tailrace.security.authorizer import Access


def _open(context: RequestContext, access: Access, request: object, handler: Handler) -> Answer:
    """What a client asks to get connected at all."""
    return handler(context, request)


GUARDS: dict[ApiKey, Guard] = {
    ApiKey.API_VERSIONS: _open,
    ApiKey.SASL_HANDSHAKE: _open,
    ApiKey.SASL_AUTHENTICATE: _open,
    ApiKey.PRODUCE: records.produce,
    ApiKey.FETCH: records.fetch,
    ApiKey.LIST_OFFSETS: records.list_offsets,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: records.offset_for_leader_epoch,
    ApiKey.DELETE_RECORDS: records.delete_records,
    ApiKey.DESCRIBE_PRODUCERS: records.describe_producers,
    ApiKey.METADATA: topics.metadata,
    ApiKey.DESCRIBE_CLUSTER: topics.describe_cluster,
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: topics.describe_topic_partitions,
    ApiKey.CREATE_TOPICS: topics.create_topics,
    ApiKey.DELETE_TOPICS: topics.delete_topics,
    ApiKey.CREATE_PARTITIONS: topics.create_partitions,
    ApiKey.FIND_COORDINATOR: groups.find_coordinator,
    ApiKey.JOIN_GROUP: groups.member_of_group(ApiKey.JOIN_GROUP),
    ApiKey.SYNC_GROUP: groups.member_of_group(ApiKey.SYNC_GROUP),
    ApiKey.HEARTBEAT: groups.member_of_group(ApiKey.HEARTBEAT),
    ApiKey.LEAVE_GROUP: groups.member_of_group(ApiKey.LEAVE_GROUP),
    ApiKey.DESCRIBE_GROUPS: groups.describe_groups,
    ApiKey.LIST_GROUPS: groups.list_groups,
    ApiKey.DELETE_GROUPS: groups.delete_groups,
    ApiKey.CONSUMER_GROUP_HEARTBEAT: groups.consumer_group_heartbeat,
    ApiKey.CONSUMER_GROUP_DESCRIBE: groups.consumer_group_describe,
    ApiKey.OFFSET_COMMIT: groups.offset_commit,
    ApiKey.OFFSET_FETCH: groups.offset_fetch,
    ApiKey.OFFSET_DELETE: groups.offset_delete,
    ApiKey.INIT_PRODUCER_ID: transactions.init_producer_id,
    ApiKey.ADD_PARTITIONS_TO_TXN: transactions.add_partitions_to_txn,
    ApiKey.ADD_OFFSETS_TO_TXN: transactions.add_offsets_to_txn,
    ApiKey.END_TXN: transactions.end_txn,
    ApiKey.WRITE_TXN_MARKERS: transactions.write_txn_markers,
    ApiKey.TXN_OFFSET_COMMIT: transactions.txn_offset_commit,
    ApiKey.DESCRIBE_TRANSACTIONS: transactions.describe_transactions,
    ApiKey.LIST_TRANSACTIONS: transactions.list_transactions,
    ApiKey.DESCRIBE_LOG_DIRS: cluster.describe_log_dirs,
    ApiKey.DESCRIBE_CONFIGS: cluster.of_configs(
        ApiKey.DESCRIBE_CONFIGS, Operation.DESCRIBE_CONFIGS, "results"
    ),
    ApiKey.ALTER_CONFIGS: cluster.of_configs(ApiKey.ALTER_CONFIGS, Operation.ALTER_CONFIGS, "responses"),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: cluster.of_configs(
        ApiKey.INCREMENTAL_ALTER_CONFIGS, Operation.ALTER_CONFIGS, "responses"
    ),
}

_OF_CLUSTER = {
    ApiKey.DESCRIBE_ACLS: Operation.DESCRIBE,
    ApiKey.CREATE_ACLS: Operation.ALTER,
    ApiKey.DELETE_ACLS: Operation.ALTER,
    ApiKey.ELECT_LEADERS: Operation.ALTER,
    ApiKey.ALTER_REPLICA_LOG_DIRS: Operation.ALTER,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: Operation.ALTER,
    ApiKey.LIST_PARTITION_REASSIGNMENTS: Operation.DESCRIBE,
    ApiKey.UPDATE_FEATURES: Operation.ALTER,
    ApiKey.UNREGISTER_BROKER: Operation.ALTER,
    ApiKey.DESCRIBE_QUORUM: Operation.DESCRIBE,
    ApiKey.LIST_CONFIG_RESOURCES: Operation.DESCRIBE_CONFIGS,
    ApiKey.DESCRIBE_CLIENT_QUOTAS: Operation.DESCRIBE_CONFIGS,
    ApiKey.ALTER_CLIENT_QUOTAS: Operation.ALTER_CONFIGS,
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: Operation.DESCRIBE,
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: Operation.ALTER,
}
GUARDS |= {key: cluster.of_cluster(key, operation) for key, operation in _OF_CLUSTER.items()}


def guarded(context: RequestContext, key: ApiKey, request: object, handler: Handler) -> Answer:
    """The handler's answer as far as the principal of the context may have it."""
    if context.access is None:
        return handler(context, request)
    guard = GUARDS.get(key)
    if guard is None:
        raise CloseConnection(f"{key.name} has no entry in the table of authorizations")
    return guard(context, context.access, request, handler)
