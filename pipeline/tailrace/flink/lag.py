"""How many rows of its input topics the job has not covered by a checkpoint yet."""

from collections.abc import Iterable, Mapping

from tailrace.broker.client import (
    EARLIEST,
    BrokerError,
    BrokerUnavailableError,
    Client,
    ClientSecurity,
    Fetcher,
    TopicPartition,
)

_PROBED = 8
"""A rest of so few offsets may hold nothing but transaction markers: it is looked at."""


class Lag:
    """Compares the offsets that Flink commits with each checkpoint to the ends of the topics.

    Offsets count markers too, so a rest is exact when it is small and a little too high else.
    """

    def __init__(self, bootstrap: str, group: str, security: ClientSecurity) -> None:
        # a broker that is down must not hold up the watch over the job
        self._client = Client(
            bootstrap, client_id=group, security=security, request_timeout_s=5, retry_for_s=1
        )
        self._group = group
        self._empty: dict[TopicPartition, tuple[int, int]] = {}
        """Per partition the last (from, to) found to hold no row: an idle topic is looked at once."""

    def rows(self, topics: Iterable[str]) -> int | None:
        """Rows of the topics that are committed but not covered; None while the broker does not answer."""
        try:
            found = self._client.metadata(topics)
            places = [place for topic in found.values() for place in topic.partitions]
            ends = self._client.list_offsets(places, isolation="read_committed")
            starts = dict(self._client.list_offsets(places, EARLIEST))
            for place, offset in self._client.committed_offsets(self._group).items():
                starts[place] = max(offset, starts.get(place, 0))
            return sum(self._rest(place, starts, ends) for place in places)
        except (BrokerUnavailableError, BrokerError):
            return None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _rest(
        self, place: TopicPartition, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> int:
        start, end = starts[place], ends[place]
        if end - start > _PROBED or end <= start:
            return max(end - start, 0)
        if self._empty.get(place) != (start, end):
            fetched = Fetcher(self._client, {place: start}, max_wait_ms=0).poll()
            if not fetched or fetched[0].batches or fetched[0].next_offset < end:
                return end - start
            self._empty[place] = (start, end)
        return 0
