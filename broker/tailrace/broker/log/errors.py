"""What the log layer raises: answers for one request, and the failure that ends the process."""

from enum import IntEnum

from tailrace.changes.errors import TailraceError


class ErrorCode(IntEnum):
    """The Kafka error codes that the log layer answers with."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    INVALID_TOPIC_EXCEPTION = 17
    INVALID_TIMESTAMP = 32
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_CONFIG = 40
    INVALID_REQUEST = 42
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    TRANSACTION_COORDINATOR_FENCED = 52
    KAFKA_STORAGE_ERROR = 56
    INVALID_RECORD = 87
    UNKNOWN_TOPIC_ID = 100


class LogError(TailraceError):
    """One request is refused; `code` is what the client is told.  The log is unchanged."""

    def __init__(self, code: ErrorCode, what: str, *, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.code = code


class StorageFailure(TailraceError):
    """fsync failed: what the disk holds is unknown, so the process must exit and recover on restart.

    A second fsync may succeed without the lost pages (PostgreSQL's fsync finding of 2018): never retry.
    """
