"""Kafka's topic configs by name: default, type, server-wide synonym, and what each text means.

Every config of Kafka 4.3 is here.  One that this broker cannot obey has a single value, the one that holds:
it is described as read-only, and setting it to anything else is refused.
Source: https://kafka.apache.org/documentation/#topicconfigs, ServerTopicConfigSynonyms, LogConfig.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tailrace.broker.options import ConfigType
from tailrace.broker.records.compression import Codec

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
INT, LONG = 0x7FFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF

_MIN_SEGMENT_BYTES = 1024

_Read = Callable[[str], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class TopicOption:
    """One topic config; `read` raises ValueError with the rule that a text breaks.

    synonym  the broker config that gives the default for all topics; empty: there is none.
    fixed    its only value is the default.
    """

    name: str
    config_type: ConfigType
    default: str
    documentation: str
    read: _Read
    synonym: str = ""
    fixed: bool = False


def _number(field: str, low: int, high: int) -> _Read:
    def read(text: str) -> Mapping[str, object]:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"is not between {low} and {high}")
        return {field: value}

    return read


def _bound_that_holds(high: int) -> _Read:
    """A promise that is kept whatever its value: everything is flushed before it is acknowledged."""
    check = _number("", 0, high)

    def read(text: str) -> Mapping[str, object]:
        check(text)
        return {}

    return read


def _share(field: str) -> _Read:
    def read(text: str) -> Mapping[str, object]:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("is not a number") from None
        if not 0 <= value <= 1:
            raise ValueError("is not between 0 and 1")
        return {field: value}

    return read


def _gzip_level(text: str) -> Mapping[str, object]:
    fields = _number("gzip_level", -1, 9)(text)
    if fields["gzip_level"] == 0:
        raise ValueError("is not between 1 and 9, or -1")
    return fields


def _cleanup_policy(text: str) -> Mapping[str, object]:
    policies = {policy.strip() for policy in text.split(",")} if text.strip() else set()
    if not policies <= {"compact", "delete"}:
        raise ValueError("is not compact, delete, both, or empty")
    return {"compact": "compact" in policies, "delete": "delete" in policies}


def _timestamp_type(text: str) -> Mapping[str, object]:
    if text not in ("CreateTime", "LogAppendTime"):
        raise ValueError("is neither CreateTime nor LogAppendTime")
    return {"log_append_time": text == "LogAppendTime"}


_CODECS = {
    "producer": None,
    "uncompressed": Codec.NONE,
    "gzip": Codec.GZIP,
    "snappy": Codec.SNAPPY,
    "lz4": Codec.LZ4,
    "zstd": Codec.ZSTD,
}


def _compression(text: str) -> Mapping[str, object]:
    if text not in _CODECS:
        raise ValueError(f"is none of {', '.join(_CODECS)}")
    return {"codec": _CODECS[text]}


def _only(value: str, why: str) -> _Read:
    def read(text: str) -> Mapping[str, object]:
        if text.strip().lower() != value:
            raise ValueError(f"cannot be obeyed: it is {value or 'empty'} here, because {why}")
        return {}

    return read


def _fixed(name: str, config_type: ConfigType, value: str, why: str, synonym: str = "") -> TopicOption:
    documentation = f"Always {value or 'empty'}: {why}."
    return TopicOption(name, config_type, value, documentation, _only(value, why), synonym, fixed=True)


_INT, _LONG, _LIST, _TEXT = ConfigType.INT, ConfigType.LONG, ConfigType.LIST, ConfigType.STRING
_BOOLEAN, _DOUBLE = ConfigType.BOOLEAN, ConfigType.DOUBLE
_ONE_REPLICA = "there is one broker, and so one replica"
_NOT_TIERED = "logs are kept on this broker's disk only"
_FLUSHED = "Flushed at the latest: this broker flushes before it acknowledges, so any bound is kept."

_OBEYED = (
    TopicOption(
        "cleanup.policy",
        _LIST,
        "delete",
        "delete: old segments go; compact: the latest record of every key stays; both; empty: all stays.",
        _cleanup_policy,
        "log.cleanup.policy",
    ),
    TopicOption(
        "compression.gzip.level",
        _INT,
        "-1",
        "Level of gzip where compression.type is gzip: 1 to 9, or -1 for zlib's own choice.",
        _gzip_level,
        "compression.gzip.level",
    ),
    TopicOption(
        "compression.lz4.level",
        _INT,
        "9",
        "Level of lz4 where compression.type is lz4.",
        _number("lz4_level", 1, 17),
        "compression.lz4.level",
    ),
    TopicOption(
        "compression.type",
        _TEXT,
        "producer",
        "producer: batches are stored as they were sent; else the broker compresses them again.",
        _compression,
        "compression.type",
    ),
    TopicOption(
        "compression.zstd.level",
        _INT,
        "3",
        "Level of zstd where compression.type is zstd.",
        _number("zstd_level", -131_072, 22),
        "compression.zstd.level",
    ),
    TopicOption(
        "delete.retention.ms",
        _LONG,
        str(DAY_MS),
        "How long compaction keeps tombstones and markers of transactions.",
        _number("delete_retention_ms", 0, LONG),
        "log.cleaner.delete.retention.ms",
    ),
    TopicOption(
        "file.delete.delay.ms",
        _LONG,
        "0",
        "How long the files of a segment that was given up stay on the disk.",
        _number("file_delete_delay_ms", 0, LONG),
        "log.segment.delete.delay.ms",
    ),
    TopicOption(
        "flush.messages",
        _LONG,
        str(LONG),
        _FLUSHED,
        _bound_that_holds(LONG),
        "log.flush.interval.messages",
    ),
    TopicOption("flush.ms", _LONG, str(LONG), _FLUSHED, _bound_that_holds(LONG), "log.flush.interval.ms"),
    TopicOption(
        "max.compaction.lag.ms",
        _LONG,
        str(LONG),
        "A record this old is compacted however little of the log is dirty.",
        _number("max_compaction_lag_ms", 1, LONG),
        "log.cleaner.max.compaction.lag.ms",
    ),
    TopicOption(
        "max.message.bytes",
        _INT,
        "1048588",
        "Largest record batch that is accepted.",
        _number("max_message_bytes", 0, INT),
        "message.max.bytes",
    ),
    TopicOption(
        "message.timestamp.after.max.ms",
        _LONG,
        str(HOUR_MS),
        "How far a record's timestamp may be ahead of the broker's clock (CreateTime only).",
        _number("timestamp_after_max_ms", 0, LONG),
        "log.message.timestamp.after.max.ms",
    ),
    TopicOption(
        "message.timestamp.before.max.ms",
        _LONG,
        str(LONG),
        "How far a record's timestamp may be behind the broker's clock (CreateTime only).",
        _number("timestamp_before_max_ms", 0, LONG),
        "log.message.timestamp.before.max.ms",
    ),
    TopicOption(
        "message.timestamp.type",
        _TEXT,
        "CreateTime",
        "CreateTime: the producer's timestamps; LogAppendTime: the broker's.",
        _timestamp_type,
        "log.message.timestamp.type",
    ),
    TopicOption(
        "min.cleanable.dirty.ratio",
        _DOUBLE,
        "0.5",
        "Share of the log that must have been written since the last compaction before the next one.",
        _share("min_cleanable_dirty_ratio"),
        "log.cleaner.min.cleanable.ratio",
    ),
    TopicOption(
        "min.compaction.lag.ms",
        _LONG,
        "0",
        "How long a record stays as it was written before compaction may touch it.",
        _number("min_compaction_lag_ms", 0, LONG),
        "log.cleaner.min.compaction.lag.ms",
    ),
    TopicOption(
        "retention.bytes",
        _LONG,
        "-1",
        "Bytes that a partition keeps; -1: no limit.",
        _number("retention_bytes", -1, LONG),
        "log.retention.bytes",
    ),
    TopicOption(
        "retention.ms",
        _LONG,
        str(7 * DAY_MS),
        "Milliseconds that a record is kept; -1: for ever.",
        _number("retention_ms", -1, LONG),
        "log.retention.ms",
    ),
    TopicOption(
        "segment.bytes",
        _INT,
        str(1 << 30),
        "Size at which a new segment begins.",
        _number("segment_bytes", _MIN_SEGMENT_BYTES, INT),
        "log.segment.bytes",
    ),
    TopicOption(
        "segment.index.bytes",
        _INT,
        str(10 << 20),
        "Size of a segment's offset index at which a new segment begins.",
        _number("segment_index_bytes", 4, INT),
        "log.index.size.max.bytes",
    ),
    TopicOption(
        "segment.ms",
        _LONG,
        str(7 * DAY_MS),
        "Age at which a new segment begins.",
        _number("segment_ms", 1, LONG),
        "log.roll.ms",
    ),
)
_HELD = (
    _fixed("follower.replication.throttled.replicas", _LIST, "", _ONE_REPLICA),
    _fixed(
        "index.interval.bytes",
        _INT,
        "4096",
        "the distance of index entries is built in",
        "log.index.interval.bytes",
    ),
    _fixed("leader.replication.throttled.replicas", _LIST, "", _ONE_REPLICA),
    _fixed("local.retention.bytes", _LONG, "-2", _NOT_TIERED, "log.local.retention.bytes"),
    _fixed("local.retention.ms", _LONG, "-2", _NOT_TIERED, "log.local.retention.ms"),
    _fixed("min.insync.replicas", _INT, "1", _ONE_REPLICA, "min.insync.replicas"),
    _fixed("preallocate", _BOOLEAN, "false", "segments grow as they are written", "log.preallocate"),
    _fixed("remote.log.copy.disable", _BOOLEAN, "false", _NOT_TIERED),
    _fixed("remote.log.delete.on.disable", _BOOLEAN, "false", _NOT_TIERED),
    _fixed("remote.storage.enable", _BOOLEAN, "false", _NOT_TIERED),
    _fixed("segment.jitter.ms", _LONG, "0", "segments begin exactly when they are due", "log.roll.jitter.ms"),
    _fixed(
        "unclean.leader.election.enable", _BOOLEAN, "false", _ONE_REPLICA, "unclean.leader.election.enable"
    ),
)

TOPIC_OPTIONS: Mapping[str, TopicOption] = {
    option.name: option for option in sorted((*_OBEYED, *_HELD), key=lambda option: option.name)
}
"""By name."""

BROKER_DEFAULTS: Mapping[str, TopicOption] = {
    option.synonym: option for option in TOPIC_OPTIONS.values() if option.synonym
}
"""By the broker config that gives their default."""
