"""DescribeAcls (29), CreateAcls (30), DeleteAcls (31); without an authorizer SECURITY_DISABLED."""

from itertools import groupby

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    AclCreation,
    AclCreationResult,
    AclDescription,
    CreateAclsRequest,
    CreateAclsResponse,
    DeleteAclsFilter,
    DeleteAclsFilterResult,
    DeleteAclsMatchingAcl,
    DeleteAclsRequest,
    DeleteAclsResponse,
    DescribeAclsRequest,
    DescribeAclsResource,
    DescribeAclsResponse,
)
from tailrace.security.acls import (
    Acl,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
    why_not,
)
from tailrace.security.store import StoreError

_OFF = "no authorizer is configured on this broker"


def describe_acls(context: RequestContext, request: DescribeAclsRequest) -> DescribeAclsResponse:
    """The rules that a filter matches, grouped by resource."""
    authorizer = context.broker.security.authorizer
    if authorizer is None:
        return DescribeAclsResponse(error_code=ErrorCode.SECURITY_DISABLED, error_message=_OFF)
    try:
        wanted = _filter(
            request.resource_type_filter,
            request.pattern_type_filter,
            request.resource_name_filter,
            request.principal_filter,
            request.host_filter,
            request.operation,
            request.permission_type,
        )
    except ValueError as error:
        return DescribeAclsResponse(error_code=ErrorCode.INVALID_REQUEST, error_message=str(error))
    grouped = groupby(
        authorizer.find(wanted), lambda acl: (acl.resource_type, acl.resource_name, acl.pattern_type)
    )
    return DescribeAclsResponse(
        error_message=None,
        resources=[
            DescribeAclsResource(
                *resource,
                [AclDescription(acl.principal, acl.host, acl.operation, acl.permission) for acl in acls],
            )
            for resource, acls in grouped
        ],
    )


def create_acls(context: RequestContext, request: CreateAclsRequest) -> CreateAclsResponse:
    """Add rules; each that is well formed counts, durably, whatever is wrong with others."""
    authorizer = context.broker.security.authorizer
    if authorizer is None:
        refusal = AclCreationResult(ErrorCode.SECURITY_DISABLED, _OFF)
        return CreateAclsResponse(results=[refusal for _ in request.creations])
    results, acls = [], []
    for creation in request.creations:
        try:
            acls.append(_acl(creation))
            results.append(AclCreationResult(ErrorCode.NONE, None))
        except ValueError as error:
            results.append(AclCreationResult(ErrorCode.INVALID_REQUEST, str(error)))
    try:
        authorizer.add(acls)
    except StoreError as error:
        failed = AclCreationResult(ErrorCode.UNKNOWN_SERVER_ERROR, str(error))
        results = [result if result.error_code else failed for result in results]
    return CreateAclsResponse(results=results)


def delete_acls(context: RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse:
    """Remove what each filter matches, and tell it."""
    authorizer = context.broker.security.authorizer
    if authorizer is None:
        refusal = DeleteAclsFilterResult(ErrorCode.SECURITY_DISABLED, _OFF)
        return DeleteAclsResponse(filter_results=[refusal for _ in request.filters])
    results: list[DeleteAclsFilterResult] = []
    gone: set[Acl] = set()
    for entry in request.filters:
        try:
            found = authorizer.find(_deletion(entry))
        except ValueError as error:
            results.append(DeleteAclsFilterResult(ErrorCode.INVALID_REQUEST, str(error)))
            continue
        gone.update(found)
        results.append(DeleteAclsFilterResult(ErrorCode.NONE, None, [_matching(acl) for acl in found]))
    try:
        authorizer.remove(gone)
    except StoreError as error:
        failed = DeleteAclsFilterResult(ErrorCode.UNKNOWN_SERVER_ERROR, str(error))
        results = [result if result.error_code else failed for result in results]
    return DeleteAclsResponse(filter_results=results)


def _acl(creation: AclCreation) -> Acl:
    acl = Acl(
        ResourceType(creation.resource_type),
        PatternType(creation.resource_pattern_type),
        creation.resource_name,
        creation.principal,
        creation.host,
        Operation(creation.operation),
        Permission(creation.permission_type),
    )
    wrong = why_not(acl)
    if wrong is not None:
        raise ValueError(wrong)
    return acl


def _deletion(entry: DeleteAclsFilter) -> AclFilter:
    return _filter(
        entry.resource_type_filter,
        entry.pattern_type_filter,
        entry.resource_name_filter,
        entry.principal_filter,
        entry.host_filter,
        entry.operation,
        entry.permission_type,
    )


def _filter(
    kind: int, pattern: int, name: str | None, principal: str | None, host: str | None, what: int, way: int
) -> AclFilter:
    parts = (ResourceType(kind), PatternType(pattern), Operation(what), Permission(way))
    if 0 in parts:
        raise ValueError("a filter has a part of unknown kind")
    return AclFilter(parts[0], parts[1], name, principal, host, parts[2], parts[3])


def _matching(acl: Acl) -> DeleteAclsMatchingAcl:
    return DeleteAclsMatchingAcl(
        ErrorCode.NONE,
        None,
        acl.resource_type,
        acl.resource_name,
        acl.pattern_type,
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission,
    )
