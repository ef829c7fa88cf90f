"""One blocking connection to one broker: frames out, frames in, in order.

Requests may be pipelined: `send` several, then `receive` their answers in the same order.  Any failure
leaves the connection closed, and what had been sent may or may not have happened.  A login that ends (KIP-368)
is renewed in time, before the request that comes next.
"""

import math
import ssl
import time
from collections import deque
from typing import Any

from tailrace.broker.client.diagnosis import why_hung_up
from tailrace.broker.client.errors import BrokerError, RetryableError
from tailrace.broker.client.login import log_in
from tailrace.broker.client.partition import Address
from tailrace.broker.client.security import PLAINTEXT, ClientSecurity
from tailrace.broker.client.wire import Wire, as_views
from tailrace.broker.protocol import (
    APIS,
    ApiKey,
    ErrorCode,
    MalformedMessageError,
    decode_response,
    encode_request,
)
from tailrace.broker.protocol.messages import ApiVersionsRequest

_HANDSHAKE_VERSION = 3
_LARGEST_HANDSHAKE = 1 << 20
_RENEWED_AFTER = 0.85  # of the time that a login holds: Kafka's own clients take 0.85 to 0.95

# Above these, requests name topics by id (Fetch) or ask for several things at once; the client does neither.
_NEWEST = {
    ApiKey.FETCH: 12,
    ApiKey.FIND_COORDINATOR: 3,
    ApiKey.OFFSET_FETCH: 7,
    # the classic transaction protocol: newer ones raise the epoch (KIP-890) or name topics by id
    ApiKey.PRODUCE: 11,
    ApiKey.OFFSET_COMMIT: 9,
    ApiKey.END_TXN: 4,
    ApiKey.TXN_OFFSET_COMMIT: 4,
}
# Below these, a request cannot say what must be said: an expected epoch (KIP-360), stable offsets (KIP-447),
# that the messages of a login are requests of their own (KIP-152).
_OLDEST = {ApiKey.INIT_PRODUCER_ID: 3, ApiKey.OFFSET_FETCH: 7, ApiKey.SASL_HANDSHAKE: 1}


class Connection:
    """A connection that is logged in, with its negotiated versions (KIP-35).  Not thread-safe, but for `shutdown`."""

    def __init__(
        self, address: Address, *, client_id: str, timeout_s: float, security: ClientSecurity = PLAINTEXT
    ) -> None:
        """Connect, negotiate and log in.

        Raises RetryableError when the broker cannot be reached, LoginError when the options do not fit it.
        """
        self.address = address
        self._client_id = client_id
        self._timeout_s = timeout_s
        self._security = security
        self._correlation_id = 0
        self._pending: deque[tuple[int, ApiKey, int]] = deque()
        self._arrived: deque[Any] = deque()
        """Answers that came before a login was renewed, and that nobody has taken yet."""
        self._ranges: dict[int, tuple[int, int]] = {}
        self._is_proven = False
        """Whether anything but the handshake was answered: until then the options may not fit the listener."""
        self._renew_at = math.inf
        try:
            self._wire = Wire(address, security, timeout_s=timeout_s)
        except OSError as error:
            raise why_hung_up(address, security) or RetryableError(
                f"broker {address} cannot be reached by TLS: {error}"
            ) from error
        self._negotiate()
        if security.protocol.sasl:
            self._log_in()

    def version_of(self, api_key: ApiKey) -> int:
        """The newest version of an API that both sides speak.  Raises BrokerError where there is none."""
        served = APIS[api_key].served
        theirs = self._ranges.get(api_key, (0, -1))
        newest = min(_NEWEST.get(api_key, served.last), theirs[1])
        if newest < max(_OLDEST.get(api_key, served.first), theirs[0]):
            raise BrokerError(
                f"broker {self.address} speaks no version of {api_key.name} that this client speaks",
                error=ErrorCode.UNSUPPORTED_VERSION,
                fix="use Apache Kafka 2.5 or newer, or the built-in broker",
            )
        return newest

    @property
    def in_flight(self) -> int:
        """How many answers are still to be received."""
        return len(self._pending) + len(self._arrived)

    def request(self, api_key: ApiKey, request: Any, *, wait_s: float = 0.0) -> Any:
        """Send one request and return its response; `wait_s` is how long the broker may hold it."""
        self.send(api_key, request)
        return self.receive(wait_s=wait_s)

    def send(self, api_key: ApiKey, request: Any) -> None:
        """Send a request whose response `receive` will return."""
        if time.monotonic() >= self._renew_at:
            self._renew()
        self._send(api_key, request)

    def receive(self, *, wait_s: float = 0.0) -> Any:
        """The response to the oldest request that has none; its record batches are views of a buffer of its own."""
        if self._arrived:
            return self._arrived.popleft()
        response = self._receive(wait_s)
        self._is_proven = True
        return response

    def shutdown(self) -> None:
        """End the connection under a call that blocks; the one method for other threads and signal handlers."""
        self._wire.shutdown()

    def close(self) -> None:
        """Close; unanswered requests stay unanswered."""
        self._wire.close()

    def _send(self, api_key: ApiKey, request: Any) -> None:
        version = self.version_of(api_key)
        self._correlation_id = (self._correlation_id + 1) & 0x7FFF_FFFF
        parts = encode_request(api_key, version, self._correlation_id, self._client_id, request)
        self._pending.append((self._correlation_id, api_key, version))
        try:
            self._wire.send(as_views(parts), self._timeout_s)
        except OSError as error:
            raise self._lost(error) from error
        except BaseException:
            self.close()
            raise

    def _receive(self, wait_s: float) -> Any:
        expected, api_key, version = self._pending.popleft()
        try:
            frame = self._wire.receive(self._timeout_s + wait_s)
            correlation_id, response = decode_response(api_key, version, frame)
        except (OSError, MalformedMessageError) as error:
            raise self._lost(error) from error
        except BaseException:
            # part of an answer may be read: what follows on this connection makes no sense any more
            self.close()
            raise
        if correlation_id != expected:
            raise self._lost(ConnectionError(f"answer {correlation_id} came where {expected} was due"))
        return response

    def _log_in(self) -> None:
        def ask(api_key: ApiKey, request: Any) -> Any:
            self._send(api_key, request)
            return self._receive(0.0)

        started = time.monotonic()
        try:
            holds_s = log_in(self._security, self.address, ask, timeout_s=self._timeout_s)
        except BaseException:
            self.close()
            raise
        self._renew_at = started + holds_s * _RENEWED_AFTER if holds_s else math.inf

    def _renew(self) -> None:
        """Log in again: answers come in order, so those that are still due come first."""
        while self._pending:
            self._arrived.append(self._receive(self._timeout_s))
        self._log_in()

    def _negotiate(self) -> None:
        self._ranges = {ApiKey.API_VERSIONS: (0, _HANDSHAKE_VERSION)}
        response = self._ask_versions(_HANDSHAKE_VERSION)
        if response.error_code == ErrorCode.UNSUPPORTED_VERSION:
            response = self._ask_versions(0)
        if response.error_code != ErrorCode.NONE:
            self.close()
            error = ErrorCode.of(response.error_code)
            raise BrokerError(f"broker {self.address} answered ApiVersions with {error.name}", error=error)
        self._ranges = {entry.api_key: (entry.min_version, entry.max_version) for entry in response.api_keys}

    def _ask_versions(self, version: int) -> Any:
        request = ApiVersionsRequest(client_software_name="tailrace", client_software_version="0.1")
        parts = encode_request(ApiKey.API_VERSIONS, version, 0, self._client_id, request)
        try:
            self._wire.send(as_views(parts), self._timeout_s)
            frame = self._wire.receive(self._timeout_s, largest=_LARGEST_HANDSHAKE)
            # a broker that does not know the version answers in version 0, error first (KIP-511)
            if version and frame[4:6] == ErrorCode.UNSUPPORTED_VERSION.to_bytes(2, "big"):
                version = 0
            return decode_response(ApiKey.API_VERSIONS, version, frame)[1]
        except (OSError, MalformedMessageError) as error:
            raise self._lost(error) from error
        except BaseException:
            self.close()
            raise

    def _lost(self, error: Exception) -> Exception:
        """What to raise for an error of the connection, which is closed."""
        self.close()
        self._pending.clear()
        self._arrived.clear()
        if isinstance(error, ssl.SSLError):
            told = self._wire.explained(error)
            if told is not error:
                return told
        silent = isinstance(error, ConnectionError | ssl.SSLEOFError)
        if silent and not self._is_proven and not self._wire.was_shut:
            reason = why_hung_up(self.address, self._security)
            if reason is not None:
                return reason
        return RetryableError(f"connection to broker {self.address} lost: {error}")
