"""DescribeConfigs (32), AlterConfigs (33), IncrementalAlterConfigs (44): `config_resources` has what they are about."""

from collections.abc import Sequence

from tailrace.broker.config_entries import ConfigEntry
from tailrace.broker.handlers.config_resources import resources_of
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.options import ConfigType
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse,
)


def describe_configs(context: RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse:
    """Every config with its value and where it comes from; `configuration_keys` narrows the list."""
    return DescribeConfigsResponse(
        results=[_describe(context, resource, request) for resource in request.resources]
    )


def _describe(
    context: RequestContext, resource: DescribeConfigsResource, request: DescribeConfigsRequest
) -> DescribeConfigsResult:
    try:
        resources = resources_of(context.broker, resource.resource_type)
        entries = resources.describe(resource.resource_name)
    except LogError as error:
        return DescribeConfigsResult(error.code, str(error), resource.resource_type, resource.resource_name)
    wanted = None if resource.configuration_keys is None else set(resource.configuration_keys)
    return DescribeConfigsResult(
        0,
        None,
        resource.resource_type,
        resource.resource_name,
        [
            _result(entry, synonyms=request.include_synonyms, documentation=request.include_documentation)
            for entry in entries
            if wanted is None or entry.name in wanted
        ],
    )


def _result(entry: ConfigEntry, *, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult:
    secret = entry.config_type == ConfigType.PASSWORD
    return DescribeConfigsResourceResult(
        entry.name,
        None if secret else entry.value,
        entry.read_only,
        entry.source,
        secret,
        [
            DescribeConfigsSynonym(synonym.name, None if secret else synonym.value, synonym.source)
            for synonym in entry.synonyms
            if synonyms
        ],
        entry.config_type,
        entry.documentation if documentation else None,
    )


def alter_configs(context: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse:
    """Replace all that is set on a resource."""
    return AlterConfigsResponse(
        responses=[
            AlterConfigsResourceResponse(
                *_replace(context, resource, validate_only=request.validate_only),
                resource.resource_type,
                resource.resource_name,
            )
            for resource in request.resources
        ]
    )


def incremental_alter_configs(
    context: RequestContext, request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    """Set, delete, append to or subtract from single configs (KIP-339)."""
    named = [(resource.resource_type, resource.resource_name) for resource in request.resources]
    return IncrementalAlterConfigsResponse(
        responses=[
            IncrementalAlterConfigsResourceResponse(
                *_change(context, resource, validate_only=request.validate_only)
                if named.count((resource.resource_type, resource.resource_name)) == 1
                else (ErrorCode.INVALID_REQUEST, "the resource is named more than once in the request"),
                resource.resource_type,
                resource.resource_name,
            )
            for resource in request.resources
        ]
    )


def _replace(
    context: RequestContext, resource: AlterConfigsResource, *, validate_only: bool
) -> tuple[int, str | None]:
    wrong = _wrong_names(resource.configs)
    if wrong is not None:
        return wrong
    configs: dict[str, str] = {}
    for entry in resource.configs:
        if entry.value is None:
            return ErrorCode.INVALID_REQUEST, f"config {entry.name} has no value"
        configs[entry.name] = entry.value
    try:
        resources = resources_of(context.broker, resource.resource_type)
        resources.replace(resource.resource_name, configs, validate_only=validate_only)
    except LogError as error:
        return error.code, str(error)
    return ErrorCode.NONE, None


def _change(
    context: RequestContext, resource: IncrementalAlterConfigsResource, *, validate_only: bool
) -> tuple[int, str | None]:
    wrong = _wrong_names(resource.configs)
    if wrong is not None:
        return wrong
    try:
        resources = resources_of(context.broker, resource.resource_type)
        resources.change(resource.resource_name, resource.configs, validate_only=validate_only)
    except LogError as error:
        return error.code, str(error)
    return ErrorCode.NONE, None


def _wrong_names(
    configs: Sequence[AlterableConfig] | Sequence[IncrementalAlterableConfig],
) -> tuple[int, str] | None:
    names = [entry.name for entry in configs]
    if len(names) != len(set(names)):
        return ErrorCode.INVALID_REQUEST, "a config is named more than once"
    return None
