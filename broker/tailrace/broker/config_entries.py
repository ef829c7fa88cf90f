"""One config as DescribeConfigs tells it: its value, and the places that could give it; and how a number is read.

Source: Kafka's DescribeConfigsResponse.ConfigSource.
"""

from dataclasses import MISSING, dataclass

from tailrace.broker.log import LogError
from tailrace.broker.options import ConfigType, Option, whole_number
from tailrace.broker.protocol.errors import ErrorCode

ALL_BROKERS = ""
SET_ON_TOPIC, SET_ON_BROKER, SET_ON_ALL_BROKERS, SET_AT_START, DEFAULT = range(1, 6)
SET_ON_LOGGER, SET_ON_CLIENT_METRICS, SET_ON_GROUP = 6, 7, 8


@dataclass(frozen=True, slots=True)
class Synonym:
    """One place that could give a config its value."""

    name: str
    value: str
    source: int


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One row of DescribeConfigs; `synonyms` begins with the place that decides."""

    name: str
    value: str
    source: int
    config_type: int
    read_only: bool
    documentation: str
    synonyms: tuple[Synonym, ...] = ()


def read_number(name: str, text: str, *, least: int | None = None) -> int:
    """The whole number that a config is set to.  Raises LogError: INVALID_CONFIG, in Kafka's words."""
    try:
        value = whole_number(text)
        if least is not None and value < least:
            raise ValueError(f"Value must be at least {least}")
    except ValueError as error:
        raise LogError(
            ErrorCode.INVALID_CONFIG, f"Invalid value {text} for configuration {name}: {error}"
        ) from None
    return value


def start_entry(name: str, value: str, config_type: ConfigType, option: Option | None) -> ConfigEntry:
    """A config that is set at the broker's start; without an option it has no other value."""
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
