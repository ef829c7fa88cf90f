"""What a topic's configs amount to: what is set on it, over the broker's dynamic defaults, over Kafka's.

    topic_configs     retention.ms = 5        set on the topic                              source 1
    broker_configs    log.retention.ms = 7    set on this broker, or on all brokers ("")    source 2, 3
    TOPIC_OPTIONS     604800000               built in                                      source 5

Source: KIP-226 (dynamic broker configs).
"""

import sqlite3
from collections.abc import Mapping

from tailrace.broker.config_entries import (
    ALL_BROKERS,
    DEFAULT,
    SET_ON_ALL_BROKERS,
    SET_ON_BROKER,
    SET_ON_TOPIC,
    ConfigEntry,
    Synonym,
)
from tailrace.broker.kerberos_options import KERBEROS_OPTIONS
from tailrace.broker.log import LogError, TopicConfig
from tailrace.broker.log.config import read_option, read_topic_config
from tailrace.broker.log.topic_options import BROKER_DEFAULTS, TOPIC_OPTIONS, TopicOption
from tailrace.broker.protocol.errors import ErrorCode

_DYNAMIC: Mapping[str, TopicOption] = {**BROKER_DEFAULTS, **KERBEROS_OPTIONS}
_MIN_REPLICAS = "min.insync.replicas"
SCHEMA = """
CREATE TABLE IF NOT EXISTS broker_configs (
    broker TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (broker, name)
) STRICT, WITHOUT ROWID;
"""


class BrokerDefaults:
    """The dynamic broker configs: defaults for the configs of all topics, by their server-wide names."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(SCHEMA)
        self._set: dict[str, dict[str, str]] = {}
        for broker, name, value in db.execute("SELECT broker, name, value FROM broker_configs"):
            self._set.setdefault(broker, {})[name] = value
        self._in_force = self.overlaid(None, {})

    def of(self, broker: str) -> Mapping[str, str]:
        """What is set on one broker, or on ALL_BROKERS."""
        return dict(self._set.get(broker, {}))

    def check(self, configs: Mapping[str, str]) -> None:
        """Raise INVALID_CONFIG for a name that is not dynamic, or a value that would not be obeyed."""
        for name, text in configs.items():
            option = _DYNAMIC.get(name)
            if option is None:
                raise LogError(
                    ErrorCode.INVALID_CONFIG,
                    f"the broker config {name} cannot be changed while the broker runs",
                    fix=f"Dynamic are {', '.join(_DYNAMIC)}; others are set at the start",
                )
            read_option(option, name, text)

    def overlaid(self, broker: str | None, configs: Mapping[str, str]) -> dict[str, str]:
        """The defaults by topic config, as they would be with `configs` set on `broker`."""
        brokers = {**self._set} if broker is None else {**self._set, broker: dict(configs)}
        found: dict[str, str] = {}
        for one in sorted(brokers):  # "" first: a single broker's own value goes over that of all
            for name in brokers[one].keys() & BROKER_DEFAULTS.keys():
                found[BROKER_DEFAULTS[name].name] = brokers[one][name]
        return found

    def write(self, broker: str, configs: Mapping[str, str]) -> None:
        """Replace what is set on `broker`; inside a transaction of the database.  `adopt` must follow."""
        self._db.execute("DELETE FROM broker_configs WHERE broker = ?", (broker,))
        self._db.executemany(
            "INSERT INTO broker_configs VALUES (?, ?, ?)",
            [(broker, name, value) for name, value in configs.items()],
        )

    def adopt(self, broker: str, configs: Mapping[str, str]) -> None:
        """What was written is committed."""
        self._set[broker] = dict(configs)
        self._in_force = self.overlaid(None, {})

    def config(self, configs: Mapping[str, str], *, internal: bool) -> TopicConfig:
        """What a topic with these configs obeys; internal topics know no defaults but Kafka's.

        Raises LogError: INVALID_CONFIG.
        """
        return read_topic_config(dict(configs) if internal else {**self._in_force, **configs})

    def describe_topic(self, configs: Mapping[str, str], *, internal: bool) -> list[ConfigEntry]:
        """Every topic config with its value and where that comes from."""
        return [_entry(option, configs, {} if internal else self._set) for option in TOPIC_OPTIONS.values()]

    def describe_broker(self, broker: str) -> list[ConfigEntry]:
        """What is set on ALL_BROKERS; of one broker every default for topics."""
        entries = []
        for name, option in _DYNAMIC.items():
            synonyms = _broker_synonyms(option, self._set)
            if broker == ALL_BROKERS:
                synonyms = [synonym for synonym in synonyms if synonym.source == SET_ON_ALL_BROKERS]
            if synonyms:
                entries.append(_described(name, option, synonyms))
        return entries


def _entry(
    option: TopicOption, configs: Mapping[str, str], brokers: Mapping[str, Mapping[str, str]]
) -> ConfigEntry:
    synonyms = _broker_synonyms(option, brokers) if option.synonym else []
    if option.name in configs:
        synonyms.insert(0, Synonym(option.name, configs[option.name], SET_ON_TOPIC))
    return _described(option.name, option, synonyms)


def _broker_synonyms(option: TopicOption, brokers: Mapping[str, Mapping[str, str]]) -> list[Synonym]:
    name = option.synonym
    found = [
        Synonym(name, brokers[one][name], SET_ON_ALL_BROKERS if one == ALL_BROKERS else SET_ON_BROKER)
        for one in sorted(brokers, reverse=True)
        if name in brokers[one]
    ]
    if name == _MIN_REPLICAS:  # a Kafka formatted anew sets it on all brokers (KIP-966), and tells so
        found.append(Synonym(name, option.default, SET_ON_ALL_BROKERS))
    return [*found, Synonym(name, option.default, DEFAULT)]


def _described(name: str, option: TopicOption, synonyms: list[Synonym]) -> ConfigEntry:
    value, source = (synonyms[0].value, synonyms[0].source) if synonyms else (option.default, DEFAULT)
    return ConfigEntry(
        name, value, source, option.config_type, option.fixed, option.documentation, tuple(synonyms)
    )
