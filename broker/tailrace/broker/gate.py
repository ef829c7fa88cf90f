"""What stands between a connection and the handlers beside the guards: the login first, and quotas."""

import time
from collections.abc import Callable
from typing import Any

from tailrace.broker.protocol import ApiKey, Buffer
from tailrace.broker.protocol.messages import FetchRequest, FetchResponse
from tailrace.security.principals import Principal
from tailrace.security.quotas import CONSUMER_BYTE_RATE, PRODUCER_BYTE_RATE, Quotas, most_in_window

LOGIN_APIS = frozenset({ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE})
"""What a client may ask before it has logged in."""

MOST_BEFORE_LOGIN = 512 << 10
"""Bytes of a frame before the login: Kafka's sasl.server.max.receive.size."""

_MS = 1000


class Meter:
    """Counts what a connection produces and consumes against the quotas of its user and client id."""

    def __init__(self, quotas: Quotas, now: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._now = now

    @property
    def active(self) -> bool:
        """Whether there is any quota at all."""
        return self._quotas.active

    def narrow(self, principal: Principal, client_id: str, request: FetchRequest) -> None:
        """Let one fetch take no more than fits into the quota's window."""
        limit = self._quotas.limit(CONSUMER_BYTE_RATE, principal.name, client_id)
        if limit is not None:
            request.max_bytes = min(request.max_bytes, most_in_window(limit))

    def encode(
        self,
        principal: Principal,
        client_id: str,
        api_key: ApiKey,
        request_size: int,
        answer: Any,
        encode: Callable[[Any], list[Buffer]],
    ) -> tuple[list[Buffer], float]:
        """The encoded answer, and for how many seconds the connection is to be muted.

        A fetch over its quota is answered without records: the client asks for them again when it may.  Records
        that are more than the quota by themselves go out when nothing else did lately, or they never would.
        """
        who = (principal.name, client_id)
        if api_key is ApiKey.PRODUCE:
            delay_s = self._quotas.record(PRODUCER_BYTE_RATE, *who, request_size, self._now())
            if answer is not None:
                answer.throttle_time_ms = int(delay_s * _MS)
            return encode(answer), delay_s
        parts = encode(answer)
        if api_key is not ApiKey.FETCH:
            return parts, 0.0
        size, now = sum(map(len, parts)), self._now()
        is_first = self._quotas.is_quiet(CONSUMER_BYTE_RATE, *who, now)
        delay_s = self._quotas.record(CONSUMER_BYTE_RATE, *who, size, now)
        if delay_s > 0 and is_first:
            answer.throttle_time_ms = int(delay_s * _MS)
            return encode(answer), delay_s
        if delay_s > 0:
            self._quotas.unrecord(CONSUMER_BYTE_RATE, *who, size, now)
            return encode(FetchResponse(throttle_time_ms=int(delay_s * _MS))), delay_s
        return parts, 0.0
