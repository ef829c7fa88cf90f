"""Where to start in a topic, as a person writes it: `beginning`, `end`, an offset, an age or a moment."""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tailrace.broker.client import Client, TopicPartition
from tailrace.changes import ConfigError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ENDS = {"beginning": "earliest", "earliest": "earliest", "end": "latest", "latest": "latest"}


@dataclass(frozen=True, slots=True)
class Start:
    """One of: an end of the log, an offset, a time in ms since the epoch."""

    end: str = ""
    offset: int | None = None
    since_ms: int | None = None


def parse_start(text: str) -> Start:
    """`beginning`, `end`, `4711`, `-1h`, `2026-11-25T10:00`.  Raises ConfigError."""
    if text in _ENDS:
        return Start(end=_ENDS[text])
    if text.isdigit():
        return Start(offset=int(text))
    age = re.fullmatch(r"-(\d+)([smhd])", text)
    if age is not None:
        return Start(since_ms=int((time.time() - int(age[1]) * _UNITS_S[age[2]]) * 1000))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"'{text}' is no place to start",
            fix="write beginning, end, an offset, an age like -1h, or a time like 2026-11-25T10:00",
        ) from None
    return Start(since_ms=int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def offsets_at(
    client: Client,
    places: Iterable[TopicPartition],
    start: Start,
    earliest: Mapping[TopicPartition, int],
    latest: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """The offset of `start` in each partition, inside what the log holds."""
    if start.end:
        return dict(earliest if start.end == "earliest" else latest)
    if start.offset is not None:
        return {place: min(max(start.offset, earliest[place]), latest[place]) for place in places}
    assert start.since_ms is not None
    found = client.list_offsets(places, start.since_ms)
    return {place: offset if offset >= 0 else latest[place] for place, offset in found.items()}
