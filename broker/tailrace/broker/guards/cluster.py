"""Guards of the cluster's own affairs: configs, ACLs, users, quotas, directories."""

from typing import Any

from tailrace.broker.guards.answers import Answer, Guard, judge, refused, split
from tailrace.broker.handlers.context import Handler, RequestContext
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.security.acls import CLUSTER_NAME, Operation, ResourceType
from tailrace.security.authorizer import Access

_TOPIC_CONFIG, _GROUP_CONFIG = 2, 32
_FIRST_VERSION_WITH_LOG_DIR_ERROR = 3


def of_cluster(key: ApiKey, operation: Operation) -> Guard:
    """One operation on the cluster for the whole request."""

    def guard(context: RequestContext, access: Access, request: Any, handler: Handler) -> Answer:
        if access.may_cluster(operation):
            return handler(context, request)
        return refused(context, key, request, ErrorCode.CLUSTER_AUTHORIZATION_FAILED)

    return guard


def describe_log_dirs(
    context: RequestContext, access: Access, request: m.DescribeLogDirsRequest, handler: Handler
) -> Answer:
    """DESCRIBE on the cluster; before v3, which brought an error, nothing is told."""
    if access.may_cluster(Operation.DESCRIBE):
        return handler(context, request)
    error = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    return m.DescribeLogDirsResponse(
        error_code=error if context.version >= _FIRST_VERSION_WITH_LOG_DIR_ERROR else ErrorCode.NONE
    )


def of_configs(key: ApiKey, operation: Operation, answers: str) -> Guard:
    """An operation on configs: of each topic, of each group, or else of the cluster."""

    def guard(context: RequestContext, access: Access, request: Any, handler: Handler) -> Answer:
        def error_of(resource: Any) -> ErrorCode:
            if resource.resource_type == _TOPIC_CONFIG:
                return judge(access, operation, ResourceType.TOPIC, resource.resource_name)
            if resource.resource_type == _GROUP_CONFIG:
                return judge(access, operation, ResourceType.GROUP, resource.resource_name)
            return judge(access, operation, ResourceType.CLUSTER, CLUSTER_NAME)

        return split(context, key, request, handler, items="resources", answers=answers, error_of=error_of)

    return guard
