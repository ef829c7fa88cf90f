"""The configuration that one partition's log obeys: Kafka's topic configs, their defaults and checks.

A name or a value that would not be obeyed is refused, never stored and forgotten.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from tailrace.broker.log.errors import LogError
from tailrace.broker.protocol.errors import ErrorCode

DAY_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Effective configuration of a topic's logs; -1 stands for "no limit" as in Kafka."""

    compact: bool = False  # cleanup.policy
    delete: bool = True
    retention_ms: int = 7 * DAY_MS
    retention_bytes: int = -1
    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * DAY_MS
    min_compaction_lag_ms: int = 0
    delete_retention_ms: int = DAY_MS
    max_message_bytes: int = 1_048_588
    log_append_time: bool = False  # message.timestamp.type


class ConfigType(IntEnum):
    """Types of DescribeConfigs."""

    STRING = 2
    INT = 3
    LONG = 5
    LIST = 7


@dataclass(frozen=True, slots=True)
class TopicOption:
    """One topic config: its default as text, and `read`, which raises ValueError with the rule it breaks."""

    name: str
    config_type: ConfigType
    default: str
    documentation: str
    read: Callable[[str], Mapping[str, object]]


def _number(field: str, low: int, high: int) -> Callable[[str], Mapping[str, object]]:
    def read(text: str) -> Mapping[str, object]:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"is not between {low} and {high}")
        return {field: value}

    return read


def _cleanup_policy(text: str) -> Mapping[str, object]:
    policies = {policy.strip() for policy in text.split(",")}
    if not policies <= {"compact", "delete"}:
        raise ValueError("is not compact, delete, or both")
    return {"compact": "compact" in policies, "delete": "delete" in policies}


def _timestamp_type(text: str) -> Mapping[str, object]:
    if text not in ("CreateTime", "LogAppendTime"):
        raise ValueError("is neither CreateTime nor LogAppendTime")
    return {"log_append_time": text == "LogAppendTime"}


def _compression(text: str) -> Mapping[str, object]:
    if text != "producer":
        raise ValueError("is not producer: batches are stored as they were sent")
    return {}


_INT, _LONG = 0x7FFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF
_MIN_SEGMENT_BYTES = 1024

TOPIC_OPTIONS: Mapping[str, TopicOption] = {
    option.name: option
    for option in (
        TopicOption(
            "cleanup.policy",
            ConfigType.LIST,
            "delete",
            "delete: old segments go; compact: the latest record of every key stays; or both.",
            _cleanup_policy,
        ),
        TopicOption(
            "compression.type",
            ConfigType.STRING,
            "producer",
            "Batches are stored with the producer's compression.",
            _compression,
        ),
        TopicOption(
            "delete.retention.ms",
            ConfigType.LONG,
            str(DAY_MS),
            "How long compaction keeps tombstones.",
            _number("delete_retention_ms", 0, _LONG),
        ),
        TopicOption(
            "max.message.bytes",
            ConfigType.INT,
            "1048588",
            "Largest record batch that is accepted.",
            _number("max_message_bytes", 0, _INT),
        ),
        TopicOption(
            "message.timestamp.type",
            ConfigType.STRING,
            "CreateTime",
            "CreateTime: the producer's timestamps; LogAppendTime: the broker's.",
            _timestamp_type,
        ),
        TopicOption(
            "min.compaction.lag.ms",
            ConfigType.LONG,
            "0",
            "How long a record stays as it was written before compaction may touch it.",
            _number("min_compaction_lag_ms", 0, _LONG),
        ),
        TopicOption(
            "retention.bytes",
            ConfigType.LONG,
            "-1",
            "Bytes that a partition keeps; -1: no limit.",
            _number("retention_bytes", -1, _LONG),
        ),
        TopicOption(
            "retention.ms",
            ConfigType.LONG,
            str(7 * DAY_MS),
            "Milliseconds that a record is kept; -1: for ever.",
            _number("retention_ms", -1, _LONG),
        ),
        TopicOption(
            "segment.bytes",
            ConfigType.INT,
            str(1 << 30),
            "Size at which a new segment begins.",
            _number("segment_bytes", _MIN_SEGMENT_BYTES, _INT),
        ),
        TopicOption(
            "segment.ms",
            ConfigType.LONG,
            str(7 * DAY_MS),
            "Age at which a new segment begins.",
            _number("segment_ms", 1, _LONG),
        ),
    )
}


def read_topic_config(configs: Mapping[str, str]) -> TopicConfig:
    """What `configs` and the defaults amount to.  Raises LogError: INVALID_CONFIG."""
    fields: dict[str, object] = {}
    for name, text in configs.items():
        option = TOPIC_OPTIONS.get(name)
        if option is None:
            raise LogError(
                ErrorCode.INVALID_CONFIG,
                f"this broker has no topic config {name}",
                fix=f"Known are {', '.join(TOPIC_OPTIONS)}",
            )
        try:
            fields.update(option.read(text))
        except ValueError as error:
            raise LogError(ErrorCode.INVALID_CONFIG, f"topic config {name}={text} {error}") from None
    return TopicConfig(**fields)  # type: ignore[arg-type]
