"""The configuration that one partition's log obeys: Kafka's topic configs, parsed."""

from dataclasses import dataclass

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
