"""The transaction coordinator: KIP-98, KIP-360, KIP-890 with `transaction.version` 0 or 2.

A transition is written to `__transaction_state` and counts when it is durable; until then the id is
`pending` and its producer is told CONCURRENT_TRANSACTIONS.  EndTxn is answered when PREPARE and all markers
are durable, so a producer reads its own commit; where a marker cannot be written now it is told
CONCURRENT_TRANSACTIONS, and `tick` and its own retries go on until they are there.  COMPLETE needs no
wait: without it, a restart finds PREPARE and writes the same markers again.  A timeout and a second
InitProducerId raise the epoch first, so that nothing of the old producer gets in behind the abort marker.

Pure apart from what it is given: the log, the markers, the clock.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tailrace.broker.coordinator.elapsed import Elapsed, MillisecondClock
from tailrace.broker.coordinator.schemas import TxnMetadata, TxnStatus
from tailrace.broker.coordinator.transaction import (
    ENDED,
    EPOCH_BUMP_VERSION,
    NO_EPOCH,
    NO_PRODUCER_ID,
    PREPARED,
    Partition,
    ProducerIdentity,
    Transaction,
    check_producer,
    completed,
    judge_bumping_end,
    judge_end,
    may_continue,
    prepared,
)
from tailrace.broker.protocol import ErrorCode


class CoordinatorLogError(Exception):
    """A transition could not be written (disk full, partition offline); nothing has changed."""


class TransactionLog(Protocol):
    """Where transitions go: `__transaction_state`."""

    async def write(self, transactional_id: str, value: TxnMetadata) -> None:
        """Append one value before the first suspension; return when it is durable.

        Raises CoordinatorLogError when nothing was appended."""
        ...

    def write_soon(self, transactional_id: str, value: TxnMetadata | None) -> None:
        """Append one value (None: forget the id) that nobody waits for.  Raises CoordinatorLogError."""
        ...


class MarkerWriter(Protocol):
    """Where transactions end: a control batch in every partition that took part."""

    async def write(
        self, partitions: Iterable[Partition], producer_id: int, epoch: int, *, commit: bool, version: int
    ) -> frozenset[Partition]:
        """Write and make durable; returns the partitions that could not be written now.

        Partitions that no longer exist are done.  `version`: the transaction version of the end."""
        ...


class ProducerIds(Protocol):
    """Hands out producer ids."""

    def __call__(self) -> int:
        """An id that was never given out.  Raises CoordinatorLogError."""
        ...


@dataclass(frozen=True, slots=True)
class TransactionLimits:
    """Bounds that a broker sets (Kafka: transaction.max.timeout.ms, transactional.id.expiration.ms)."""

    max_timeout_ms: int = 4 * 3_600_000
    id_expiration_ms: int = 7 * 24 * 3_600_000


@dataclass(slots=True)
class Queue:
    """Who waits for a partition to be added to one transaction; the lock is fair."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class TransactionCoordinator:
    """All transactional ids of this broker.

    `version` tells the feature level `transaction.version` that holds now: 2 raises the epoch with every end.
    """

    def __init__(
        self,
        limits: TransactionLimits,
        log: TransactionLog,
        markers: MarkerWriter,
        allocate_producer_id: ProducerIds,
        clock: MillisecondClock,
        version: Callable[[], int],
    ) -> None:
        self._version = version
        self._limits = limits
        self._log = log
        self._markers = markers
        self._allocate_producer_id = allocate_producer_id
        self._clock = clock
        self._elapsed = Elapsed(clock)
        self._transactions: dict[str, Transaction] = {}
        self._joining: dict[str, Queue] = {}
        self._ending: set[str] = set()  # PREPARE_x whose markers are being written right now

    def __iter__(self) -> Iterator[Transaction]:
        return iter(self._transactions.values())

    def get(self, transactional_id: str) -> Transaction | None:
        """The transactional id's state, or None if it is unknown."""
        return self._transactions.get(transactional_id)

    def replay(self, transactional_id: str, value: TxnMetadata | None) -> None:
        """Take over one record of the log, in log order."""
        if value is None or value.status is TxnStatus.DEAD:
            self._transactions.pop(transactional_id, None)
        else:
            self._transactions[transactional_id] = Transaction(
                transactional_id, value, last_producer_id=value.previous_producer_id
            )

    async def recover(self) -> None:
        """Finish what a stop interrupted: markers and COMPLETE of every PREPARE_x in the log."""
        await self._end_prepared()

    async def init_producer_id(
        self,
        transactional_id: str | None,
        timeout_ms: int,
        expected_id: int = NO_PRODUCER_ID,
        expected_epoch: int = NO_EPOCH,
    ) -> ProducerIdentity:
        """InitProducerId: a null id only gets a producer id; an open transaction is aborted."""
        try:
            if transactional_id is None:
                return ProducerIdentity(ErrorCode.NONE, self._allocate_producer_id(), 0)
            if not transactional_id:
                return ProducerIdentity(ErrorCode.INVALID_REQUEST)
            if not 0 < timeout_ms <= self._limits.max_timeout_ms:
                return ProducerIdentity(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
            txn = self._transactions.get(transactional_id) or self._new(transactional_id, timeout_ms)
            if txn.pending is not None or txn.state.status in PREPARED:
                return ProducerIdentity(ErrorCode.CONCURRENT_TRANSACTIONS)
            if expected_id != NO_PRODUCER_ID and not may_continue(txn, expected_id, expected_epoch):
                return ProducerIdentity(ErrorCode.PRODUCER_FENCED)
            if txn.state.status is TxnStatus.ONGOING:
                error = await self._fence_and_abort(txn)
                return ProducerIdentity(error if error.value else ErrorCode.CONCURRENT_TRANSACTIONS)
            return await self._next_identity(txn, timeout_ms, expected_id, expected_epoch)
        except CoordinatorLogError:  # no producer id can be reserved: the disk is full
            return ProducerIdentity(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    async def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        partitions: Iterable[Partition],
    ) -> ErrorCode:
        """AddPartitionsToTxn and AddOffsetsToTxn: durable before the first record may be written."""
        if not transactional_id:
            return ErrorCode.INVALID_REQUEST
        txn = self._transactions.get(transactional_id)
        if txn is None:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if txn.pending is not None:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        state = txn.state
        error = check_producer(state, producer_id, epoch)
        if error is not ErrorCode.NONE:
            return error
        if state.status in PREPARED:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        added = frozenset(partitions)
        now_ms = self._clock.now_ms()
        if state.status is not TxnStatus.ONGOING:
            state = dataclasses.replace(state, started_at_ms=now_ms, partitions=frozenset())
        elif added <= state.partitions:
            return ErrorCode.NONE
        return await self._write(
            txn,
            dataclasses.replace(
                state,
                status=TxnStatus.ONGOING,
                partitions=state.partitions | added,
                updated_at_ms=now_ms,
            ),
        )

    async def join(
        self, transactional_id: str, producer_id: int, epoch: int, partitions: Iterable[Partition]
    ) -> ErrorCode:
        """`add_partitions` for requests that bring their partitions along (Produce v12, TxnOffsetCommit v5).

        One after the other, in the order of the calls: batches of one producer must not overtake each other.
        The caller appends before its next suspension.
        """
        queue = self._joining.setdefault(transactional_id, Queue())
        queue.length += 1
        try:
            async with queue.lock:
                return await self.add_partitions(transactional_id, producer_id, epoch, partitions)
        finally:
            queue.length -= 1
            if not queue.length:
                del self._joining[transactional_id]

    def has_joined(
        self, transactional_id: str, producer_id: int, epoch: int, partitions: Iterable[Partition]
    ) -> bool:
        """Whether nothing has to be waited for: all partitions are in the open transaction."""
        return transactional_id not in self._joining and all(
            self.verify(transactional_id, producer_id, epoch, partition) is ErrorCode.NONE
            for partition in partitions
        )

    def verify(self, transactional_id: str, producer_id: int, epoch: int, partition: Partition) -> ErrorCode:
        """Whether this producer may write transactional records to `partition` now (KIP-890, part 1).

        INVALID_TXN_STATE: the partition is not in an open transaction; CONCURRENT_TRANSACTIONS: it is ending.
        """
        txn = self._transactions.get(transactional_id)
        if txn is None:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        error = check_producer(txn.latest, producer_id, epoch)
        if error is not ErrorCode.NONE:
            return error
        if txn.latest.status in PREPARED:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        joined = txn.state.status is TxnStatus.ONGOING and partition in txn.state.partitions
        return ErrorCode.NONE if joined else ErrorCode.INVALID_TXN_STATE

    async def end(
        self, transactional_id: str, producer_id: int, epoch: int, *, commit: bool, bump: bool = False
    ) -> ProducerIdentity:
        """EndTxn: returns when the outcome and all markers are durable; a repeated one is answered alike.

        `bump`: the client speaks version 5, so the epoch is raised and the answer names the identity of the
        next transaction.
        """
        if not transactional_id:
            return ProducerIdentity(ErrorCode.INVALID_REQUEST)
        txn = self._transactions.get(transactional_id)
        if txn is None:
            return ProducerIdentity(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        judge = judge_bumping_end if bump else judge_end
        error = judge(txn, producer_id, epoch, commit=commit)
        if error is None:
            error = await self._end(txn, commit=commit, version=EPOCH_BUMP_VERSION if bump else 0)
        elif error is ErrorCode.CONCURRENT_TRANSACTIONS and txn.pending is None:
            await self._complete(txn)  # a marker could not be written before: perhaps now
            if txn.state.status not in PREPARED:
                error = ErrorCode.NONE
        return txn.identity() if error is ErrorCode.NONE else ProducerIdentity(error)

    async def tick(self) -> None:
        """Abort what ran into its timeout, finish what could not be finished, forget idle ids."""
        opened = [txn for txn in self._transactions.values() if txn.state.status is TxnStatus.ONGOING]
        await asyncio.gather(*(self._abort_if_late(txn) for txn in opened))
        await self._end_prepared()
        for txn in list(self._transactions.values()):
            idle = self._elapsed.since(txn.state.updated_at_ms) > self._limits.id_expiration_ms
            if idle and txn.pending is None and txn.state.status in ENDED:
                with contextlib.suppress(CoordinatorLogError):  # the next round tries again
                    self._log.write_soon(txn.transactional_id, None)
                    del self._transactions[txn.transactional_id]

    # -- transitions -----------------------------------------------------------------------------------

    def _new(self, transactional_id: str, timeout_ms: int) -> Transaction:
        empty = TxnMetadata(
            self._allocate_producer_id(),
            NO_EPOCH,
            timeout_ms,
            TxnStatus.EMPTY,
            frozenset(),
            self._clock.now_ms(),
            -1,
        )
        txn = self._transactions[transactional_id] = Transaction(transactional_id, empty)
        return txn

    async def _write(self, txn: Transaction, after: TxnMetadata) -> ErrorCode:
        """Log the transition; it counts once durable."""
        txn.pending = after
        try:
            await self._log.write(txn.transactional_id, after)
        except CoordinatorLogError:
            txn.pending = None
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        txn.state, txn.pending = after, None
        return ErrorCode.NONE

    async def _next_identity(
        self, txn: Transaction, timeout_ms: int, expected_id: int, expected_epoch: int
    ) -> ProducerIdentity:
        state = txn.state
        producer_id, epoch = state.producer_id, state.epoch + 1
        last_id, last_epoch = txn.last_producer_id, NO_EPOCH
        retried = expected_epoch not in (NO_EPOCH, state.epoch) and state.epoch != NO_EPOCH
        if retried:  # may_continue saw that the previous identity is named: answer the same again
            epoch, last_epoch = state.epoch, txn.last_epoch
        elif txn.exhausted:
            producer_id, epoch = self._allocate_producer_id(), 0
            last_id = state.producer_id
        if not retried and expected_epoch != NO_EPOCH:
            last_epoch = state.epoch
        error = await self._write(
            txn,
            TxnMetadata(
                producer_id,
                epoch,
                timeout_ms,
                TxnStatus.EMPTY,
                frozenset(),
                self._clock.now_ms(),
                -1,
                last_id if self._version() else NO_PRODUCER_ID,
            ),
        )
        if error is not ErrorCode.NONE:
            return ProducerIdentity(error)
        txn.last_producer_id, txn.last_epoch = last_id, last_epoch
        return ProducerIdentity(ErrorCode.NONE, producer_id, epoch)

    async def _abort_if_late(self, txn: Transaction) -> None:
        """Abort a transaction that is open for longer than its producer allowed."""
        is_open = txn.pending is None and txn.state.status is TxnStatus.ONGOING
        if is_open and self._elapsed.since(txn.state.started_at_ms) > txn.state.timeout_ms:
            with contextlib.suppress(CoordinatorLogError):  # the next round tries again
                await self._fence_and_abort(txn)

    async def _fence_and_abort(self, txn: Transaction) -> ErrorCode:
        """Abort the open transaction under a higher epoch, so that its producer is out."""
        txn.last_epoch = NO_EPOCH
        return await self._end(txn, commit=False, version=self._version(), fence=True)

    async def _end(self, txn: Transaction, *, commit: bool, version: int, fence: bool = False) -> ErrorCode:
        """Log the outcome and write the markers; NONE: both are durable, and so is what they end."""
        rolls_over = version >= EPOCH_BUMP_VERSION and txn.exhausted
        try:
            next_id = self._allocate_producer_id() if rolls_over else NO_PRODUCER_ID
        except CoordinatorLogError:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        after = prepared(
            txn, self._clock.now_ms(), commit=commit, version=version, next_producer_id=next_id, fence=fence
        )
        error = await self._write(txn, after)
        if error is ErrorCode.NONE:
            txn.unmarked = None
            await self._complete(txn)
            if txn.state.status in PREPARED:
                return ErrorCode.CONCURRENT_TRANSACTIONS
        return error

    async def _end_prepared(self) -> None:
        ending = [txn for txn in self._transactions.values() if txn.state.status in PREPARED]
        await asyncio.gather(*(self._complete(txn) for txn in ending))

    async def _complete(self, txn: Transaction) -> None:
        """Write the markers, then COMPLETE.  What fails stays PREPARE_x and is tried again by `tick`."""
        state = txn.state
        if state.status not in PREPARED or txn.transactional_id in self._ending:
            return
        self._ending.add(txn.transactional_id)
        try:
            txn.unmarked = await self._markers.write(
                state.partitions if txn.unmarked is None else txn.unmarked,
                state.producer_id,
                state.epoch,
                commit=state.status is TxnStatus.PREPARE_COMMIT,
                version=state.client_version,
            )
            if txn.unmarked:
                return
            after = completed(state, self._clock.now_ms())
            self._log.write_soon(txn.transactional_id, after)
            if after.producer_id != state.producer_id:
                txn.last_producer_id, txn.last_epoch = state.producer_id, NO_EPOCH
            txn.state = after
        except CoordinatorLogError:
            return
        finally:
            self._ending.discard(txn.transactional_id)
