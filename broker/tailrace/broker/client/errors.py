"""What the client raises.

TailraceError
|-- BrokerError               a broker's answer that a retry cannot cure; `error` is Kafka's code
|-- BrokerUnavailableError    no usable answer until the deadline; names the address and the last reason
|-- LoginError                the options do not fit the listener, or the broker refuses the login; names the option
|-- InterruptedClientError    `Client.interrupt` was called
`-- FencedError               a newer producer owns the transactional id
"""

from tailrace.broker.protocol.errors import ErrorCode
from tailrace.changes.errors import ConfigError, TailraceError


class BrokerError(TailraceError):
    """A broker refused a request for good."""

    def __init__(self, what: str, *, error: ErrorCode, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.error = error


class BrokerUnavailableError(TailraceError):
    """No broker gave a usable answer in time."""

    retriable = True


class LoginError(ConfigError):
    """TLS or SASL did not come about, and a retry with the same options cannot help."""


class InterruptedClientError(TailraceError):
    """The process is stopping; the request that was under way may or may not have happened."""


class RetryableError(Exception):
    """One attempt failed in a way that a later one may not: a lost connection or a retriable error code."""

    def __init__(self, what: str, *, error: ErrorCode = ErrorCode.NETWORK_EXCEPTION) -> None:
        super().__init__(what)
        self.error = error


def raise_for(error_code: int, what: str) -> None:
    """Raise RetryableError or BrokerError for any code but NONE; `what` says what was asked of whom."""
    if error_code == ErrorCode.NONE:
        return
    error = ErrorCode.of(error_code)
    if error.retriable:
        raise RetryableError(f"{what}: {error.name}", error=error)
    raise BrokerError(f"{what}: the broker answered {error.name} ({error_code})", error=error)
