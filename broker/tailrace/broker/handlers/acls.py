"""DescribeAcls (29), CreateAcls (30), DeleteAcls (31): there is no authorizer, and clients are told so."""

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    AclCreationResult,
    CreateAclsRequest,
    CreateAclsResponse,
    DeleteAclsFilterResult,
    DeleteAclsRequest,
    DeleteAclsResponse,
    DescribeAclsRequest,
    DescribeAclsResponse,
)

_WHY = "no authorizer is configured on this broker"


def describe_acls(context: RequestContext, request: DescribeAclsRequest) -> DescribeAclsResponse:
    """SECURITY_DISABLED."""
    return DescribeAclsResponse(error_code=ErrorCode.SECURITY_DISABLED, error_message=_WHY)


def create_acls(context: RequestContext, request: CreateAclsRequest) -> CreateAclsResponse:
    """SECURITY_DISABLED for each binding."""
    return CreateAclsResponse(
        results=[AclCreationResult(ErrorCode.SECURITY_DISABLED, _WHY) for _ in request.creations]
    )


def delete_acls(context: RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse:
    """SECURITY_DISABLED for each filter."""
    return DeleteAclsResponse(
        filter_results=[DeleteAclsFilterResult(ErrorCode.SECURITY_DISABLED, _WHY) for _ in request.filters]
    )
