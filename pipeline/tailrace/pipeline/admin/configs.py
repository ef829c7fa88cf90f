"""Configs of topics and brokers, by Kafka's names."""

from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.broker.client import Client
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m
from tailrace.changes import ConfigError
from tailrace.pipeline.admin.cluster import ask, check

TOPIC, BROKER = 2, 4
_SET, _DELETE = 0, 1
_SOURCES = {
    1: "topic",
    2: "dynamic broker",
    3: "dynamic default broker",
    4: "broker file",
    5: "default",
    6: "broker logger",
}
_DEFAULT = 5


def parse_entity(text: str) -> tuple[int, str]:
    """`topic:orders`, `broker:1` -> (resource type, name).  Raises ConfigError."""
    kind, _, name = text.partition(":")
    if kind not in ("topic", "broker") or not name:
        raise ConfigError(f"'{text}' names nothing that has configs", fix="write topic:NAME or broker:ID")
    return (TOPIC if kind == "topic" else BROKER), name


def describe_configs(client: Client, kind: int, name: str, *, every: bool) -> list[dict[str, Any]]:
    """What was set, or `every` config with its default; secrets come without a value."""
    request = m.DescribeConfigsRequest(
        resources=[m.DescribeConfigsResource(kind, name, None)], include_documentation=True
    )

    def described(response: Any) -> list[dict[str, Any]]:
        (result,) = response.results
        check(result.error_code, f"describe configs of {name}", result.error_message)
        return [
            {
                "name": entry.name,
                "value": entry.value,
                "source": _SOURCES.get(entry.config_source, "unknown"),
                "read_only": entry.read_only,
                "documentation": entry.documentation or None,
            }
            for entry in sorted(result.configs, key=lambda entry: entry.name)
            if every or entry.config_source != _DEFAULT
        ]

    rows: list[dict[str, Any]] = _ask(client, kind, name, ApiKey.DESCRIBE_CONFIGS, request, described)
    return rows


def alter_configs(
    client: Client, kind: int, name: str, values: Mapping[str, str], deleted: Sequence[str]
) -> None:
    """Set some configs and put others back to their default; the rest stays."""
    changes = [m.IncrementalAlterableConfig(config, _SET, value) for config, value in values.items()]
    changes += [m.IncrementalAlterableConfig(config, _DELETE, None) for config in deleted]
    request = m.IncrementalAlterConfigsRequest(
        resources=[m.IncrementalAlterConfigsResource(kind, name, changes)]
    )

    def altered(response: Any) -> None:
        (result,) = response.responses
        check(result.error_code, f"alter configs of {name}", result.error_message)

    _ask(client, kind, name, ApiKey.INCREMENTAL_ALTER_CONFIGS, request, altered)


def _ask(client: Client, kind: int, name: str, api_key: ApiKey, request: Any, read: Any) -> Any:
    """Configs of a broker are known to that broker only."""
    if kind != BROKER:
        return ask(client, api_key, request, read)

    def attempt() -> Any:
        nodes = client.nodes()
        if not name.isdigit() or int(name) not in nodes:
            raise ConfigError(f"there is no broker {name}", fix=f"brokers are {', '.join(map(str, nodes))}")
        return read(client.ask(client.connection(int(name)), api_key, request))

    return client.retrying(api_key.name.lower(), attempt)
