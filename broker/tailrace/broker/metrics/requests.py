"""Requests by API, version and error, and how long each took (Kafka's RequestMetrics)."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from tailrace.broker.metrics.histogram import Histogram
from tailrace.broker.protocol import APIS, ApiKey
from tailrace.broker.protocol.fields import wire_fields

ErrorsOf = Callable[[Any], list[int]]


class RequestStats:
    """One version of one API; `without_error` counts answers in which no error code is set."""

    __slots__ = ("errors", "errors_of", "throttled_ms", "times", "without_error")

    def __init__(self, api_key: ApiKey) -> None:
        self.errors_of = errors_of(APIS[api_key].response)
        self.times = Histogram()
        self.without_error = 0
        self.errors: Counter[int] = Counter()
        self.throttled_ms = 0


class RequestMetrics:
    """All requests since the start of the process."""

    def __init__(self) -> None:
        self.stats: dict[tuple[int, int], RequestStats] = {}
        """By (API key, version)."""

    def answered(self, api_key: ApiKey, version: int, took_ms: float, response: Any) -> None:
        """Count one request; `took_ms` from its last byte in to its answer out, `response` None: no answer."""
        stats = self.stats.get((api_key, version))
        if stats is None:
            stats = self.stats[int(api_key), version] = RequestStats(api_key)
        stats.times.observe(took_ms)
        if response is None:
            return
        codes = stats.errors_of(response)
        if codes:
            stats.errors.update(codes)
        else:
            stats.without_error += 1
        stats.throttled_ms += getattr(response, "throttle_time_ms", 0)


@cache
def errors_of(message: type) -> ErrorsOf:
    """A function that lists the error codes set anywhere in a response of this class, those of its parts included.

    Compiled to plain loops; what cannot hold an error code is never looked at.
    """
    lines = ["def found(v0):", " errors = []", *_visit(message, 0), " return errors"]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)  # of our own field tables only
    compiled: ErrorsOf = names["found"]
    return compiled


def _visit(message: type, depth: int) -> list[str]:
    indent, here, below = " " * (depth + 1), f"v{depth}", f"v{depth + 1}"
    lines = [
        f"{indent}if {here}.{spec.name}: errors.append({here}.{spec.name})"
        for spec in wire_fields(message)
        if spec.name.endswith("error_code")
    ]
    for spec in wire_fields(message):
        inside = _visit(spec.item, depth + 1) if spec.is_array and isinstance(spec.item, type) else []
        if inside:
            lines += [f"{indent}for {below} in {here}.{spec.name} or ():", *inside]
    return lines
