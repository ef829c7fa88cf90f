"""Which segments a log may give up (Kafka's UnifiedLog.deleteOldSegments)."""

from tailrace.broker.log.partition import PartitionLog


def expired_segments(log: PartitionLog, now_ms: int) -> int:
    """How many of the oldest segments are past retention or below the log start; never an open transaction.

    The newest segment counts too when all of its records are expired: the caller rolls before it deletes.
    """
    config, count, size, stable = log.config, 0, log.size, log.last_stable_offset
    for segment in log.segments:
        if segment.size == 0 or segment.next_offset > stable:
            break
        below_start = segment.next_offset <= log.log_start_offset
        newest = segment is log.segments[-1]
        too_old = (
            config.delete and config.retention_ms >= 0 and segment.latest_ms() + config.retention_ms < now_ms
        )
        too_much = config.delete and not newest and 0 <= config.retention_bytes <= size - segment.size
        if not (too_much or too_old or (below_start and not newest)):
            break
        count += 1
        size -= segment.size
    return count
