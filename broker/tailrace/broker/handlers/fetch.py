"""Fetch (1): read record batches, wait for them if need be."""

import asyncio
import time
from dataclasses import dataclass
from typing import cast

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.log import LogError, PartitionLog
from tailrace.broker.protocol import Buffer, ErrorCode, default_instance
from tailrace.broker.protocol.messages import (
    AbortedTransaction,
    DivergingEpoch,
    FetchableTopicResponse,
    FetchPartition,
    FetchPartitionResponse,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    LeaderIdAndEpoch,
    SnapshotId,
)

_FIRST_VERSION_WITH_IDS = 13
_READ_COMMITTED = 1
_MOST_UNSENT = 128 << 20  # bytes that clients have asked for and do not take: beyond it, answers get small
_LEAST_ROOM = 1 << 20
_READ_AT_ONCE = 1 << 20  # bytes of an answer; what follows is read when the client has taken them
_NOTHING_DIVERGES = default_instance(DivergingEpoch)
_LEADER_IS_KNOWN = default_instance(LeaderIdAndEpoch)
_NO_SNAPSHOT = default_instance(SnapshotId)
_SESSION_FINAL_OR_NONE = (0, -1)
_REREAD_PAUSE_S = 0.005  # a fetch for many bytes reads again from the start: not at every small append


@dataclass(slots=True)
class _Result:
    """One pass over the request: what was found, and what to watch if that is too little."""

    response: FetchResponse
    size: int
    urgent: bool  # an error, or a partition that diverged: answer now
    full: bool  # the next batch did not fit: what is asked for behind it waits as well
    logs: list[PartitionLog]
    found: list[tuple[PartitionLog, int]]  # partitions with records, and their bytes


def fetch(context: RequestContext, request: FetchRequest) -> object:
    """Answer now if `min_bytes` are there, else when they are, at the latest after `max_wait_ms`.

    Every answer is full and carries session id 0, which keeps clients from making fetch sessions
    (KIP-227 allows that).  At least one whole batch is returned even if it is larger than the limits (KIP-74).
    """
    context.broker.counters.fetch_requests += 1
    if request.session_id and request.session_epoch not in _SESSION_FINAL_OR_NONE:
        return FetchResponse(error_code=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
    result = _read(context, request)
    if _enough(context, request, result) or request.max_wait_ms <= 0:
        return _counted(result)
    moved = context.broker.waiting_fetches.watch(result.logs)
    return _wait(context, request, result.logs, moved)


def _enough(context: RequestContext, request: FetchRequest, result: _Result) -> bool:
    return (
        result.size >= request.min_bytes
        or result.urgent
        or not result.logs
        or context.broker.waiting_fetches.closed
    )


async def _wait(
    context: RequestContext, request: FetchRequest, logs: list[PartitionLog], moved: asyncio.Event
) -> FetchResponse:
    waiting = context.broker.waiting_fetches
    deadline = time.monotonic() + request.max_wait_ms / 1000
    try:
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await moved.wait()
            except TimeoutError:
                break
            moved.clear()
            result = _read(context, request)
            if _enough(context, request, result):
                return _counted(result)
            await asyncio.sleep(_REREAD_PAUSE_S)
    finally:
        waiting.unwatch(logs, moved)
    return _counted(_read(context, request))


def _counted(result: _Result) -> FetchResponse:
    for log, size in result.found:
        log.bytes_out += size
    return result.response


def _read(context: RequestContext, request: FetchRequest) -> _Result:
    result = _Result(FetchResponse(), 0, False, False, [], [])
    room = max(_LEAST_ROOM, _MOST_UNSENT - context.broker.counters.unsent_bytes)
    most = min(request.max_bytes, context.broker.config.fetch_max_bytes, room)
    committed_only = request.isolation_level == _READ_COMMITTED
    for topic in request.topics:
        name = _topic_name(context, topic)
        answers: list[FetchPartitionResponse] = []
        result.response.responses.append(FetchableTopicResponse(topic.topic, topic.topic_id, answers))
        for wanted in topic.partitions:
            try:
                if name is None:
                    raise LogError(ErrorCode.UNKNOWN_TOPIC_ID, "there is no topic with this id")
                log = context.broker.logs.get(name, wanted.partition)
                answer = _told(context, log, wanted)
                if answer is None:
                    answer = _read_partition(log, wanted, most, committed_only, result)
                else:
                    result.urgent = True
            except LogError as error:
                answer = _failed(wanted, error.code)
                result.urgent = True
            answers.append(answer)
    return result


def _topic_name(context: RequestContext, topic: FetchTopic) -> str | None:
    if context.version < _FIRST_VERSION_WITH_IDS:
        return topic.topic
    return context.topic_name("", topic.topic_id) or None


def _told(
    context: RequestContext, log: PartitionLog, wanted: FetchPartition
) -> FetchPartitionResponse | None:
    """What a client is told that has another epoch than we; None: it may read."""
    if wanted.current_leader_epoch >= 0:
        stale = check_leader_epoch(context, wanted.current_leader_epoch)
        if stale is not ErrorCode.NONE:
            leader = LeaderIdAndEpoch(context.broker.config.node_id, context.broker.logs.leader_epoch)
            return FetchPartitionResponse(
                wanted.partition, stale, -1, current_leader=leader, aborted_transactions=[], records=b""
            )
    diverging = _diverging(context, log, wanted) if wanted.last_fetched_epoch >= 0 else None
    if diverging is None:
        return None
    answer = _empty(log, wanted)
    answer.diverging_epoch = diverging
    return answer


def _read_partition(
    log: PartitionLog, wanted: FetchPartition, most: int, committed_only: bool, result: _Result
) -> FetchPartitionResponse:
    answer = _empty(log, wanted)
    result.logs.append(log)
    upper = answer.last_stable_offset if committed_only else answer.high_watermark
    size = result.size
    if (size < most and not result.full) or not size:
        limit = min(wanted.partition_max_bytes, max(most - size, 0))
        later = log.read_later(wanted.fetch_offset, limit, upper=upper) if size >= _READ_AT_ONCE else None
        if later is not None:
            answer.records = cast(Buffer, later)  # it goes through the encoder as it is, to `Outgoing`
            found = len(later)
        else:
            parts = log.read(wanted.fetch_offset, limit, upper=upper, at_least_one=not size)
            found = sum(map(len, parts))
            if parts:
                answer.records = parts[0] if len(parts) == 1 else b"".join(parts)
        if found:
            result.found.append((log, found))
            result.size = size + found
        elif limit < wanted.partition_max_bytes and wanted.fetch_offset < upper:
            result.full = True
    if committed_only:
        answer.aborted_transactions = [
            AbortedTransaction(*aborted) for aborted in log.aborted_transactions(wanted.fetch_offset, upper)
        ]
    return answer


def _empty(log: PartitionLog, wanted: FetchPartition) -> FetchPartitionResponse:
    """How far the log goes, and no records."""
    return FetchPartitionResponse(
        wanted.partition,
        0,
        log.high_watermark,
        log.last_stable_offset,
        log.log_start_offset,
        _NOTHING_DIVERGES,
        _LEADER_IS_KNOWN,
        _NO_SNAPSHOT,
        None,  # the client reads uncommitted records, too
        -1,
        b"",
    )


def _failed(wanted: FetchPartition, code: ErrorCode) -> FetchPartitionResponse:
    return FetchPartitionResponse(wanted.partition, code, -1, aborted_transactions=[], records=b"")


def _diverging(context: RequestContext, log: PartitionLog, wanted: FetchPartition) -> DivergingEpoch | None:
    """Where the reader's log and ours part (KIP-595), for readers that name the last epoch they read."""
    epoch, end = end_of_epoch(log, wanted.last_fetched_epoch, context.broker.logs.leader_epoch)
    if epoch < 0 or (epoch == wanted.last_fetched_epoch and end >= wanted.fetch_offset):
        return None
    return DivergingEpoch(epoch, end)


def end_of_epoch(log: PartitionLog, epoch: int, current: int) -> tuple[int, int]:
    """(newest epoch <= `epoch`, where the log of it ends); (-1, -1) for an epoch that is yet to come.

    `current` began here where the log ends when the broker started, whether or not anything was appended
    since: Kafka's leaders note that in each log, so that a reader who was told `current` finds it again.
    """
    latest = log.leader_epoch
    if not 0 <= epoch <= current:
        return -1, -1
    if epoch <= latest:
        found, end = log.end_offset_for_epoch(epoch)
        return (found, end) if found >= 0 else (epoch, log.log_start_offset)
    if epoch == current or latest < 0:
        return epoch, log.log_end_offset
    return latest, log.log_end_offset


def check_leader_epoch(context: RequestContext, epoch: int) -> ErrorCode:
    """Compare the epoch a client believes in with ours (KIP-320); -1: it does not say."""
    ours = context.broker.logs.leader_epoch
    if epoch < 0 or epoch == ours:
        return ErrorCode.NONE
    return ErrorCode.FENCED_LEADER_EPOCH if epoch < ours else ErrorCode.UNKNOWN_LEADER_EPOCH
