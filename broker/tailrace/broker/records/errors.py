"""What is wrong with a record batch, with the error code that a client is told."""

from tailrace.broker.protocol.errors import ErrorCode
from tailrace.changes.errors import TailraceError


class InvalidBatchError(TailraceError):
    """A record batch that must not be stored or read; `error` is Kafka's code for it."""

    def __init__(self, what: str, *, error: ErrorCode, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.error = error
