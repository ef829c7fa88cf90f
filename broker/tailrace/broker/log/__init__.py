"""The durable log: partitions of Kafka segments, group commit, recovery, retention.

    LogManager --< PartitionLog --< Segment (.log .index .timeindex .txnindex)
         |              `-- ProducerStates (.snapshot, .checked), LeaderEpochs (leader-epoch-checkpoint)
         `-- Flusher: one fdatasync per dirty file and round, then the high watermark moves

Everything runs on the event loop's thread, except what is handed to worker threads by name: fdatasync
where it takes long (`Syncer`), unlinking, checkpoints and compaction's rewriting (`LogManager.maintain`),
and the start, which recovers partitions side by side.

Durability: `append` returns when the bytes are with the kernel; a record is acknowledged only after
`Flusher.wait_durable`, and no consumer sees it earlier.
"""

from tailrace.broker.log import checked, manager, partition, recovery, swap, sync
from tailrace.broker.log.clock import Clock, SystemClock
from tailrace.broker.log.config import TopicConfig
from tailrace.broker.log.errors import DamagedLogError, LogError, StorageFailure
from tailrace.broker.log.flusher import Flusher
from tailrace.broker.log.manager import LogManager, PartitionSpec
from tailrace.broker.log.partition import AppendResult, PartitionLog

CRASH_POINTS = (
    *partition.CRASH_POINTS,
    *sync.CRASH_POINTS,
    *manager.CRASH_POINTS,
    *checked.CRASH_POINTS,
    *recovery.CRASH_POINTS,
    *swap.CRASH_POINTS,
)

__all__ = [
    "CRASH_POINTS",
    "AppendResult",
    "Clock",
    "DamagedLogError",
    "Flusher",
    "LogError",
    "LogManager",
    "PartitionLog",
    "PartitionSpec",
    "StorageFailure",
    "SystemClock",
    "TopicConfig",
]
