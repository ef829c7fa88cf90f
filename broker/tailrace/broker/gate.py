"""What stands between a connection and the handlers beside the guards: the login first, and quotas."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tailrace.broker.protocol import ApiKey, Buffer
from tailrace.broker.protocol.messages import FetchRequest, FetchResponse
from tailrace.security.quotas import (
    CONSUMER_BYTE_RATE,
    PRODUCER_BYTE_RATE,
    REQUEST_PERCENTAGE,
    Quotas,
    most_in_window,
)

LOGIN_APIS = frozenset({ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE})
"""What a client may ask before it has logged in."""

MOST_BEFORE_LOGIN = 512 << 10
"""Bytes of a frame before the login: Kafka's sasl.server.max.receive.size."""

LONGEST_CLIENT_ID = 255
"""Characters of a client id that tell clients apart: quotas remember no more of it."""

_HTTP = (b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"CONN", b"PRI ")

_MS = 1000
_MOST_FOR_TIME_S = 1.0  # Kafka mutes for at most one window of a request quota


def api_key_of(frame: Buffer) -> int:
    """The API key in a request that is not decoded yet; -1: it is too short to have one."""
    return frame[0] << 8 | frame[1] if len(frame) >= 2 else -1


def impossible_size(size: int, first: bytes, most_now: int, most: int) -> tuple[object, ...]:
    """What to log of a client whose frame says this size in its `first` bytes: a text, and what it is filled with."""
    if first[:2] == b"\x16\x03":
        return ("a TLS handshake, and this listener speaks plain text",)
    if first in _HTTP:
        return ("what looks like HTTP, and this listener speaks Kafka's protocol",)
    if most_now < most:
        return ("a frame of %d bytes before its login; at most %d then", size, most_now)
    return ("a frame of %d bytes; socket.request.max.bytes is %d", size, most)


class Meter:
    """Counts what a connection produces, consumes and keeps busy against the quotas of its user and client id."""

    def __init__(self, quotas: Quotas, now: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._now = now

    @property
    def active(self) -> bool:
        """Whether there is any quota at all."""
        return self._quotas.active

    def narrow(self, who: tuple[str, str], request: FetchRequest) -> None:
        """Let one fetch take no more than fits into the quota's window."""
        limit = self._quotas.limit(CONSUMER_BYTE_RATE, *who)
        if limit is not None:
            request.max_bytes = min(request.max_bytes, most_in_window(limit))

    def encode(
        self,
        who: tuple[str, str],
        api_key: ApiKey,
        cost: "Cost",
        answer: Any,
        encode: Callable[[Any], list[Buffer]],
    ) -> tuple[list[Buffer], float]:
        """The encoded answer, and for how many seconds the connection of `who` (user, client id) is to be muted.

        A fetch over its quota is answered without records: the client asks for them again when it may.  Records
        that are more than the quota by themselves go out when nothing else did lately, or they never would.
        """
        quotas, now = self._quotas, self._now()
        delay_s = quotas.record(REQUEST_PERCENTAGE, *who, cost.busy_s * 100, now)
        delay_s = min(delay_s, _MOST_FOR_TIME_S)
        if api_key is ApiKey.PRODUCE:
            delay_s = max(delay_s, quotas.record(PRODUCER_BYTE_RATE, *who, cost.size, now))
            return encode(_told(answer, delay_s)), delay_s
        if api_key is not ApiKey.FETCH:
            return encode(_told(answer, delay_s)), delay_s
        parts = encode(answer)
        size = sum(map(len, parts))
        is_first = quotas.is_quiet(CONSUMER_BYTE_RATE, *who, now)
        for_bytes_s = quotas.record(CONSUMER_BYTE_RATE, *who, size, now)
        delay_s = max(delay_s, for_bytes_s)
        if for_bytes_s > 0 and not is_first:
            quotas.unrecord(CONSUMER_BYTE_RATE, *who, size, now)
            answer = FetchResponse()
        return (encode(_told(answer, delay_s)) if delay_s > 0 else parts), delay_s


def _told(answer: Any, delay_s: float) -> Any:
    if delay_s > 0 and hasattr(answer, "throttle_time_ms"):
        answer.throttle_time_ms = int(delay_s * _MS)
    return answer


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request took: its bytes, and seconds of the event loop."""

    size: int
    busy_s: float
