"""The transaction coordinator: classic protocol, `transaction.version` 0 (KIP-98, KIP-360, KIP-890 part 1).

    EMPTY <-- InitProducerId            ONGOING --EndTxn--> PREPARE_x --markers--> COMPLETE_x
      |                                    ^                                          |
      +-------- AddPartitions -------------+------------- AddPartitions --------------+

A transition is written to `__transaction_state` and counts when it is durable; until then the id is
`pending` and its producer is told CONCURRENT_TRANSACTIONS.  EndTxn is answered when PREPARE and all markers
are durable, so a producer reads its own commit.  COMPLETE needs no wait: without it, a restart finds
PREPARE and writes the same markers again.  A timeout and a second InitProducerId raise the epoch first, so
that nothing of the old producer gets in behind the abort marker.

Pure apart from what it is given: the log, the markers, the clock.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from tailrace.broker.coordinator.schemas import TxnMetadata, TxnStatus
from tailrace.broker.protocol import ErrorCode

NO_PRODUCER_ID = -1
NO_EPOCH = -1
_LAST_EPOCH = 32766  # int16 max is kept for the fence of a producer that reached this one

Partition = tuple[str, int]

_ENDED = (TxnStatus.EMPTY, TxnStatus.COMPLETE_COMMIT, TxnStatus.COMPLETE_ABORT)
_PREPARED = (TxnStatus.PREPARE_COMMIT, TxnStatus.PREPARE_ABORT)


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
        self, partitions: Iterable[Partition], producer_id: int, epoch: int, *, commit: bool
    ) -> frozenset[Partition]:
        """Write and make durable; returns the partitions that could not be written now.

        Partitions that no longer exist are done."""
        ...


class MillisecondClock(Protocol):
    """The clock of the log layer."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


class ProducerIds(Protocol):
    """Hands out producer ids."""

    def __call__(self) -> int:
        """An id that was never given out."""
        ...


@dataclass(frozen=True, slots=True)
class TransactionLimits:
    """Bounds that a broker sets (Kafka: transaction.max.timeout.ms, transactional.id.expiration.ms)."""

    max_timeout_ms: int = 4 * 3_600_000
    id_expiration_ms: int = 7 * 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class ProducerIdentity:
    """Answer to InitProducerId."""

    error: ErrorCode
    producer_id: int = NO_PRODUCER_ID
    epoch: int = NO_EPOCH


@dataclass(slots=True)
class Transaction:
    """One transactional id: its durable state, and the transition that is being written."""

    transactional_id: str
    state: TxnMetadata
    pending: TxnMetadata | None = None
    # what a retried InitProducerId (KIP-360) may still name; not in the log, as in Kafka at version 0
    last_producer_id: int = NO_PRODUCER_ID
    last_epoch: int = NO_EPOCH

    @property
    def latest(self) -> TxnMetadata:
        """The state that will stand once the pending transition is durable."""
        return self.pending or self.state


class TransactionCoordinator:
    """All transactional ids of this broker."""

    def __init__(
        self,
        limits: TransactionLimits,
        log: TransactionLog,
        markers: MarkerWriter,
        allocate_producer_id: ProducerIds,
        clock: MillisecondClock,
    ) -> None:
        self._limits = limits
        self._log = log
        self._markers = markers
        self._allocate_producer_id = allocate_producer_id
        self._clock = clock
        self._transactions: dict[str, Transaction] = {}
        self._ending: set[str] = set()  # PREPARE_x whose markers are being written right now

    def __iter__(self) -> Iterator[Transaction]:
        return iter(self._transactions.values())

    def get(self, transactional_id: str) -> Transaction | None:
        """The transactional id's state, or None if it is unknown."""
        return self._transactions.get(transactional_id)

    def replay(self, transactional_id: str, value: TxnMetadata | None) -> None:
        """Take over one record of the log, in log order."""
        if value is None:
            self._transactions.pop(transactional_id, None)
        else:
            self._transactions[transactional_id] = Transaction(transactional_id, value)

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
        if transactional_id is None:
            return ProducerIdentity(ErrorCode.NONE, self._allocate_producer_id(), 0)
        if not transactional_id:
            return ProducerIdentity(ErrorCode.INVALID_REQUEST)
        if not 0 < timeout_ms <= self._limits.max_timeout_ms:
            return ProducerIdentity(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        txn = self._transactions.get(transactional_id)
        if txn is None:
            now_ms = self._clock.now_ms()
            empty = TxnMetadata(
                self._allocate_producer_id(), NO_EPOCH, timeout_ms, TxnStatus.EMPTY, frozenset(), now_ms, -1
            )
            txn = self._transactions[transactional_id] = Transaction(transactional_id, empty)
        if txn.pending is not None or txn.state.status in _PREPARED:
            return ProducerIdentity(ErrorCode.CONCURRENT_TRANSACTIONS)
        if expected_id != NO_PRODUCER_ID and not _may_continue(txn, expected_id, expected_epoch):
            return ProducerIdentity(ErrorCode.PRODUCER_FENCED)
        if txn.state.status is TxnStatus.ONGOING:
            error = await self._fence_and_abort(txn)
            return ProducerIdentity(error if error.value else ErrorCode.CONCURRENT_TRANSACTIONS)
        return await self._next_identity(txn, timeout_ms, expected_id, expected_epoch)

    async def add_partitions(
        self, transactional_id: str, producer_id: int, epoch: int, partitions: Iterable[Partition]
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
        error = _check_producer(state, producer_id, epoch)
        if error is not ErrorCode.NONE:
            return error
        if state.status in _PREPARED:
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

    def verify(self, transactional_id: str, producer_id: int, epoch: int, partition: Partition) -> ErrorCode:
        """Whether this producer may write transactional records to `partition` now (KIP-890, part 1).

        INVALID_TXN_STATE: the partition is not in an open transaction; CONCURRENT_TRANSACTIONS: it is ending.
        """
        txn = self._transactions.get(transactional_id)
        if txn is None:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        error = _check_producer(txn.latest, producer_id, epoch)
        if error is not ErrorCode.NONE:
            return error
        if txn.latest.status in _PREPARED:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        joined = txn.state.status is TxnStatus.ONGOING and partition in txn.state.partitions
        return ErrorCode.NONE if joined else ErrorCode.INVALID_TXN_STATE

    async def end(self, transactional_id: str, producer_id: int, epoch: int, *, commit: bool) -> ErrorCode:
        """EndTxn: returns when the outcome and all markers are durable; a repeated one is answered alike."""
        if not transactional_id:
            return ErrorCode.INVALID_REQUEST
        txn = self._transactions.get(transactional_id)
        if txn is None:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        error = _check_producer(txn.state, producer_id, epoch)
        if error is not ErrorCode.NONE:
            return error
        if txn.pending is not None:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        status = txn.state.status
        if status is TxnStatus.ONGOING:
            return await self._end(txn, txn.state, commit=commit)
        if status is (TxnStatus.COMPLETE_COMMIT if commit else TxnStatus.COMPLETE_ABORT):
            return ErrorCode.NONE
        if status is (TxnStatus.PREPARE_COMMIT if commit else TxnStatus.PREPARE_ABORT):
            return ErrorCode.CONCURRENT_TRANSACTIONS
        return ErrorCode.INVALID_TXN_STATE

    async def tick(self) -> None:
        """Abort what ran into its timeout, finish what could not be finished, forget idle ids."""
        now_ms = self._clock.now_ms()
        late = [
            txn
            for txn in self._transactions.values()
            if txn.pending is None
            and txn.state.status is TxnStatus.ONGOING
            and txn.state.started_at_ms + txn.state.timeout_ms < now_ms
        ]
        await asyncio.gather(*(self._fence_and_abort(txn) for txn in late))
        await self._end_prepared()
        for txn in list(self._transactions.values()):
            idle_ms = now_ms - txn.state.updated_at_ms
            if txn.pending is None and txn.state.status in _ENDED and idle_ms > self._limits.id_expiration_ms:
                with contextlib.suppress(CoordinatorLogError):  # the next round tries again
                    self._log.write_soon(txn.transactional_id, None)
                    del self._transactions[txn.transactional_id]

    # -- transitions -----------------------------------------------------------------------------------

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
        if retried:  # _may_continue saw that the previous identity is named: answer the same again
            epoch, last_epoch = state.epoch, txn.last_epoch
        elif state.epoch >= _LAST_EPOCH:
            producer_id, epoch = self._allocate_producer_id(), 0
            last_id = state.producer_id
        if not retried and expected_epoch != NO_EPOCH:
            last_epoch = state.epoch
        error = await self._write(
            txn,
            TxnMetadata(
                producer_id, epoch, timeout_ms, TxnStatus.EMPTY, frozenset(), self._clock.now_ms(), -1
            ),
        )
        if error is not ErrorCode.NONE:
            return ProducerIdentity(error)
        txn.last_producer_id, txn.last_epoch = last_id, last_epoch
        return ProducerIdentity(ErrorCode.NONE, producer_id, epoch)

    async def _fence_and_abort(self, txn: Transaction) -> ErrorCode:
        """Abort the open transaction under a higher epoch, so that its producer is out."""
        fenced = dataclasses.replace(txn.state, epoch=min(txn.state.epoch + 1, _LAST_EPOCH + 1))
        txn.last_epoch = NO_EPOCH
        return await self._end(txn, fenced, commit=False)

    async def _end(self, txn: Transaction, state: TxnMetadata, *, commit: bool) -> ErrorCode:
        status = TxnStatus.PREPARE_COMMIT if commit else TxnStatus.PREPARE_ABORT
        prepared = dataclasses.replace(state, status=status, updated_at_ms=self._clock.now_ms())
        error = await self._write(txn, prepared)
        if error is ErrorCode.NONE:
            await self._complete(txn)
        return error

    async def _end_prepared(self) -> None:
        prepared = [
            txn
            for txn in self._transactions.values()
            if txn.state.status in _PREPARED and txn.transactional_id not in self._ending
        ]
        await asyncio.gather(*(self._complete(txn) for txn in prepared))

    async def _complete(self, txn: Transaction) -> None:
        """Write the markers, then COMPLETE.  What fails stays PREPARE_x and is tried again by `tick`."""
        if txn.transactional_id in self._ending:
            return
        state = txn.state
        commit = state.status is TxnStatus.PREPARE_COMMIT
        self._ending.add(txn.transactional_id)
        try:
            missing = await self._markers.write(
                state.partitions, state.producer_id, state.epoch, commit=commit
            )
            if missing:
                return
            after = dataclasses.replace(
                state,
                status=TxnStatus.COMPLETE_COMMIT if commit else TxnStatus.COMPLETE_ABORT,
                partitions=frozenset(),
                updated_at_ms=self._clock.now_ms(),
            )
            self._log.write_soon(txn.transactional_id, after)
            txn.state = after
        except CoordinatorLogError:
            return
        finally:
            self._ending.discard(txn.transactional_id)


def _may_continue(txn: Transaction, producer_id: int, epoch: int) -> bool:
    """Whether a producer that names itself (KIP-360) is the current one or retries its InitProducerId."""
    state = txn.state
    if state.epoch == NO_EPOCH:
        return True
    if producer_id == state.producer_id:
        return epoch in (state.epoch, txn.last_epoch)
    return producer_id == txn.last_producer_id and epoch >= _LAST_EPOCH and epoch == txn.last_epoch


def _check_producer(state: TxnMetadata, producer_id: int, epoch: int) -> ErrorCode:
    if state.producer_id != producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    return ErrorCode.NONE if state.epoch == epoch else ErrorCode.PRODUCER_FENCED
