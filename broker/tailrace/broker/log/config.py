"""The configuration that one partition's log obeys: Kafka's topic configs, their defaults and checks.

A name or a value that would not be obeyed is refused, never stored and forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tailrace.broker.log.errors import LogError
from tailrace.broker.log.topic_options import DAY_MS as DAY_MS
from tailrace.broker.log.topic_options import HOUR_MS, LONG, TOPIC_OPTIONS, TopicOption
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.compression import Codec


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Effective configuration of a topic's logs; -1 stands for "no limit" as in Kafka."""

    compact: bool = False  # cleanup.policy
    delete: bool = True
    retention_ms: int = 7 * DAY_MS
    retention_bytes: int = -1
    segment_bytes: int = 1 << 30
    segment_ms: int = 7 * DAY_MS  # of a compacted topic at most max.compaction.lag.ms
    segment_index_bytes: int = 10 << 20
    min_compaction_lag_ms: int = 0
    max_compaction_lag_ms: int = LONG
    min_cleanable_dirty_ratio: float = 0.5
    delete_retention_ms: int = DAY_MS
    file_delete_delay_ms: int = 0
    max_message_bytes: int = 1_048_588
    log_append_time: bool = False  # message.timestamp.type
    timestamp_before_max_ms: int = LONG
    timestamp_after_max_ms: int = HOUR_MS
    codec: Codec | None = None  # compression.type; None: as the producer sent it
    gzip_level: int = -1
    lz4_level: int = 9
    zstd_level: int = 3

    @property
    def reads_records(self) -> bool:
        """Whether the broker opens every batch that it is sent."""
        return self.compact or (self.timestamp_before_max_ms < LONG and not self.log_append_time)

    @property
    def compression_level(self) -> int | None:
        """Level of `codec`, None where it has none."""
        levels = {Codec.GZIP: self.gzip_level, Codec.LZ4: self.lz4_level, Codec.ZSTD: self.zstd_level}
        return None if self.codec is None else levels.get(self.codec)


def read_topic_config(configs: Mapping[str, str]) -> TopicConfig:
    """What `configs` and the defaults amount to.  Raises LogError: INVALID_CONFIG."""
    fields: dict[str, object] = {}
    for name, text in configs.items():
        fields.update(read_option(topic_option(name), name, text))
    config = TopicConfig(**fields)  # type: ignore[arg-type]
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms:
        raise LogError(
            ErrorCode.INVALID_CONFIG,
            f"min.compaction.lag.ms={config.min_compaction_lag_ms} is greater than "
            f"max.compaction.lag.ms={config.max_compaction_lag_ms}",
        )
    if config.compact and config.max_compaction_lag_ms < config.segment_ms:
        fields["segment_ms"] = config.max_compaction_lag_ms
        config = TopicConfig(**fields)  # type: ignore[arg-type]
    return config


def topic_option(name: str) -> TopicOption:
    """The option, or INVALID_CONFIG."""
    option = TOPIC_OPTIONS.get(name)
    if option is None:
        raise LogError(
            ErrorCode.INVALID_CONFIG,
            f"this broker has no topic config {name}",
            fix=f"Known are {', '.join(TOPIC_OPTIONS)}",
        )
    return option


def read_option(option: TopicOption, name: str, text: str) -> Mapping[str, object]:
    """The fields of TopicConfig that `text` stands for.  Raises LogError: INVALID_CONFIG, naming `name`."""
    try:
        return option.read(text)
    except ValueError as error:
        raise LogError(ErrorCode.INVALID_CONFIG, f"config {name}={text} {error}") from None
