"""How old changes are when they become visible: a bounded window of the newest ones."""

import time
from collections import deque

import numpy as np
import numpy.typing as npt

_PER_COMMIT = 256
_WINDOW = 4096


class Freshness:
    """Milliseconds from commit at the source to visible in the table, over the last few thousand changes."""

    def __init__(self) -> None:
        self._waiting: list[npt.NDArray[np.int64]] = []
        self._window: deque[float] = deque(maxlen=_WINDOW)

    def staged(self, timestamp: npt.NDArray[np.int64]) -> None:
        """Note commit times (microseconds since the epoch) of changes that the next commit shows."""
        if len(timestamp):
            self._waiting.append(timestamp[:: max(1, len(timestamp) // _PER_COMMIT)])

    def visible(self) -> None:
        """The commit landed."""
        now = time.time_ns() // 1000
        for timestamp in self._waiting:
            self._window.extend(((now - timestamp) / 1000).tolist())
        self._waiting.clear()

    def percentiles(self) -> tuple[float | None, float | None]:
        """p50 and p99 in milliseconds, None before the first change."""
        if not self._window:
            return None, None
        p50, p99 = np.percentile(np.array(self._window), [50, 99])
        return round(float(p50), 1), round(float(p99), 1)
