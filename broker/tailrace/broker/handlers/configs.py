"""DescribeConfigs (32), AlterConfigs (33), IncrementalAlterConfigs (44): topics can be changed, the broker read."""

from collections.abc import Mapping

from tailrace.broker.config import OPTIONS
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.options import ConfigType
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    AlterConfigsRequest,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse,
)
from tailrace.broker.topics import ConfigEntry

_TOPIC = 2
_BROKER = 4
_SET, _DELETE, _APPEND, _SUBTRACT = range(4)
_STATIC_BROKER, _DEFAULT = 4, 5


def describe_configs(context: RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse:
    """Every config with its value and where it comes from; `configuration_keys` narrows the list."""
    return DescribeConfigsResponse(
        results=[_describe(context, resource, request) for resource in request.resources]
    )


def _describe(
    context: RequestContext, resource: DescribeConfigsResource, request: DescribeConfigsRequest
) -> DescribeConfigsResult:
    try:
        entries = _entries(context, resource.resource_type, resource.resource_name)
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


def _entries(context: RequestContext, resource_type: int, name: str) -> list[ConfigEntry]:
    if resource_type == _TOPIC:
        return context.broker.topics.describe_configs(name)
    if resource_type == _BROKER and name in ("", str(context.broker.config.node_id)):
        return _broker_entries(context) if name else []
    raise LogError(
        ErrorCode.INVALID_REQUEST, f"there are no configs of resource type {resource_type} {name!r}"
    )


def _broker_entries(context: RequestContext) -> list[ConfigEntry]:
    entries = []
    for name, option in OPTIONS.items():
        value = getattr(context.broker.config, option.field)
        entries.append(
            ConfigEntry(
                name,
                option.text(value),
                _DEFAULT if value == option.default else _STATIC_BROKER,
                option.config_type,
                read_only=True,
                documentation=option.documentation,
            )
        )
    # one node has one replica of everything: tools ask for these before they make topics
    replicas = ("default.replication.factor", "min.insync.replicas", "offsets.topic.replication.factor")
    return entries + [
        ConfigEntry(name, "1", _DEFAULT, ConfigType.INT, read_only=True, documentation="")
        for name in replicas
    ]


def _result(entry: ConfigEntry, *, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult:
    secret = entry.config_type == ConfigType.PASSWORD
    value = None if secret else entry.value
    return DescribeConfigsResourceResult(
        entry.name,
        value,
        entry.read_only,
        entry.source,
        secret,
        [DescribeConfigsSynonym(entry.name, value, entry.source)] if synonyms else [],
        entry.config_type,
        entry.documentation if documentation else None,
    )


def alter_configs(context: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse:
    """Replace all configs of topics."""
    return AlterConfigsResponse(
        responses=[
            AlterConfigsResourceResponse(
                *_set(
                    context,
                    resource.resource_type,
                    resource.resource_name,
                    {entry.name: entry.value for entry in resource.configs},
                    validate_only=request.validate_only,
                ),
                resource.resource_type,
                resource.resource_name,
            )
            for resource in request.resources
        ]
    )


def incremental_alter_configs(
    context: RequestContext, request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    """Set, delete, append to or subtract from single configs of topics (KIP-339)."""
    return IncrementalAlterConfigsResponse(
        responses=[
            IncrementalAlterConfigsResourceResponse(
                *_change(context, resource, validate_only=request.validate_only),
                resource.resource_type,
                resource.resource_name,
            )
            for resource in request.resources
        ]
    )


def _change(
    context: RequestContext, resource: IncrementalAlterConfigsResource, *, validate_only: bool
) -> tuple[int, str | None]:
    if resource.resource_type != _TOPIC:
        return _read_only(resource.resource_type)
    names = [entry.name for entry in resource.configs]
    if len(names) != len(set(names)):
        return ErrorCode.INVALID_REQUEST, "a config is named more than once"
    try:
        configs: dict[str, str | None] = dict(context.broker.topics.get(resource.resource_name).configs)
        described = {e.name: e for e in context.broker.topics.describe_configs(resource.resource_name)}
        for change in resource.configs:
            if change.config_operation == _SET:
                configs[change.name] = change.value
            elif change.config_operation == _DELETE:
                configs.pop(change.name, None)
            elif change.config_operation in (_APPEND, _SUBTRACT):
                entry = described.get(change.name)
                if entry is None or entry.config_type != ConfigType.LIST:
                    return ErrorCode.INVALID_CONFIG, f"{change.name} is not a list: set it instead"
                configs[change.name] = _edited(entry.value, change.value or "", change.config_operation)
            else:
                return ErrorCode.INVALID_REQUEST, f"there is no config operation {change.config_operation}"
    except LogError as error:
        return error.code, str(error)
    return _set(context, _TOPIC, resource.resource_name, configs, validate_only=validate_only)


def _edited(present: str, change: str, operation: int) -> str:
    items = [item for item in present.split(",") if item]
    changed = [item.strip() for item in change.split(",") if item.strip()]
    if operation == _SUBTRACT:
        return ",".join(item for item in items if item not in changed)
    return ",".join(items + [item for item in changed if item not in items])


def _set(
    context: RequestContext,
    resource_type: int,
    name: str,
    configs: Mapping[str, str | None],
    *,
    validate_only: bool,
) -> tuple[int, str | None]:
    if resource_type != _TOPIC:
        return _read_only(resource_type)
    try:
        if context.broker.topics.get(name).internal:
            return ErrorCode.INVALID_TOPIC_EXCEPTION, f"{name} is internal"
        if validate_only:
            context.broker.topics.check_configs(configs)
        else:
            context.broker.topics.set_configs(name, configs)
            context.broker.prepare_key_checks(name)
    except LogError as error:
        return error.code, str(error)
    return ErrorCode.NONE, None


def _read_only(resource_type: int) -> tuple[int, str]:
    if resource_type == _BROKER:
        return ErrorCode.INVALID_CONFIG, "the broker's options are set at its start"
    return ErrorCode.INVALID_REQUEST, f"there are no configs of resource type {resource_type}"
