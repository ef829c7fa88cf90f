"""Group commit: one fdatasync per dirty file and round, whoever waits."""

from collections.abc import Callable, Iterable

from tailrace.broker.log.errors import StorageFailure
from tailrace.broker.log.partition import PartitionLog


class Flusher:
    """Makes appended batches durable and then moves the high watermarks.

    `on_high_watermark(partition)` is called on the loop after each move (waiting fetches wake there).
    `on_failure(error)` is called once when fsync failed: the server must stop serving and exit.
    """

    def __init__(
        self,
        *,
        on_high_watermark: Callable[[PartitionLog], None],
        on_failure: Callable[[StorageFailure], None],
        threads: int = 4,
    ) -> None:
        raise NotImplementedError

    def request(self, partitions: Iterable[PartitionLog]) -> None:
        """Have these partitions flushed soon, without waiting (acks=0 and acks=1)."""
        raise NotImplementedError

    async def wait_durable(self, targets: Iterable[tuple[PartitionLog, int]]) -> None:
        """Return when each log is durable up to its offset (exclusive).  Raises StorageFailure."""
        raise NotImplementedError

    async def close(self) -> None:
        """Flush what is dirty and end the threads."""
        raise NotImplementedError
