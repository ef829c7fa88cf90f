"""DescribeConfigs (32), AlterConfigs (33), IncrementalAlterConfigs (44).

Topics can be changed, and the broker's defaults for topics; its other options are set at its start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING

from tailrace.broker.config import OPTIONS
from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError
from tailrace.broker.options import ConfigType, Option
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
from tailrace.broker.topic_configs import ALL_BROKERS, DEFAULT, SET_AT_START, ConfigEntry, Synonym

_TOPIC = 2
_BROKER = 4
_SET, _DELETE, _APPEND, _SUBTRACT = range(4)


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
    if resource_type == _BROKER and name in (ALL_BROKERS, str(context.broker.config.node_id)):
        dynamic = context.broker.topics.describe_broker_configs(name)
        return dynamic if name == ALL_BROKERS else [*_start_entries(context), *dynamic]
    raise LogError(
        ErrorCode.INVALID_REQUEST, f"there are no configs of resource type {resource_type} {name!r}"
    )


def _start_entries(context: RequestContext) -> list[ConfigEntry]:
    entries = [
        _start_entry(
            name, option.text(getattr(context.broker.config, option.field)), option.config_type, option
        )
        for name, option in OPTIONS.items()
    ]
    # one node has one replica of everything: tools ask for these before they make topics
    replicas = ("default.replication.factor", "offsets.topic.replication.factor")
    entries += [_start_entry(name, "1", ConfigType.INT, None) for name in replicas]
    # gone from Kafka 4, but user interfaces still take the broker for an old one without it
    return [*entries, _start_entry("inter.broker.protocol.version", "4.3-IV0", ConfigType.STRING, None)]


def _start_entry(name: str, value: str, config_type: ConfigType, option: Option | None) -> ConfigEntry:
    default = value if option is None or option.default is MISSING else option.text(option.default)
    source = DEFAULT if value == default else SET_AT_START
    synonyms = [Synonym(name, default, DEFAULT)] if option is None or option.default is not MISSING else []
    if source == SET_AT_START or not synonyms:
        synonyms.insert(0, Synonym(name, value, SET_AT_START))
    documentation = "" if option is None else option.documentation
    return ConfigEntry(
        name,
        value,
        synonyms[0].source,
        config_type,
        read_only=True,
        documentation=documentation,
        synonyms=tuple(synonyms),
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
    """Replace all configs of topics, or all defaults of the broker."""
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
    """Set, delete, append to or subtract from single configs of topics or of the broker (KIP-339)."""
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
        _configurable(context, resource.resource_type, resource.resource_name)
        _set(context, resource.resource_type, resource.resource_name, configs, validate_only=validate_only)
    except LogError as error:
        return error.code, str(error)
    return ErrorCode.NONE, None


def _change(
    context: RequestContext, resource: IncrementalAlterConfigsResource, *, validate_only: bool
) -> tuple[int, str | None]:
    wrong = _wrong_names(resource.configs)
    if wrong is not None:
        return wrong
    kind, name = resource.resource_type, resource.resource_name
    try:
        configs = _configurable(context, kind, name)
        for change in resource.configs:
            _apply(change, configs, _list_value(context, kind, name, change.name))
        _set(context, kind, name, configs, validate_only=validate_only)
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


def _configurable(context: RequestContext, resource_type: int, name: str) -> dict[str, str]:
    """What is set on a resource that clients may configure.  Raises LogError."""
    topics = context.broker.topics
    if resource_type == _TOPIC:
        topic = topics.get(name)
        if topic.internal:
            raise LogError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{name} is internal")
        return dict(topic.configs)
    if resource_type == _BROKER and name in (ALL_BROKERS, str(context.broker.config.node_id)):
        return dict(topics.broker_configs(name))
    raise LogError(
        ErrorCode.INVALID_REQUEST, f"there are no configs of resource type {resource_type} {name!r}"
    )


def _list_value(context: RequestContext, resource_type: int, name: str, config: str) -> str | None:
    """The present value of a config that is a list, None for one that is none."""
    topics = context.broker.topics
    node = str(context.broker.config.node_id)
    entries = (
        topics.describe_configs(name) if resource_type == _TOPIC else topics.describe_broker_configs(node)
    )
    return next(
        (entry.value for entry in entries if entry.name == config and entry.config_type == ConfigType.LIST),
        None,
    )


def _apply(change: IncrementalAlterableConfig, configs: dict[str, str], present: str | None) -> None:
    operation = change.config_operation
    if operation == _DELETE:
        configs.pop(change.name, None)
        return
    if operation not in (_SET, _APPEND, _SUBTRACT):
        raise LogError(ErrorCode.INVALID_REQUEST, f"there is no config operation {operation}")
    if change.value is None:
        raise LogError(ErrorCode.INVALID_REQUEST, f"config {change.name} has no value")
    if operation == _SET:
        configs[change.name] = change.value
        return
    if present is None:
        raise LogError(ErrorCode.INVALID_CONFIG, f"config {change.name} is not a list", fix="Set it instead")
    configs[change.name] = _edited(present, change.value, operation)


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
    configs: Mapping[str, str],
    *,
    validate_only: bool,
) -> None:
    """Put `configs` in force, or only check them.  Raises LogError."""
    broker, topics = context.broker, context.broker.topics
    if resource_type == _BROKER:
        topics.check_broker_configs(name, configs)
        if not validate_only:
            topics.set_broker_configs(name, configs)
            for topic in topics.all():
                broker.prepare_key_checks(topic.name)
    elif validate_only:
        topics.check_configs(configs)
    else:
        topics.set_configs(name, configs)
        broker.prepare_key_checks(name)
