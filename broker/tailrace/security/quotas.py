"""Client quotas: bytes a second and shares of the broker's time by user and client id, as Kafka counts them.

The rate is that of the last 11 samples of a second each; a client over its quota is told for how long it is
not served, and its connection is not read for so long.  The most specific quota counts: user and client, the
user, the default user, the client id, the default client id, with the default client id of a user in between.

Sources: KIP-13, KIP-55, KIP-124, KIP-219, KIP-546; org.apache.kafka.server.quota.ClientQuotaManager,
org.apache.kafka.common.metrics.stats.Rate.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from tailrace.security.store import Entity, SecurityStore

PRODUCER_BYTE_RATE = "producer_byte_rate"
CONSUMER_BYTE_RATE = "consumer_byte_rate"
REQUEST_PERCENTAGE = "request_percentage"
"""Of the time of the one thread that serves requests (KIP-124)."""
CONNECTION_CREATION_RATE = "connection_creation_rate"
USER, CLIENT_ID, IP = "user", "client-id", "ip"
KEYS = {
    USER: (PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE),
    CLIENT_ID: (PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE),
    IP: (CONNECTION_CREATION_RATE,),
}
_SAMPLES = 11
_SAMPLE_S = 1.0
_RATES_KEPT = 10_000

Exact, Default, Any = 0, 1, 2
Component = tuple[str, int, str | None]
"""A part of a filter: entity type, Exact | Default | Any, name."""


class QuotaError(ValueError):
    """A quota that nobody could obey; the text says why."""


class Rate:
    """Amounts of the last 11 seconds; times are of a monotonic clock, in seconds."""

    __slots__ = ("_samples", "_total")

    def __init__(self) -> None:
        self._samples: deque[list[float]] = deque()
        self._total = 0.0

    def record(self, amount: float, now: float) -> None:
        """Count an amount (negative: take one back)."""
        self._forget(now)
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append([now, 0.0])
        self._samples[-1][1] += amount
        self._total += amount

    def delay_s(self, limit: float, now: float) -> float:
        """How long to wait until the rate is back at `limit` a second; 0: it is not above."""
        self._forget(now)
        if not self._samples:
            return 0.0
        # a young rate counts as if it had run for ten samples: short bursts are not throttled
        window = max(now - self._samples[0][0], (_SAMPLES - 1) * _SAMPLE_S)
        rate = self._total / window
        return (rate - limit) / limit * window if rate > limit else 0.0

    def is_quiet(self, now: float) -> bool:
        """Whether nothing was counted in the last 11 seconds."""
        self._forget(now)
        return self._total <= 0

    def _forget(self, now: float) -> None:
        while self._samples and now - self._samples[0][0] >= _SAMPLES * _SAMPLE_S:
            self._total -= self._samples.popleft()[1]


def most_in_window(limit: float) -> int:
    """The amount that one answer may carry without being far above the quota."""
    return max(1, int(limit * (_SAMPLES - 1) * _SAMPLE_S))


class Quotas:
    """The quotas of one broker and the rates that they limit; a change is durable before it counts."""

    def __init__(self, store: SecurityStore) -> None:
        self._store = store
        self._limits = store.quotas()
        self._found: dict[tuple[str, str, str], tuple[Entity, float] | None] = {}
        self._rates: dict[tuple[str, Entity], Rate] = {}
        self.active = bool(self._limits)

    def limit(self, key: str, user: str, client_id: str) -> float | None:
        """The quota of a client, None without one."""
        found = self._find(key, user, client_id)
        return None if found is None else found[1]

    def record(self, key: str, user: str, client_id: str, amount: float, now: float) -> float:
        """Count `amount` and return for how many seconds the client is to be muted."""
        found = self._find(key, user, client_id)
        if found is None:
            return 0.0
        rate = self._rate(key, found[0])
        rate.record(amount, now)
        return rate.delay_s(found[1], now)

    def unrecord(self, key: str, user: str, client_id: str, amount: float, now: float) -> None:
        """Take back an amount that was not sent after all."""
        found = self._find(key, user, client_id)
        if found is not None:
            self._rate(key, found[0]).record(-amount, now)

    def is_quiet(self, key: str, user: str, client_id: str, now: float) -> bool:
        """Whether nothing was counted for the client lately."""
        found = self._find(key, user, client_id)
        return found is not None and self._rate(key, found[0]).is_quiet(now)

    def connection_delay_s(self, ip: str, now: float) -> float:
        """Count a connection from an address; above 0: it comes too soon after others."""
        if not self.active:
            return 0.0
        for name in (ip, None):
            limit = self._limits.get(((IP, name),), {}).get(CONNECTION_CREATION_RATE)
            if limit is not None:
                rate = self._rate(CONNECTION_CREATION_RATE, ((IP, ip),))
                rate.record(1, now)
                delay_s = rate.delay_s(limit, now)
                if delay_s > 0:
                    rate.record(-1, now)  # it is refused, so it does not count
                return delay_s
        return 0.0

    def describe(self, components: Sequence[Component], *, strict: bool) -> dict[Entity, dict[str, float]]:
        """Quotas whose entities a filter matches; strict: entities without any other part."""
        return {
            entity: values
            for entity, values in sorted(self._limits.items(), key=str)
            if _matches(entity, components, strict=strict)
        }

    def check(self, entity: Entity, values: Mapping[str, float | None]) -> None:
        """Raise QuotaError for an entity or a value that `alter` would refuse."""
        kinds = {kind for kind, _ in entity}
        if not kinds or len(kinds) != len(entity) or kinds - KEYS.keys():
            raise QuotaError("a quota is for a user, a client-id, both, or an ip")
        if IP in kinds and len(kinds) > 1:
            raise QuotaError("a quota of an ip is for nothing else")
        if any(name == "" for _, name in entity):
            raise QuotaError("the name of an entity is empty")
        for key, value in values.items():
            if key not in KEYS[entity[0][0]]:
                raise QuotaError(f"there is no quota {key!r} for {' and '.join(sorted(kinds))}")
            if value is not None and not 0 < value < float("inf"):
                raise QuotaError(f"the quota {key} must be greater than 0")

    def alter(self, changes: Mapping[Entity, Mapping[str, float | None]]) -> None:
        """Set or remove (None) quotas.  Raises StoreError."""
        self._store.change_quotas(changes)
        self._limits = self._store.quotas()
        self._found.clear()
        self._rates.clear()
        self.active = bool(self._limits)

    def _find(self, key: str, user: str, client_id: str) -> tuple[Entity, float] | None:
        asked = (key, user, client_id)
        if asked not in self._found:
            if len(self._found) >= _RATES_KEPT:
                self._found.clear()
            self._found[asked] = self._search(key, user, client_id)
        return self._found[asked]

    def _search(self, key: str, user: str, client_id: str) -> tuple[Entity, float] | None:
        """The limit, and the entity whose clients share its rate."""
        for user_name, client_name in (
            (user, client_id), (user, None), (user, ...), (None, client_id), (None, None), (None, ...),
            (..., client_id), (..., None),
        ):  # fmt: skip
            named: dict[str, str | None] = {}
            shared: dict[str, str | None] = {}
            if client_name is not ...:
                named[CLIENT_ID], shared[CLIENT_ID] = client_name, client_id
            if user_name is not ...:
                named[USER], shared[USER] = user_name, user
            limit = self._limits.get(tuple(sorted(named.items())), {}).get(key)
            if limit is not None:
                return tuple(sorted(shared.items())), limit
        return None

    def _rate(self, key: str, shared: Entity) -> Rate:
        if (key, shared) not in self._rates and len(self._rates) >= _RATES_KEPT:
            self._rates.clear()
        return self._rates.setdefault((key, shared), Rate())


def _matches(entity: Entity, components: Sequence[Component], *, strict: bool) -> bool:
    parts = dict(entity)
    for kind, how, name in components:
        if kind not in parts:
            return False
        if (how == Exact and parts[kind] != name) or (how == Default and parts[kind] is not None):
            return False
    return not strict or len(parts) == len(components)
