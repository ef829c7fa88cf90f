"""Configs of single consumer groups (KIP-848): what is set on a group, over the broker's option.

    resource_configs    consumer.session.timeout.ms = 50000           set on the group                 source 8
    BrokerConfig        group.consumer.session.timeout.ms = 45000     set at the start, or built in    source 4, 5

Source: Kafka's GroupConfig (4.3), without what share groups and Streams groups have there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tailrace.broker.cluster_store import ClusterStore
from tailrace.broker.config import OPTIONS, BrokerConfig
from tailrace.broker.config_entries import SET_ON_GROUP, ConfigEntry, Synonym, read_number, start_entry
from tailrace.broker.coordinator.consumer_group.coordinator import Timings
from tailrace.broker.log import LogError
from tailrace.broker.options import ConfigType
from tailrace.broker.protocol.errors import ErrorCode

GROUP = 32
_SESSION, _HEARTBEAT = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"


@dataclass(frozen=True, slots=True)
class _GroupOption:
    """The broker's options that give a group's config its default and its bounds."""

    default: str
    least: str
    most: str


_GROUP_OPTIONS = {
    name: _GroupOption(f"group.{name}", *(f"group.consumer.{bound}.{rest}" for bound in ("min", "max")))
    for name, rest in ((_SESSION, "session.timeout.ms"), (_HEARTBEAT, "heartbeat.interval.ms"))
}


class GroupConfigs:
    """A group need not exist to be configured, and keeps its configs when it is deleted, as in Kafka."""

    def __init__(self, config: BrokerConfig, store: ClusterStore) -> None:
        self._config = config
        self._store = store

    def of(self, group_id: str) -> Mapping[str, str]:
        """What is set on the group."""
        return self._store.configs(GROUP, group_id)

    def check(self, group_id: str, configs: Mapping[str, str]) -> None:
        """Raise LogError where `set` would, in Kafka's words: INVALID_REQUEST, INVALID_CONFIG."""
        if not group_id:
            raise LogError(ErrorCode.INVALID_REQUEST, "Default group resources are not allowed.")
        values = {name: self._option(option.default) for name, option in _GROUP_OPTIONS.items()}
        for name, text in configs.items():
            option = _GROUP_OPTIONS.get(name)
            if option is None:
                raise LogError(
                    ErrorCode.INVALID_CONFIG,
                    f"Unknown group config name: {name}",
                    fix=f"Known are {', '.join(_GROUP_OPTIONS)}",
                )
            values[name] = value = read_number(name, text, least=1)
            if value < self._option(option.least):
                raise _out_of_bounds(f"{name} must be greater than or equal to {option.least}")
            if value > self._option(option.most):
                raise _out_of_bounds(f"{name} must be less than or equal to {option.most}")
        if values[_SESSION] <= values[_HEARTBEAT]:
            raise _out_of_bounds(f"{_SESSION} must be greater than {_HEARTBEAT}")

    def set(self, group_id: str, configs: Mapping[str, str]) -> None:
        """Replace what is set on the group; its members obey from their next heartbeat on."""
        self.check(group_id, configs)
        self._store.set_configs(GROUP, group_id, {name: text.strip() for name, text in configs.items()})

    def timings(self, group_id: str) -> Timings:
        """What the group's members obey; the broker's bounds may have changed since a value was set."""
        default = Timings(self._option(f"group.{_SESSION}"), self._option(f"group.{_HEARTBEAT}"))
        found = self.of(group_id)
        if not found:
            return default
        own = Timings(
            self._clamped(_SESSION, found) or default.session_timeout_ms,
            self._clamped(_HEARTBEAT, found) or default.heartbeat_interval_ms,
        )
        return own if own.session_timeout_ms > own.heartbeat_interval_ms else default

    def describe(self, group_id: str) -> list[ConfigEntry]:
        """Every config of the group.  Raises LogError: INVALID_REQUEST."""
        if not group_id:
            raise LogError(ErrorCode.INVALID_REQUEST, "Group name must not be empty")
        found = self.of(group_id)
        return [self._entry(name, option, found) for name, option in _GROUP_OPTIONS.items()]

    def _entry(self, name: str, option: _GroupOption, found: Mapping[str, str]) -> ConfigEntry:
        broker = OPTIONS[option.default]
        inherited = start_entry(broker.name, str(self._option(broker.name)), ConfigType.INT, broker)
        synonyms = inherited.synonyms
        if name in found:
            synonyms = (Synonym(name, found[name], SET_ON_GROUP), *synonyms)
        first = synonyms[0]
        return ConfigEntry(
            name,
            first.value,
            first.source,
            ConfigType.INT,
            read_only=False,
            documentation=broker.documentation,
            synonyms=synonyms,
        )

    def _option(self, name: str) -> int:
        value: int = getattr(self._config, OPTIONS[name].field)
        return value

    def _clamped(self, name: str, found: Mapping[str, str]) -> int | None:
        if name not in found:
            return None
        option = _GROUP_OPTIONS[name]
        return max(self._option(option.least), min(int(found[name]), self._option(option.most)))


def _out_of_bounds(rule: str) -> LogError:
    return LogError(ErrorCode.INVALID_CONFIG, rule)
