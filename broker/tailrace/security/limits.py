"""Limits on connections and on failed logins, by client address."""

from collections import Counter
from collections.abc import Mapping

from tailrace.security.quotas import Rate

_FAILURES = 10
_LOCKED_S = 60.0
_LOCKS_KEPT = 10_000


class ConnectionLimits:
    """Counts open connections (`max.connections`, `max.connections.per.ip`) and how fast new ones come.

    Times are of a monotonic clock, in seconds.
    """

    def __init__(
        self, most: int, most_per_ip: int, overrides: Mapping[str, int], creation_rate: float | None
    ) -> None:
        self._most = most
        self._most_per_ip = most_per_ip
        self._overrides = dict(overrides)
        self._creation_rate = creation_rate
        self._created = Rate()
        self._open: Counter[str] = Counter()
        self._total = 0

    def take(self, ip: str, now: float) -> str | None:
        """Count a new connection; or the reason why there must not be one."""
        if self._total >= self._most:
            return f"max.connections is {self._most}"
        most = self._overrides.get(ip, self._most_per_ip)
        if self._open[ip] >= most:
            return f"max.connections.per.ip is {most}"
        if self._creation_rate is not None:
            self._created.record(1, now)
            if self._created.delay_s(self._creation_rate, now) > 0:
                self._created.record(-1, now)  # who is refused does not keep others out
                return f"max.connection.creation.rate is {self._creation_rate:g}"
        self._open[ip] += 1
        self._total += 1
        return None

    def release(self, ip: str) -> None:
        """A connection that `take` counted is closed."""
        self._total -= 1
        self._open[ip] -= 1
        if not self._open[ip]:
            del self._open[ip]


class FailedLogins:
    """Locks a user name for an address after 10 failures within a minute, for a minute.

    By both, so that nobody can lock a user out from elsewhere.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], list[float]] = {}

    def record(self, ip: str, user: str, now: float) -> None:
        """Count a failure."""
        recent = [at for at in self._failures.pop((ip, user), ()) if now - at < _LOCKED_S]
        if len(self._failures) >= _LOCKS_KEPT:
            del self._failures[next(iter(self._failures))]  # the one that failed longest ago
        self._failures[ip, user] = [*recent[-_FAILURES + 1 :], now]

    def forgive(self, ip: str, user: str) -> None:
        """A login succeeded."""
        self._failures.pop((ip, user), None)

    def is_locked(self, ip: str, user: str, now: float) -> bool:
        """Whether further attempts are refused without a look at the password."""
        recent = [at for at in self._failures.get((ip, user), ()) if now - at < _LOCKED_S]
        return len(recent) >= _FAILURES
