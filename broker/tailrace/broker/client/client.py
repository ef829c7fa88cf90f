"""A synchronous client of a Kafka cluster: brokers, topics, offsets, and retry over broker restarts."""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from tailrace.broker.client.connection import Connection
from tailrace.broker.client.errors import (
    BrokerError,
    BrokerUnavailableError,
    InterruptedClientError,
    RetryableError,
    raise_for,
)
from tailrace.broker.client.partition import Address, NewTopic, TopicMetadata, TopicPartition, parse_bootstrap
from tailrace.broker.client.security import PLAINTEXT, ClientSecurity
from tailrace.broker.protocol import ApiKey, ErrorCode, messages

Isolation = Literal["read_uncommitted", "read_committed"]
ISOLATION_LEVELS: dict[str, int] = {"read_uncommitted": 0, "read_committed": 1}

LATEST = -1
EARLIEST = -2

_Result = TypeVar("_Result")
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
# a new topic takes a moment to be known everywhere; one that stays unknown is a mistake
_UNKNOWN_TOPIC_S = 10.0
_FULL_DISK_S = 10.0
_GROUP, _TRANSACTION = 0, 1


class Client:
    """Connections to a cluster and the requests that need no state.

    Every call retries lost connections and retriable errors with back-off for `retry_for_s`, so a broker
    may restart meanwhile; then BrokerUnavailableError names the address and the last reason.  An answer
    that no retry can cure raises BrokerError at once, a topic that stays unknown after ten seconds, TLS or a login
    that fails LoginError.  A call that was retried may have happened twice; the calls here do the same when done twice.

    One thread at a time, but for `interrupt`, which any thread and any signal handler may call.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str,
        security: ClientSecurity = PLAINTEXT,
        request_timeout_s: float = 30.0,
        retry_for_s: float = 120.0,
    ) -> None:
        """bootstrap: `host:port,...`; nothing is connected before the first call.  Raises ConfigError."""
        self.bootstrap = bootstrap
        self.security = security
        self.client_id = client_id
        self.request_timeout_s = request_timeout_s
        self.retry_for_s = retry_for_s
        self._seeds = parse_bootstrap(bootstrap)
        self._brokers: dict[int, Address] = {}
        self._leaders: dict[TopicPartition, int] = {}
        self._coordinators: dict[tuple[int, str], int] = {}
        self._connections: dict[Address, Connection] = {}
        self._interrupted = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection.  The client may be used again afterwards."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def interrupt(self) -> None:
        """Make the call that blocks, and every later one, raise InterruptedClientError."""
        self._interrupted = True
        for connection in list(self._connections.values()):
            connection.shutdown()

    # -- topics

    def metadata(self, topics: Iterable[str] | None = None) -> dict[str, TopicMetadata]:
        """The named topics (None: all) that exist; asking creates none."""
        wanted = None if topics is None else sorted(set(topics))
        return self.retrying("metadata", lambda: self._load_metadata(wanted))

    def nodes(self) -> list[int]:
        """The ids of the cluster's brokers; one attempt."""
        self._load_metadata([])
        return sorted(self._brokers)

    def create_topics(self, topics: Sequence[NewTopic]) -> list[str]:
        """Create the topics that do not exist yet; the names of those that this call is known to have created.

        A topic that exists stays as it is.  Raises BrokerError for a name or config that the broker refuses.
        """
        created: list[str] = []
        self.retrying("create topics", lambda: self._create_topics(topics, created))
        return created

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics; one that does not exist is no error."""
        request = messages.DeleteTopicsRequest(
            topics=[messages.DeleteTopicState(name=name) for name in names],
            topic_names=list(names),
            timeout_ms=self._timeout_ms,
        )

        def attempt() -> None:
            response = self.ask_controller(ApiKey.DELETE_TOPICS, request)
            for topic in response.responses:
                if topic.error_code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                    raise_for(topic.error_code, f"delete topic {topic.name}")

        self.retrying("delete topics", attempt)

    # -- offsets

    def list_offsets(
        self,
        partitions: Iterable[TopicPartition],
        timestamp: int = LATEST,
        isolation: Isolation = "read_uncommitted",
    ) -> dict[TopicPartition, int]:
        """One offset per partition: the first record at or after `timestamp` (ms), LATEST or EARLIEST.

        LATEST under read_committed is the last stable offset.  -1 where no record is that young.
        """
        missing = dict.fromkeys(partitions)
        found: dict[TopicPartition, int] = {}

        def attempt() -> None:
            for node, group in self.by_leader(tp for tp in missing if tp not in found).items():
                self._list_offsets_of(node, group, timestamp, ISOLATION_LEVELS[isolation], found)

        self.retrying("list offsets", attempt)
        return {partition: found[partition] for partition in missing}

    def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit as a simple consumer (no members): for lag display, not for exactly-once."""
        topics: dict[str, list[messages.OffsetCommitRequestPartition]] = {}
        for (topic, index), offset in offsets.items():
            topics.setdefault(topic, []).append(
                messages.OffsetCommitRequestPartition(
                    partition_index=index, committed_offset=offset, committed_metadata=""
                )
            )
        request = messages.OffsetCommitRequest(
            group_id=group,
            generation_id_or_member_epoch=-1,
            topics=[
                messages.OffsetCommitRequestTopic(name=name, partitions=partitions)
                for name, partitions in topics.items()
            ],
        )

        def attempt() -> None:
            response = self.ask_coordinator(_GROUP, group, ApiKey.OFFSET_COMMIT, request)
            for topic in response.topics:
                for partition in topic.partitions:
                    self.check_coordinator(
                        _GROUP,
                        group,
                        partition.error_code,
                        f"commit {topic.name}/{partition.partition_index} for group {group}",
                    )

        self.retrying("commit offsets", attempt)

    def committed_offsets(self, group: str) -> dict[TopicPartition, int]:
        """Every offset that the group has committed."""
        request = messages.OffsetFetchRequest(group_id=group, topics=None, require_stable=True)

        def attempt() -> dict[TopicPartition, int]:
            what = f"committed offsets of group {group}"
            response = self.ask_coordinator(_GROUP, group, ApiKey.OFFSET_FETCH, request)
            self.check_coordinator(_GROUP, group, response.error_code, what)
            offsets: dict[TopicPartition, int] = {}
            for topic in response.topics:
                for partition in topic.partitions:
                    self.check_coordinator(_GROUP, group, partition.error_code, what)
                    if partition.committed_offset >= 0:
                        place = TopicPartition(topic.name, partition.partition_index)
                        offsets[place] = partition.committed_offset
            return offsets

        return self.retrying("committed offsets", attempt)

    # -- what producers and fetchers build on

    def retrying(self, what: str, attempt: Callable[[], _Result]) -> _Result:
        """`attempt()` until it raises no RetryableError, with growing pauses, for `retry_for_s` seconds."""
        pause = _FIRST_PAUSE_S
        deadline = time.monotonic() + self.retry_for_s
        same: tuple[ErrorCode, float] | None = None  # the last error and since when there is no other
        while True:
            self.check_interrupt()
            try:
                return attempt()
            except RetryableError as error:
                self.check_interrupt()
                now = time.monotonic()
                if same is None or same[0] != error.error:
                    same = error.error, now
                fix = _cure(error.error, now - same[1])
                if fix:
                    raise BrokerError(f"{what}: {error}", error=error.error, fix=fix) from error
                if now + pause > deadline:
                    raise BrokerUnavailableError(
                        f"{what}: no answer from the broker at {self.bootstrap} for {self.retry_for_s:.0f} s ({error})",
                        fix="check that the broker runs and that this address is right",
                    ) from error
                self._sleep(pause * random.uniform(0.8, 1.2))
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def check_interrupt(self) -> None:
        """Raise InterruptedClientError after `interrupt`."""
        if self._interrupted:
            raise InterruptedClientError(f"client {self.client_id} was told to stop")

    def by_leader(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        """The partitions under the node that leads each; one attempt.

        Raises RetryableError where a topic is unknown or a partition has no leader at the moment.
        """
        wanted = list(partitions)
        unknown = {partition.topic for partition in wanted if partition not in self._leaders}
        if unknown:
            self._load_metadata(sorted(unknown))
        nodes: dict[int, list[TopicPartition]] = {}
        for partition in wanted:
            node = self._leaders.get(partition, -1)
            if node < 0:
                raise RetryableError(
                    f"partition {partition} has no leader on the cluster at {self.bootstrap}",
                    error=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                )
            nodes.setdefault(node, []).append(partition)
        return nodes

    def forget_leaders(self, partitions: Iterable[TopicPartition]) -> None:
        """Look the leaders of these partitions up anew before the next request to them."""
        for partition in partitions:
            self._leaders.pop(partition, None)

    def connection(self, node: int | None = None) -> Connection:
        """A live connection to a node, None for any; one attempt.  Raises RetryableError."""
        self.check_interrupt()
        address = None if node is None else self._brokers.get(node)
        if address is not None:
            return self._connect(address)
        candidates = [*self._connections, *self._seeds, *self._brokers.values()]
        last: RetryableError | None = None
        for candidate in dict.fromkeys(candidates):
            try:
                return self._connect(candidate)
            except RetryableError as error:
                last = error
        assert last is not None
        raise last

    def drop(self, connection: Connection) -> None:
        """Close a connection that failed, and distrust what was learned through it."""
        connection.close()
        self._connections = {
            address: other for address, other in self._connections.items() if other is not connection
        }
        self._leaders.clear()
        self._coordinators.clear()

    def ask(self, connection: Connection, api_key: ApiKey, request: Any, *, wait_s: float = 0.0) -> Any:
        """One request on a connection, which is dropped when it fails.  Raises RetryableError."""
        try:
            return connection.request(api_key, request, wait_s=wait_s)
        except RetryableError:
            self.drop(connection)
            raise

    def ask_controller(self, api_key: ApiKey, request: Any) -> Any:
        """One request to the controller, whom any Kafka 3+ broker forwards to."""
        return self.ask(self.connection(), api_key, request)

    def ask_coordinator(self, kind: int, key: str, api_key: ApiKey, request: Any) -> Any:
        """One request to the coordinator of a group (kind 0) or transactional id (kind 1); one attempt."""
        node = self._coordinators.get((kind, key))
        if node is None:
            node = self._find_coordinator(kind, key)
        return self.ask(self.connection(node), api_key, request)

    def check_coordinator(self, kind: int, key: str, error_code: int, what: str) -> None:
        """`raise_for` that also looks the coordinator up anew where it has moved."""
        if error_code in _COORDINATOR_MOVED:
            self._coordinators.pop((kind, key), None)
        raise_for(error_code, what)

    # -- one attempt each

    @property
    def _timeout_ms(self) -> int:
        return int(self.request_timeout_s * 1000)

    def _connect(self, address: Address) -> Connection:
        connection = self._connections.get(address)
        if connection is None:
            timeout_s = self.request_timeout_s
            connection = Connection(
                address, client_id=self.client_id, timeout_s=timeout_s, security=self.security
            )
            self._connections[address] = connection
        return connection

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check_interrupt()
            time.sleep(min(left, 0.1))

    def _load_metadata(self, topics: list[str] | None) -> dict[str, TopicMetadata]:
        request = messages.MetadataRequest(
            topics=None if topics is None else [messages.MetadataRequestTopic(name=name) for name in topics],
            allow_auto_topic_creation=False,
        )
        response = self.ask(self.connection(), ApiKey.METADATA, request)
        raise_for(response.error_code, "metadata")
        self._brokers = {broker.node_id: Address(broker.host, broker.port) for broker in response.brokers}
        found: dict[str, TopicMetadata] = {}
        for topic in response.topics:
            if topic.error_code in (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.LEADER_NOT_AVAILABLE):
                continue
            raise_for(topic.error_code, f"metadata of topic {topic.name}")
            leaders = {partition.partition_index: partition.leader_id for partition in topic.partitions}
            for index, leader in leaders.items():
                self._leaders[TopicPartition(topic.name, index)] = leader
            found[topic.name] = TopicMetadata(
                topic.name,
                topic.topic_id,
                topic.is_internal,
                tuple(leaders.get(index, -1) for index in range(len(leaders))),
            )
        return found

    def _create_topics(self, topics: Sequence[NewTopic], created: list[str]) -> None:
        request = messages.CreateTopicsRequest(
            topics=[
                messages.CreatableTopic(
                    name=topic.name,
                    num_partitions=topic.partitions,
                    replication_factor=topic.replication_factor,
                    configs=[
                        messages.CreatableTopicConfig(name=name, value=value)
                        for name, value in topic.configs.items()
                    ],
                )
                for topic in topics
            ],
            timeout_ms=self._timeout_ms,
        )
        response = self.ask_controller(ApiKey.CREATE_TOPICS, request)
        for topic in response.topics:
            if topic.error_code == ErrorCode.NONE:
                created.append(topic.name)
            elif topic.error_code != ErrorCode.TOPIC_ALREADY_EXISTS:
                detail = f" ({topic.error_message})" if topic.error_message else ""
                raise_for(topic.error_code, f"create topic {topic.name}{detail}")

    def _list_offsets_of(
        self,
        node: int,
        partitions: list[TopicPartition],
        timestamp: int,
        isolation_level: int,
        found: dict[TopicPartition, int],
    ) -> None:
        topics: dict[str, list[messages.ListOffsetsPartition]] = {}
        for topic, index in partitions:
            topics.setdefault(topic, []).append(
                messages.ListOffsetsPartition(partition_index=index, timestamp=timestamp)
            )
        request = messages.ListOffsetsRequest(
            replica_id=-1,
            isolation_level=isolation_level,
            topics=[messages.ListOffsetsTopic(name=name, partitions=asked) for name, asked in topics.items()],
            timeout_ms=self._timeout_ms,
        )
        response = self.ask(self.connection(node), ApiKey.LIST_OFFSETS, request)
        for topic in response.topics:
            for partition in topic.partitions:
                place = TopicPartition(topic.name, partition.partition_index)
                if partition.error_code:
                    self.forget_leaders([place])
                raise_for(partition.error_code, f"list offsets of {place}")
                found[place] = partition.offset

    def _find_coordinator(self, kind: int, key: str) -> int:
        request = messages.FindCoordinatorRequest(key=key, key_type=kind)
        response = self.ask(self.connection(), ApiKey.FIND_COORDINATOR, request)
        raise_for(response.error_code, f"find the coordinator of {key}")
        node: int = response.node_id
        self._brokers[node] = Address(response.host, response.port)
        self._coordinators[kind, key] = node
        return node


_COORDINATOR_MOVED = frozenset({ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE})


def _cure(error: ErrorCode, lasted_s: float) -> str:
    """What a person must do about an error that Kafka's clients retry; empty while a retry may still help."""
    if error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and lasted_s > _UNKNOWN_TOPIC_S:
        return "create the topic"
    if error == ErrorCode.KAFKA_STORAGE_ERROR and lasted_s > _FULL_DISK_S:
        return "make room on the broker's disk, then start again; nothing acknowledged is lost"
    return ""
