"""One blocking connection to one broker: frames out, frames in, in order.

Requests may be pipelined: `send` several, then `receive` their answers in the same order.  Any failure
leaves the connection closed, and what had been sent may or may not have happened.
"""

import socket
from collections import deque
from typing import Any

from tailrace.broker.client.errors import BrokerError, RetryableError
from tailrace.broker.client.partition import Address
from tailrace.broker.protocol import (
    APIS,
    ApiKey,
    ErrorCode,
    MalformedMessageError,
    decode_response,
    encode_request,
)
from tailrace.broker.protocol.messages import ApiVersionsRequest

_PIECES_PER_CALL = 512
_HANDSHAKE_VERSION = 3
_LARGEST_FRAME = 1 << 30

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
# Below these, a request cannot say what must be said: an expected epoch (KIP-360), stable offsets (KIP-447).
_OLDEST = {ApiKey.INIT_PRODUCER_ID: 3, ApiKey.OFFSET_FETCH: 7}


class Connection:
    """A TCP connection with its negotiated versions (KIP-35).  Not thread-safe, but for `shutdown`."""

    def __init__(self, address: Address, *, client_id: str, timeout_s: float) -> None:
        """Connect and negotiate.  Raises RetryableError when the broker cannot be reached."""
        self.address = address
        self._client_id = client_id
        self._timeout_s = timeout_s
        self._correlation_id = 0
        self._pending: deque[tuple[int, ApiKey, int]] = deque()
        self._ranges: dict[int, tuple[int, int]] = {}
        try:
            self._socket = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            raise RetryableError(f"broker {address} cannot be reached: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._negotiate()

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
        return len(self._pending)

    def request(self, api_key: ApiKey, request: Any, *, wait_s: float = 0.0) -> Any:
        """Send one request and return its response; `wait_s` is how long the broker may hold it."""
        self.send(api_key, request)
        return self.receive(wait_s=wait_s)

    def send(self, api_key: ApiKey, request: Any) -> None:
        """Send a request whose response `receive` will return."""
        version = self.version_of(api_key)
        self._correlation_id = (self._correlation_id + 1) & 0x7FFF_FFFF
        parts = encode_request(api_key, version, self._correlation_id, self._client_id, request)
        self._pending.append((self._correlation_id, api_key, version))
        try:
            self._socket.settimeout(self._timeout_s)
            self._send_all([memoryview(part) for part in parts])
        except OSError as error:
            raise self._lost(error) from error
        except BaseException:
            self.close()
            raise

    def receive(self, *, wait_s: float = 0.0) -> Any:
        """The response to the oldest request that has none; its record batches are views of a buffer of its own."""
        expected, api_key, version = self._pending.popleft()
        try:
            self._socket.settimeout(self._timeout_s + wait_s)
            frame = self._receive_frame()
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

    def shutdown(self) -> None:
        """End the connection under a call that blocks; the one method for other threads and signal handlers."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        """Close; unanswered requests stay unanswered."""
        self._socket.close()

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
            self._send_all([memoryview(part) for part in parts])
            frame = self._receive_frame()
            # a broker that does not know the version answers in version 0, error first (KIP-511)
            if version and frame[4:6] == ErrorCode.UNSUPPORTED_VERSION.to_bytes(2, "big"):
                version = 0
            return decode_response(ApiKey.API_VERSIONS, version, frame)[1]
        except (OSError, MalformedMessageError) as error:
            raise self._lost(error) from error
        except BaseException:
            self.close()
            raise

    def _send_all(self, pieces: list[memoryview]) -> None:
        while pieces:
            sent = self._socket.sendmsg(pieces[:_PIECES_PER_CALL])
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = pieces[0][sent:]

    def _receive_frame(self) -> bytearray:
        size = int.from_bytes(self._receive_exactly(4), "big")
        if size > _LARGEST_FRAME:
            raise BrokerError(
                f"what listens at {self.address} does not speak the Kafka protocol",
                error=ErrorCode.NETWORK_EXCEPTION,
                fix="check the port",
            )
        return self._receive_exactly(size)

    def _receive_exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            received = self._socket.recv_into(view)
            if received == 0:
                raise ConnectionError("the broker closed the connection")
            view = view[received:]
        return buffer

    def _lost(self, error: Exception) -> RetryableError:
        self.close()
        self._pending.clear()
        return RetryableError(f"connection to broker {self.address} lost: {error}")
