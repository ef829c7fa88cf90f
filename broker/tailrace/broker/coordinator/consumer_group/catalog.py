"""What consumer groups see of the broker's topics."""

from collections.abc import Iterable

from tailrace.broker.topics import Topics


class TopicCatalog:
    """The broker's topics by name."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    @property
    def version(self) -> int:
        """Grows with every topic that comes, goes or gets partitions."""
        return self._topics.version

    def names(self) -> Iterable[str]:
        """Every topic."""
        return (topic.name for topic in self._topics.all())

    def shape(self, name: str) -> tuple[bytes, int] | None:
        """Topic id and number of partitions, None where there is no such topic."""
        topic = self._topics.find(name)
        return None if topic is None else (topic.topic_id.bytes, topic.partitions)
