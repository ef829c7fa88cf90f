"""One broker without its sockets: logs, catalog, coordinators, and the work that time brings."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tailrace.broker.client_metrics import ClientMetrics
from tailrace.broker.cluster_store import ClusterStore
from tailrace.broker.config import BrokerConfig
from tailrace.broker.coordinator.consumer_group.catalog import TopicCatalog
from tailrace.broker.coordinator.consumer_group.coordinator import ConsumerGroupLimits
from tailrace.broker.coordinator.consumer_group.migration import MigrationPolicy
from tailrace.broker.coordinator.group_log import GroupLog
from tailrace.broker.coordinator.internal_topic import CONSUMER_OFFSETS, TRANSACTION_STATE, InternalTopic
from tailrace.broker.coordinator.rebalance import GroupLimits
from tailrace.broker.coordinator.schemas import TxnMetadata, decode_txn_key
from tailrace.broker.coordinator.transaction_log import Markers, ProducerIdBlocks, StateLog
from tailrace.broker.coordinator.transactions import TransactionCoordinator, TransactionLimits
from tailrace.broker.feature_levels import FeatureLevels
from tailrace.broker.group_configs import GroupConfigs
from tailrace.broker.log import Flusher, LogManager, StorageFailure, SystemClock
from tailrace.broker.metrics.requests import RequestMetrics
from tailrace.broker.protection import Protection
from tailrace.broker.records.record import Record, encode_batch
from tailrace.broker.topics import DATABASE, Topics
from tailrace.broker.waiting_fetches import WaitingFetches
from tailrace.changes.errors import operating_system_error
from tailrace.changes.status import StatusFile

_GROUP_TICK_S = 0.1
_SECOND_S = 1.0
_EXPIRY_EVERY_S = 600.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """What the status file tells; since the start of the process."""

    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    unsent_bytes: int = 0  # answered, and not taken by clients that read slowly; not in the status file
    produce_requests: int = 0
    fetch_requests: int = 0


class Broker:
    """Opened by the constructor (recovery included), started on a running loop, closed once.

    Raises ConfigError when another process holds the data directory, LogError and OSError when it cannot
    be used.  All methods belong to the event loop's thread.
    """

    def __init__(self, config: BrokerConfig) -> None:
        self.config = config
        self.host = config.advertised_host or config.host
        self.port = config.advertised_port or config.port
        self.counters = Counters()
        self.requests = RequestMetrics()
        self.clock = SystemClock()
        self.failure: StorageFailure | None = None
        self.failed = asyncio.Event()
        self.waiting_fetches = WaitingFetches()
        self.logs = LogManager(
            config.data_dir,
            clock=self.clock,
            producer_expiration_ms=config.producer_id_expiration_ms,
            recovery_threads=config.recovery_threads,
        )
        self.topics = Topics(config.data_dir, self.logs)
        self.cluster_store = ClusterStore(config.data_dir / DATABASE)
        self.client_metrics = ClientMetrics(self.cluster_store)
        self.features = FeatureLevels(config.transaction_version, self.cluster_store)
        self.group_configs = GroupConfigs(config, self.cluster_store)
        self.security = Protection(config, config.doors(), config.data_dir / DATABASE)
        self.flusher = Flusher(
            on_high_watermark=self.waiting_fetches.wake,
            on_failure=self._fail,
            page_cache=config.durability == "page_cache",
        )
        self.group_log = GroupLog(
            self._internal_topic(CONSUMER_OFFSETS, config.offsets_topic_partitions),
            GroupLimits(
                config.group_initial_rebalance_delay_ms,
                config.group_min_session_timeout_ms,
                config.group_max_session_timeout_ms,
                config.group_max_size,
            ),
            ConsumerGroupLimits(
                config.group_consumer_max_size,
                config.group_consumer_assignors,
                MigrationPolicy(config.group_consumer_migration_policy.lower()),
                config.group_max_size,
            ),
            self.group_configs.timings,
            TopicCatalog(self.topics),
            self.clock,
        )
        self._state_topic = self._internal_topic(TRANSACTION_STATE, config.transaction_topic_partitions)
        self.markers = Markers(
            topics=self.topics,
            logs=self.logs,
            flusher=self.flusher,
            clock=self.clock,
            on_offsets_end=lambda partition, producer_id, commit: self.group_log.offsets.end_transaction(
                partition, producer_id, commit=commit
            ),
        )
        self.transactions = self._make_transactions()
        self._status = StatusFile(config.data_dir, "broker")
        self._work: list[asyncio.Task[None]] = []
        self._key_checks: asyncio.Future[None] | None = None

    def _make_transactions(self) -> TransactionCoordinator:
        return TransactionCoordinator(
            TransactionLimits(
                self.config.transaction_max_timeout_ms,
                self.config.transactional_id_expiration_ms,
            ),
            StateLog(self._state_topic, self.features.transaction_version),
            self.markers,
            ProducerIdBlocks(self.topics),
            self.clock,
            self.features.transaction_version,
        )

    def _internal_topic(self, name: str, partitions: int) -> InternalTopic:
        return InternalTopic(
            name, partitions, topics=self.topics, logs=self.logs, flusher=self.flusher, clock=self.clock
        )

    async def start(self) -> None:
        """Replay the coordinators' logs, finish interrupted transactions, start the periodic work."""
        await self.security.start()
        self.group_log.replay()
        for batch in self._state_topic.replay():
            for record in batch.records:
                value = None if record.value is None else TxnMetadata.decode(record.value)
                self.transactions.replay(decode_txn_key(record.key or b""), value)
        await self.transactions.recover()
        for topic in self.topics.all():
            if not topic.internal:
                self.prepare_key_checks(topic.name)
        self._work = [
            asyncio.create_task(self._every(_GROUP_TICK_S, self._tick_groups)),
            asyncio.create_task(self._every(_SECOND_S, self.transactions.tick)),
            asyncio.create_task(self._every(_SECOND_S, self.logs.maintain)),
            asyncio.create_task(self._every(_SECOND_S, self._tell_status)),
            asyncio.create_task(self._every(_EXPIRY_EVERY_S, self._expire_offsets)),
        ]

    def prepare_key_checks(self, topic: str) -> None:
        """Have the loops compiled that read the records sent to such a topic, in a thread, once.

        Otherwise the first produce request would stop the event loop for seconds.
        """
        if self._key_checks is not None or (topic, 0) in self.logs.offline():
            return
        if self.topics.log(topic, 0).config.reads_records:
            self._key_checks = asyncio.get_running_loop().run_in_executor(None, _check_some_keys)

    def release_parked(self) -> None:
        """Answer every request that waits for data or for other group members: the broker stops."""
        self.waiting_fetches.close()
        self.group_log.groups.release_parked()

    async def close(self) -> None:
        """Stop the periodic work; without a failure, make everything durable and mark the stop as clean."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        if self.failure is None:
            await self.flusher.close()
            self.logs.close()
        with contextlib.suppress(OSError):  # a full disk must not keep the rest from closing
            self._write_status("stopped" if self.failure is None else "failed")
        self.security.close()
        self.cluster_store.close()
        self.topics.close()

    def _fail(self, error: StorageFailure) -> None:
        self.failure = error
        self.failed.set()

    async def _every(self, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` for ever; an error in one round is logged, the next round comes all the same."""
        while True:
            try:
                await work()
            except StorageFailure:
                return  # `_fail` has been told
            except OSError as error:  # a full disk: no bug, and no place for a traceback
                _log.warning("periodic work will be tried again: %s", operating_system_error(error))
            except Exception:  # noqa: BLE001 - one bad round must not end retention, timeouts or status
                _log.exception("periodic work failed and will be tried again")
            await asyncio.sleep(period_s)

    async def _tick_groups(self) -> None:
        self.group_log.groups.tick(self.clock.now_ms())
        self.group_log.consumer_groups.tick(self.clock.now_ms())

    async def _expire_offsets(self) -> None:
        await self.group_log.expire(self.config.offsets_retention_minutes * 60_000)

    async def _tell_status(self) -> None:
        self._write_status("running")

    def _write_status(self, state: str) -> None:
        counters = self.counters
        self._status.write(
            state,
            address=f"{self.host}:{self.port}",
            connections=counters.connections,
            topics=sum(1 for topic in self.topics.all() if not topic.internal),
            bytes_in=counters.bytes_in,
            bytes_out=counters.bytes_out,
            produce_requests=counters.produce_requests,
            fetch_requests=counters.fetch_requests,
            error=str(self.failure) if self.failure else None,
        )


def _check_some_keys() -> None:
    from tailrace.broker.records.columnar_parse import parse_batches  # Numba: 80 MB that others do not pay

    parse_batches([memoryview(encode_batch([Record(b"key", b"value", 0)]))])
