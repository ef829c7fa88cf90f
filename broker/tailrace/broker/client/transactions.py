"""A transactional producer: what is sent between `begin` and `commit` is read by read_committed readers
all or not at all (KIP-98; the classic protocol, `transaction.version` 0 and 1).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tailrace.broker.client.client import Client
from tailrace.broker.client.errors import BrokerError
from tailrace.broker.client.partition import TopicPartition
from tailrace.broker.client.sequencing import SequencedSender, fenced
from tailrace.broker.protocol import ApiKey, ErrorCode, messages
from tailrace.changes.errors import FencedError, TailraceError

_GROUP, _TRANSACTION = 0, 1
_FENCED = frozenset({ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.PRODUCER_FENCED})


class TransactionalProducer:
    """One producer per transactional id in the world: `init` fences every older one.

        producer.init()
        producer.begin()
        offsets = producer.send(items)
        producer.commit()            # or abort()

    Every call survives a broker restart of up to the client's `retry_for_s`.  After an error `abort` makes the
    producer usable again, and nothing of the failed transaction will be read; not so after FencedError, and after a
    transaction outlived its timeout, where only a new `init` helps.  After an error of `commit` itself the
    outcome is open: whoever needs it reads the log back.  Not thread-safe.
    """

    def __init__(self, client: Client, transactional_id: str, timeout_ms: int = 60_000) -> None:
        """timeout_ms: how long a transaction may stay open before the broker aborts it."""
        self._client = client
        self._id = transactional_id
        self._timeout_ms = timeout_ms
        self._sender = SequencedSender(client, transactional_id)
        self._added: set[TopicPartition] = set()
        self._in_transaction = False
        self._failed = False
        self._opened = False
        self._opened_at = 0.0

    @property
    def producer_id(self) -> int:
        """The id in use, -1 before `init`."""
        return self._sender.producer_id

    @property
    def in_transaction(self) -> bool:
        """Whether `begin` was called without `commit` or `abort` yet."""
        return self._in_transaction

    def init(self) -> None:
        """Take the transactional id over: older producers are fenced, their open transaction is aborted."""
        self._init_producer_id(-1, -1)
        self._close()

    def begin(self) -> None:
        """Open a transaction; costs no request.  Raises RuntimeError out of turn."""
        if self._sender.producer_id < 0 or self._in_transaction or self._failed:
            raise RuntimeError("begin() comes after init(), commit() or abort()")
        self._in_transaction = True

    def send(self, items: Sequence[tuple[TopicPartition, bytearray]]) -> list[int]:
        """Append whole record batches to the transaction; their base offsets, in the order given.

        Batches of one partition keep their order.  Producer id, epoch, sequence, the transactional bit and
        the CRC are filled in here, in place.  Returns when every batch is acknowledged by all in-sync
        replicas (the built-in broker: fsynced).  Raises FencedError, BrokerError, BrokerUnavailableError.
        """
        self._require_transaction("send")
        new = {place for place, _ in items} - self._added
        with self._failing():
            self._add_partitions(sorted(new))
            try:
                return self._sender.send(items)
            except FencedError as error:
                raise self._fenced() from error

    def send_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit a group's offsets with the transaction (KIP-447, without group membership)."""
        self._require_transaction("send_offsets")
        self._mark_open()
        with self._failing():
            self._client.retrying("add offsets", lambda: self._add_offsets(group))
            self._client.retrying("send offsets", lambda: self._commit_offsets(group, offsets))

    def commit(self) -> None:
        """Make the transaction readable, as a whole; returns when that is durable."""
        self._require_transaction("commit")
        with self._failing():
            self._end(commit=True)
        self._close()

    def abort(self) -> None:
        """Give the transaction up, if one is open; also the way on after an error of another call."""
        if not self._in_transaction:
            return
        failed = self._failed
        with self._failing():
            try:
                self._end(commit=False)
            except BrokerError as error:
                # after a failure the transaction may not have begun, or may have ended: both are what is wanted
                if not failed or error.error != ErrorCode.INVALID_TXN_STATE:
                    raise
            if failed:
                # which sequences are in use is uncertain now; they start anew with a new epoch
                self._init_producer_id(self._sender.producer_id, self._sender.producer_epoch)
        self._close()

    def _init_producer_id(self, producer_id: int, producer_epoch: int) -> None:
        request = messages.InitProducerIdRequest(
            transactional_id=self._id,
            transaction_timeout_ms=self._timeout_ms,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
        )

        def attempt() -> None:
            response = self._client.ask_coordinator(_TRANSACTION, self._id, ApiKey.INIT_PRODUCER_ID, request)
            self._check(response.error_code, "init producer id")
            self._sender.reset(response.producer_id, response.producer_epoch)

        self._client.retrying("init producer id", attempt)

    def _add_partitions(self, places: list[TopicPartition]) -> None:
        if not places:
            return
        topics: dict[str, list[int]] = {}
        for topic, index in places:
            topics.setdefault(topic, []).append(index)
        request = messages.AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self._id,
            v3_and_below_producer_id=self._sender.producer_id,
            v3_and_below_producer_epoch=self._sender.producer_epoch,
            v3_and_below_topics=[
                messages.AddPartitionsToTxnTopic(name=name, partitions=partitions)
                for name, partitions in topics.items()
            ],
        )

        def attempt() -> None:
            response = self._client.ask_coordinator(
                _TRANSACTION, self._id, ApiKey.ADD_PARTITIONS_TO_TXN, request
            )
            # one partition's error makes the others OPERATION_NOT_ATTEMPTED: tell of the cause
            errors = sorted(
                (
                    (result.partition_error_code, TopicPartition(topic.name, result.partition_index))
                    for topic in response.results_by_topic_v3_and_below
                    for result in topic.results_by_partition
                ),
                key=lambda error: error[0] == ErrorCode.OPERATION_NOT_ATTEMPTED,
            )
            for code, place in errors:
                self._check(code, f"add {place} to a transaction")

        self._mark_open()
        self._client.retrying("add partitions to a transaction", attempt)
        self._added.update(places)

    def _add_offsets(self, group: str) -> None:
        request = messages.AddOffsetsToTxnRequest(
            transactional_id=self._id,
            producer_id=self._sender.producer_id,
            producer_epoch=self._sender.producer_epoch,
            group_id=group,
        )
        response = self._client.ask_coordinator(_TRANSACTION, self._id, ApiKey.ADD_OFFSETS_TO_TXN, request)
        self._check(response.error_code, f"add offsets of group {group} to a transaction")

    def _commit_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        topics: dict[str, list[messages.TxnOffsetCommitRequestPartition]] = {}
        for (topic, index), offset in offsets.items():
            topics.setdefault(topic, []).append(
                messages.TxnOffsetCommitRequestPartition(
                    partition_index=index, committed_offset=offset, committed_metadata=""
                )
            )
        request = messages.TxnOffsetCommitRequest(
            transactional_id=self._id,
            group_id=group,
            producer_id=self._sender.producer_id,
            producer_epoch=self._sender.producer_epoch,
            topics=[
                messages.TxnOffsetCommitRequestTopic(name=name, partitions=partitions)
                for name, partitions in topics.items()
            ],
        )
        response = self._client.ask_coordinator(_GROUP, group, ApiKey.TXN_OFFSET_COMMIT, request)
        for topic in response.topics:
            for partition in topic.partitions:
                if partition.error_code in _FENCED:
                    raise self._fenced()
                self._client.check_coordinator(
                    _GROUP, group, partition.error_code, f"commit offsets of group {group} in a transaction"
                )

    def _end(self, *, commit: bool) -> None:
        if not self._opened:
            return
        request = messages.EndTxnRequest(
            transactional_id=self._id,
            producer_id=self._sender.producer_id,
            producer_epoch=self._sender.producer_epoch,
            committed=commit,
        )
        what = "commit a transaction" if commit else "abort a transaction"

        def attempt() -> None:
            response = self._client.ask_coordinator(_TRANSACTION, self._id, ApiKey.END_TXN, request)
            self._check(response.error_code, what)

        self._client.retrying(what, attempt)

    def _mark_open(self) -> None:
        if not self._opened:
            self._opened = True
            self._opened_at = time.monotonic()

    def _close(self) -> None:
        self._added.clear()
        self._opened = self._in_transaction = self._failed = False

    def _require_transaction(self, call: str) -> None:
        if not self._in_transaction or self._failed:
            raise RuntimeError(f"{call}() comes after begin(), and not after an error without abort()")

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Whatever is raised inside leaves the transaction good for nothing but `abort`."""
        try:
            yield
        except BaseException:
            self._failed = True
            raise

    def _check(self, error_code: int, what: str) -> None:
        if error_code in _FENCED:
            raise self._fenced()
        self._client.check_coordinator(_TRANSACTION, self._id, error_code, f"{what} of {self._id}")

    def _fenced(self) -> TailraceError:
        """A bumped epoch means a newer producer, unless the broker has aborted a transaction that took too long."""
        if self._opened and time.monotonic() - self._opened_at >= self._timeout_ms / 1000:
            return TailraceError(
                f"a transaction of {self._id} was open longer than its timeout of {self._timeout_ms / 1000:g} s, "
                "so the broker has aborted it",
                fix="start this part again; it goes on from its last commit",
            )
        return fenced(f"transactional id {self._id}")
