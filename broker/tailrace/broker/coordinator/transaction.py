"""One transactional id: its state, and which requests that state allows.

    EMPTY --> ONGOING --> PREPARE_COMMIT --> COMPLETE_COMMIT --> ONGOING ..
                    `---> PREPARE_ABORT  --> COMPLETE_ABORT  --> ONGOING ..

Classic protocol (KIP-98, `transaction.version` 0): a transaction ends under the epoch it was written in.
Second version (KIP-890, `transaction.version` 2): each end raises the epoch, so a late request of one
transaction can never touch the next; an aborting client may also have written nothing at all.

Pure: no clock, no log.
"""

import dataclasses
from dataclasses import dataclass

from tailrace.broker.coordinator.schemas import TxnMetadata, TxnStatus
from tailrace.broker.protocol import ErrorCode

NO_PRODUCER_ID = -1
NO_EPOCH = -1
LAST_EPOCH = 32766  # int16 max is kept for the fence of a producer that reached this one
EPOCH_BUMP_VERSION = 2  # the transaction version from which every end raises the epoch

Partition = tuple[str, int]

ENDED = (TxnStatus.EMPTY, TxnStatus.COMPLETE_COMMIT, TxnStatus.COMPLETE_ABORT)
PREPARED = (TxnStatus.PREPARE_COMMIT, TxnStatus.PREPARE_ABORT)


@dataclass(frozen=True, slots=True)
class ProducerIdentity:
    """Answer to InitProducerId and EndTxn: the identity to go on with."""

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
    # PREPARE_x: the partitions that still wait for their marker; None: all of them
    unmarked: frozenset[Partition] | None = None

    @property
    def latest(self) -> TxnMetadata:
        """The state that will stand once the pending transition is durable."""
        return self.pending or self.state

    @property
    def exhausted(self) -> bool:
        """Whether the producer id has no further epoch for its producer."""
        return self.state.epoch >= LAST_EPOCH

    def identity(self) -> ProducerIdentity:
        """The producer id and epoch that may write now."""
        return ProducerIdentity(ErrorCode.NONE, self.state.producer_id, self.state.epoch)


def may_continue(txn: Transaction, producer_id: int, epoch: int) -> bool:
    """Whether a producer that names itself (KIP-360) is the current one or retries its InitProducerId."""
    state = txn.state
    if state.epoch == NO_EPOCH:
        return True
    if producer_id == state.producer_id:
        return epoch in (state.epoch, txn.last_epoch)
    return producer_id == txn.last_producer_id and epoch >= LAST_EPOCH and epoch == txn.last_epoch


def check_producer(state: TxnMetadata, producer_id: int, epoch: int) -> ErrorCode:
    """Whether this is the current producer of a transactional id."""
    if state.producer_id != producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    return ErrorCode.NONE if state.epoch == epoch else ErrorCode.PRODUCER_FENCED


def judge_end(txn: Transaction, producer_id: int, epoch: int, *, commit: bool) -> ErrorCode | None:
    """The answer to an EndTxn of the classic protocol; None: the transaction is to be ended."""
    error = check_producer(txn.state, producer_id, epoch)
    if error is not ErrorCode.NONE:
        return error
    if txn.pending is not None:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    status = txn.state.status
    if status is TxnStatus.ONGOING:
        return None
    if status is (TxnStatus.COMPLETE_COMMIT if commit else TxnStatus.COMPLETE_ABORT):
        return ErrorCode.NONE
    if status is (TxnStatus.PREPARE_COMMIT if commit else TxnStatus.PREPARE_ABORT):
        return ErrorCode.CONCURRENT_TRANSACTIONS
    return ErrorCode.INVALID_TXN_STATE


def judge_bumping_end(txn: Transaction, producer_id: int, epoch: int, *, commit: bool) -> ErrorCode | None:
    """The answer to an EndTxn v5; None: the transaction is to be ended.

    A retry names the epoch that its first try has raised.  A commit that comes after the coordinator
    aborted is fenced (KAFKA-20785): its records are gone, and no second try may find out otherwise.
    """
    if txn.pending is not None:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    state = txn.state
    rolled_over = producer_id == txn.last_producer_id and epoch == LAST_EPOCH and state.epoch == 0
    retried = rolled_over or (producer_id == state.producer_id and state.epoch == epoch + 1)
    if producer_id != state.producer_id and not rolled_over:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    current = state.epoch == epoch and producer_id == state.producer_id
    if state.status in (TxnStatus.ONGOING, TxnStatus.EMPTY):
        if not current:
            return ErrorCode.PRODUCER_FENCED
        may_end = state.status is TxnStatus.ONGOING or not commit
        return None if may_end else ErrorCode.INVALID_TXN_STATE
    if retried:
        return _judge_retry(state.status, commit=commit)
    if not current or state.status in PREPARED:
        return ErrorCode.PRODUCER_FENCED
    return ErrorCode.INVALID_TXN_STATE if commit else None


def _judge_retry(status: TxnStatus, *, commit: bool) -> ErrorCode:
    committed = status in (TxnStatus.PREPARE_COMMIT, TxnStatus.COMPLETE_COMMIT)
    if committed is not commit:
        return ErrorCode.PRODUCER_FENCED if commit else ErrorCode.INVALID_TXN_STATE
    return ErrorCode.CONCURRENT_TRANSACTIONS if status in PREPARED else ErrorCode.NONE


def prepared(
    txn: Transaction, now_ms: int, *, commit: bool, version: int, next_producer_id: int, fence: bool
) -> TxnMetadata:
    """PREPARE_x of this transaction; `fence`: the coordinator aborts, under an epoch of its own."""
    state = txn.state
    bumps = version >= EPOCH_BUMP_VERSION
    return dataclasses.replace(
        state,
        status=TxnStatus.PREPARE_COMMIT if commit else TxnStatus.PREPARE_ABORT,
        epoch=min(state.epoch + (bumps or fence), LAST_EPOCH + 1),
        next_producer_id=next_producer_id,
        client_version=version if bumps else 0,
        started_at_ms=state.started_at_ms if state.status is TxnStatus.ONGOING else now_ms,
        updated_at_ms=now_ms,
    )


def completed(state: TxnMetadata, now_ms: int) -> TxnMetadata:
    """COMPLETE_x after PREPARE_x; an exhausted producer id gives way to the one that was made for it."""
    rolls_over = state.next_producer_id != NO_PRODUCER_ID
    committed = state.status is TxnStatus.PREPARE_COMMIT
    return dataclasses.replace(
        state,
        status=TxnStatus.COMPLETE_COMMIT if committed else TxnStatus.COMPLETE_ABORT,
        producer_id=state.next_producer_id if rolls_over else state.producer_id,
        epoch=0 if rolls_over else state.epoch,
        previous_producer_id=state.producer_id if rolls_over else state.previous_producer_id,
        next_producer_id=NO_PRODUCER_ID,
        partitions=frozenset(),
        updated_at_ms=now_ms,
    )
