"""What can have configs, by resource type: topics, brokers, loggers, clients' metrics, groups."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tailrace.broker import loggers
from tailrace.broker.broker import Broker
from tailrace.broker.client_metrics import CLIENT_METRICS, ClientMetrics
from tailrace.broker.config import OPTIONS
from tailrace.broker.config_entries import ALL_BROKERS, ConfigEntry, start_entry
from tailrace.broker.group_configs import GROUP, GroupConfigs
from tailrace.broker.handlers.config_changes import DELETE, SET, changed, value_of
from tailrace.broker.log import LogError
from tailrace.broker.options import ConfigType
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import IncrementalAlterableConfig

TOPIC = 2
BROKER = 4
LOGGER = 8

Changes = Sequence[IncrementalAlterableConfig]


class Configurable(Protocol):
    """The resources of one type; each method is told which.  Raises LogError."""

    def describe(self, name: str) -> Sequence[ConfigEntry]:
        """Every config with its value and where it comes from."""
        ...

    def replace(self, name: str, configs: Mapping[str, str], *, validate_only: bool) -> None:
        """Set these configs and no others, or only check them."""
        ...

    def change(self, name: str, changes: Changes, *, validate_only: bool) -> None:
        """Set, delete, append or subtract, or only check that."""
        ...


def resources_of(broker: Broker, resource_type: int) -> Configurable:
    """The resources of a type, or INVALID_REQUEST."""
    made = _TYPES.get(resource_type)
    if made is None:
        raise LogError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {resource_type}")
    return made(broker)


class _Settings(ABC):
    """Resources whose configs are a table that is read, changed and put back as a whole."""

    @abstractmethod
    def _current(self, name: str) -> Mapping[str, str]:
        """What is set on a resource that clients may configure."""

    def _list_value(self, name: str, config: str) -> str | None:
        """The present value of a config that is a list, None for one that is none."""
        return None

    @abstractmethod
    def _check(self, name: str, configs: Mapping[str, str]) -> None:
        """Raise what `_put` would raise."""

    @abstractmethod
    def _put(self, name: str, configs: Mapping[str, str]) -> None: ...

    def replace(self, name: str, configs: Mapping[str, str], *, validate_only: bool) -> None:
        self._current(name)
        (self._check if validate_only else self._put)(name, configs)

    def change(self, name: str, changes: Changes, *, validate_only: bool) -> None:
        after = changed(self._current(name), changes, lambda config: self._list_value(name, config))
        (self._check if validate_only else self._put)(name, after)


class _Topics(_Settings):
    def __init__(self, broker: Broker) -> None:
        self._broker, self._topics = broker, broker.topics

    def describe(self, name: str) -> Sequence[ConfigEntry]:
        return self._topics.describe_configs(name)

    def _current(self, name: str) -> Mapping[str, str]:
        topic = self._topics.get(name)
        if topic.internal:
            raise LogError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{name} is internal")
        return topic.configs

    def _list_value(self, name: str, config: str) -> str | None:
        return _list_value_in(self._topics.describe_configs(name), config)

    def _check(self, name: str, configs: Mapping[str, str]) -> None:
        self._topics.check_configs(configs)

    def _put(self, name: str, configs: Mapping[str, str]) -> None:
        self._topics.set_configs(name, configs)
        self._broker.prepare_key_checks(name)


class _Brokers(_Settings):
    """The defaults for topics can be changed; other options are set at the start."""

    def __init__(self, broker: Broker) -> None:
        self._broker, self._topics = broker, broker.topics
        self._node = str(broker.config.node_id)

    def describe(self, name: str) -> Sequence[ConfigEntry]:
        self._check_name(name)
        dynamic = self._topics.describe_broker_configs(name)
        return dynamic if name == ALL_BROKERS else [*self._start_entries(), *dynamic]

    def _current(self, name: str) -> Mapping[str, str]:
        self._check_name(name)
        return self._topics.broker_configs(name)

    def _list_value(self, name: str, config: str) -> str | None:
        return _list_value_in(self._topics.describe_broker_configs(self._node), config)

    def _check(self, name: str, configs: Mapping[str, str]) -> None:
        self._topics.check_broker_configs(name, configs)

    def _put(self, name: str, configs: Mapping[str, str]) -> None:
        self._topics.set_broker_configs(name, configs)
        for topic in self._topics.all():
            self._broker.prepare_key_checks(topic.name)

    def _check_name(self, name: str) -> None:
        if name not in (ALL_BROKERS, self._node):
            raise LogError(ErrorCode.INVALID_REQUEST, f"the only broker is {self._node}, not {name!r}")

    def _start_entries(self) -> list[ConfigEntry]:
        entries = [
            start_entry(
                name, option.text(getattr(self._broker.config, option.field)), option.config_type, option
            )
            for name, option in OPTIONS.items()
        ]
        # one node has one replica of everything: tools ask for these before they make topics
        replicas = ("default.replication.factor", "offsets.topic.replication.factor")
        entries += [start_entry(name, "1", ConfigType.INT, None) for name in replicas]
        # gone from Kafka 4, but user interfaces still take the broker for an old one without it
        return [*entries, start_entry("inter.broker.protocol.version", "4.3-IV0", ConfigType.STRING, None)]


class _Stored(_Settings):
    """What keeps its configs itself: groups, subscriptions to clients' metrics."""

    def __init__(self, configs: GroupConfigs | ClientMetrics) -> None:
        self._configs = configs

    def describe(self, name: str) -> Sequence[ConfigEntry]:
        return self._configs.describe(name)

    def _current(self, name: str) -> Mapping[str, str]:
        return self._configs.of(name)

    def _check(self, name: str, configs: Mapping[str, str]) -> None:
        self._configs.check(name, configs)

    def _put(self, name: str, configs: Mapping[str, str]) -> None:
        self._configs.set(name, configs)


class _Loggers:
    """Levels hold until they are changed or the broker restarts, as in Kafka."""

    def __init__(self, broker: Broker) -> None:
        self._node = str(broker.config.node_id)

    def describe(self, name: str) -> Sequence[ConfigEntry]:
        self._check_name(name)
        return loggers.describe()

    def replace(self, name: str, configs: Mapping[str, str], *, validate_only: bool) -> None:
        raise LogError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {LOGGER}")  # Kafka's words

    def change(self, name: str, changes: Changes, *, validate_only: bool) -> None:
        self._check_name(name)
        levels: dict[str, str | None] = {}
        for change in changes:
            if change.config_operation not in (SET, DELETE):
                raise LogError(
                    ErrorCode.INVALID_REQUEST, "Levels of loggers are set and deleted, and nothing else"
                )
            levels[change.name] = value_of(change) if change.config_operation == SET else None
        loggers.check(levels)
        if not validate_only:
            loggers.set_levels(levels)

    def _check_name(self, name: str) -> None:
        if name != self._node:
            raise LogError(ErrorCode.INVALID_REQUEST, f"the only broker is {self._node}, not {name!r}")


_TYPES: dict[int, Callable[[Broker], Configurable]] = {
    TOPIC: _Topics,
    BROKER: _Brokers,
    LOGGER: _Loggers,
    CLIENT_METRICS: lambda broker: _Stored(broker.client_metrics),
    GROUP: lambda broker: _Stored(broker.group_configs),
}


def _list_value_in(entries: Sequence[ConfigEntry], config: str) -> str | None:
    return next(
        (entry.value for entry in entries if entry.name == config and entry.config_type == ConfigType.LIST),
        None,
    )
