"""Subscriptions to clients' metrics (KIP-714): checked, kept and told, and pushed to nobody.

Kafka offers clients to push their metrics only where a plugin takes them; there is none here, so no client asks.

Source: Kafka's ClientMetricsConfigs (4.3).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tailrace.broker.cluster_store import ClusterStore
from tailrace.broker.config_entries import (
    DEFAULT,
    SET_ON_CLIENT_METRICS,
    ConfigEntry,
    Synonym,
    read_number,
)
from tailrace.broker.log import LogError
from tailrace.broker.options import ConfigType, items
from tailrace.broker.protocol.errors import ErrorCode

CLIENT_METRICS = 16
_INTERVAL, _MATCH, _METRICS = "interval.ms", "match", "metrics"
_LEAST_MS, _MOST_MS = 100, 3_600_000
_MATCHED = frozenset(
    {
        "client_instance_id",
        "client_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    }
)


@dataclass(frozen=True, slots=True)
class _Option:
    default: str
    config_type: ConfigType
    documentation: str


_OPTIONS = {
    _INTERVAL: _Option("300000", ConfigType.INT, "How often a client shall push its metrics."),
    _MATCH: _Option("", ConfigType.LIST, "Which clients are meant, as in client_id=shop.*; none: all."),
    _METRICS: _Option(
        "", ConfigType.LIST, "Prefixes of the metrics' names; *: all metrics; none: no metric."
    ),
}


class ClientMetrics:
    """Subscriptions by name."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    def of(self, name: str) -> Mapping[str, str]:
        """What is set on the subscription."""
        return self._store.configs(CLIENT_METRICS, name)

    def check(self, name: str, configs: Mapping[str, str]) -> None:
        """Raise LogError where `set` would, in Kafka's words: INVALID_REQUEST, INVALID_CONFIG."""
        if not name:
            raise LogError(ErrorCode.INVALID_REQUEST, "Subscription name can't be empty")
        for config, text in configs.items():
            if config not in _OPTIONS:
                raise LogError(ErrorCode.INVALID_REQUEST, f"Unknown client metrics configuration: {config}")
            if config == _INTERVAL:
                _check_interval(text)
            elif config == _MATCH:
                for pattern in items(text):
                    _check_pattern(pattern)

    def set(self, name: str, configs: Mapping[str, str]) -> None:
        """Replace what is set on the subscription; without anything it is gone."""
        self.check(name, configs)
        self._store.set_configs(CLIENT_METRICS, name, {key: text.strip() for key, text in configs.items()})

    def describe(self, name: str) -> list[ConfigEntry]:
        """Every config of the subscription.  Raises LogError: INVALID_REQUEST."""
        if not name:
            raise LogError(ErrorCode.INVALID_REQUEST, "Client metrics subscription name must not be empty")
        found = self.of(name)
        return [_entry(config, option, found.get(config)) for config, option in _OPTIONS.items()]


def _entry(name: str, option: _Option, value: str | None) -> ConfigEntry:
    kind, documentation = option.config_type, option.documentation
    if value is None:
        return ConfigEntry(name, option.default, DEFAULT, kind, False, documentation)
    own = (Synonym(name, value, SET_ON_CLIENT_METRICS),)
    return ConfigEntry(name, value, SET_ON_CLIENT_METRICS, kind, False, documentation, own)


def _check_interval(text: str) -> None:
    interval_ms = read_number(_INTERVAL, text)
    if not _LEAST_MS <= interval_ms <= _MOST_MS:
        raise LogError(
            ErrorCode.INVALID_REQUEST,
            f"Invalid value {text} for {_INTERVAL}, interval must be between {_LEAST_MS} and {_MOST_MS} (1 hour)",
        )


def _check_pattern(pattern: str) -> None:
    name, separator, expression = (part.strip() for part in pattern.partition("="))
    try:
        if separator and name in _MATCHED and expression and "=" not in expression:
            re.compile(expression)
            return
    except re.error:
        pass
    raise LogError(ErrorCode.INVALID_CONFIG, f"Illegal client matching pattern: {pattern}")
