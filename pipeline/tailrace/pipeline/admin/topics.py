"""Topics: making, growing and deleting them, what they hold and who reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.broker.client import EARLIEST, LATEST, Client, NewTopic, TopicPartition
from tailrace.broker.client.partition import TopicMetadata
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m
from tailrace.changes import TailraceError
from tailrace.pipeline.admin.cluster import ask, ask_every_node, check
from tailrace.pipeline.admin.configs import TOPIC, describe_configs
from tailrace.pipeline.admin.groups import list_groups

_TIMEOUT_MS = 10_000


def find_topic(client: Client, name: str) -> TopicMetadata:
    """The topic, or TailraceError."""
    found = client.metadata([name]).get(name)
    if found is None:
        raise TailraceError(f"there is no topic '{name}'", fix="list them: tailrace topics list")
    return found


def list_topics(client: Client) -> list[dict[str, Any]]:
    """Every topic with its partitions, the offsets between its ends and its bytes on disk."""
    topics = sorted(client.metadata().items())
    places = [place for _, topic in topics for place in topic.partitions]
    earliest, latest = ends(client, places)
    sizes = sizes_on_disk(client)
    return [
        {
            "topic": name,
            "partitions": len(topic.partitions),
            "records": sum(latest[place] - earliest[place] for place in topic.partitions),
            "bytes": sum(sizes.get(place, 0) for place in topic.partitions),
        }
        for name, topic in topics
    ]


def describe_topic(client: Client, name: str) -> dict[str, Any]:
    """Partitions with offsets, bytes and leaders; configs that were set; groups that read it, with their lag."""
    topic = find_topic(client, name)
    earliest, latest = ends(client, topic.partitions)
    sizes = sizes_on_disk(client)
    configs = describe_configs(client, TOPIC, name, every=False)
    return {
        "topic": name,
        "internal": topic.is_internal,
        "partitions": [
            {
                "partition": place.partition,
                "leader": topic.leaders[place.partition],
                "earliest": earliest[place],
                "latest": latest[place],
                "bytes": sizes.get(place),
            }
            for place in topic.partitions
        ],
        "configs": {entry["name"]: entry["value"] for entry in configs},
        "groups": _readers(client, name, latest),
    }


def create_topic(
    client: Client, name: str, partitions: int, replication_factor: int, configs: Mapping[str, str]
) -> None:
    """Make a topic; TailraceError when it exists already."""
    new = NewTopic(name, partitions, dict(configs), replication_factor)
    if name not in client.create_topics([new]):
        raise TailraceError(f"the topic '{name}' exists already", fix=f"see tailrace topics describe {name}")


def delete_topics(client: Client, names: Sequence[str]) -> None:
    """Delete topics with all their records; TailraceError for one that does not exist, before any is deleted."""
    for name in names:
        find_topic(client, name)
    client.delete_topics(names)


def add_partitions(client: Client, name: str, total: int) -> None:
    """Grow a topic to `total` partitions."""
    find_topic(client, name)

    def created(response: Any) -> None:
        for result in response.results:
            check(result.error_code, f"add partitions to {name}", result.error_message)

    request = m.CreatePartitionsRequest([m.CreatePartitionsTopic(name, total, None)], _TIMEOUT_MS)
    ask(client, ApiKey.CREATE_PARTITIONS, request, created)


def ends(
    client: Client, places: Sequence[TopicPartition]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """(first offset, offset after the last committed record) of each partition."""
    return client.list_offsets(places, EARLIEST), client.list_offsets(
        places, LATEST, isolation="read_committed"
    )


def sizes_on_disk(client: Client) -> dict[TopicPartition, int]:
    """Bytes of each partition, of its largest replica."""
    sizes: dict[TopicPartition, int] = {}
    for response in ask_every_node(client, ApiKey.DESCRIBE_LOG_DIRS, m.DescribeLogDirsRequest(topics=None)):
        check(response.error_code, "describe log directories")
        for folder in response.results:
            for topic in folder.topics:
                for partition in topic.partitions:
                    place = TopicPartition(topic.name, partition.partition_index)
                    sizes[place] = max(sizes.get(place, 0), partition.partition_size)
    return sizes


def _readers(client: Client, topic: str, latest: Mapping[TopicPartition, int]) -> list[dict[str, Any]]:
    rows = []
    for group in list_groups(client):
        committed = client.committed_offsets(group["group"])
        lags = [
            max(0, latest[place] - offset)
            for place, offset in committed.items()
            if place.topic == topic and place in latest
        ]
        if lags:
            rows.append({"group": group["group"], "state": group["state"], "lag": sum(lags)})
    return rows
