"""What the log layer raises: answers for one request, and the failure that ends the process."""

from tailrace.broker.protocol.errors import ErrorCode
from tailrace.changes.errors import TailraceError


class LogError(TailraceError):
    """One request is refused; `code` is what the client is told.  The log is unchanged."""

    def __init__(self, code: ErrorCode, what: str, *, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.code = code


def storage_error(what: str, fix: str) -> LogError:
    """The broker's storage refuses something: clients try again."""
    return LogError(ErrorCode.KAFKA_STORAGE_ERROR, what, fix=fix)


class DamagedLogError(TailraceError):
    """Bytes that were durable are damaged: the partition stays offline, nothing is cut away silently."""


class StorageFailure(TailraceError):
    """fsync failed: what the disk holds is unknown, so the process must exit and recover on restart.

    A second fsync may succeed without the lost pages (PostgreSQL's fsync finding of 2018): never retry.
    """
