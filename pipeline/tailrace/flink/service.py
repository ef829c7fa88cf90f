"""The Flink part: prepares the environment, starts the job, watches and restarts it."""

import threading

from tailrace.flink.config import FlinkPartConfig
from tailrace.flink.plan import PlannedTransform

CRASH_POINTS: tuple[str, ...] = ()


def run(config: FlinkPartConfig, stop: threading.Event) -> None:
    """Run the transforms until `stop` is set; raise TailraceError when a retry cannot help.

    Waits until every input topic has its subjects in the registry.  Results appear in the target topics
    exactly once for read_committed readers, through kills of any process, as long as the job is not down for
    longer than `transaction_timeout_s`.
    """
    raise NotImplementedError


def validate(config: FlinkPartConfig) -> tuple[PlannedTransform, ...]:
    """Plan every transform with Flink's own planner; ConfigError with file and line for what it refuses."""
    raise NotImplementedError
