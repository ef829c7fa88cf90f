"""What a batch must be before it is appended, and what a topic may make of it (Kafka's LogValidator)."""

from crc32c import crc32c

from tailrace.broker.log.config import TopicConfig
from tailrace.broker.log.errors import LogError
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.batch import (
    CODEC_MASK,
    CRC_START,
    HEADER,
    HEADER_BYTES,
    LENGTH_END,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    BatchHeader,
    check_produced,
    read_header,
)
from tailrace.broker.records.compression import Codec, compress, decompress
from tailrace.broker.records.errors import InvalidBatchError

INFLATED_BYTES = 64 << 20
"""A batch that has to be opened may inflate to this size, or to max.message.bytes if that is more."""

INFLATED_FREELY = 4 << 20
MOST_RATIO = 1_000
"""Beyond INFLATED_FREELY, or max.message.bytes if that is more, a batch may inflate to so many times its size: few
kilobytes of zstd would otherwise cost as much as a megabyte of records.  Readers take what is in the log."""

_NO_TIMESTAMP = -1
_LAST_CODEC = max(Codec)


class RecordsRefusedError(LogError):
    """Some records of a batch are not allowed, so none is appended; `records` counts them from 0 (KIP-467)."""

    def __init__(self, code: ErrorCode, records: list[int], why: str, *, fix: str = "") -> None:
        super().__init__(code, f"{len(records)} records of the batch are refused: {why}", fix=fix)
        self.records = records
        self.why = why


def check_batch(batch: memoryview, config: TopicConfig, now_ms: int, *, internal: bool) -> BatchHeader:
    """The header of a batch that is whole, intact and allowed in this topic.  Raises LogError.

    An internal batch was just built by this broker and is believed.
    """
    if internal:
        return read_header(batch)
    if not batch:
        raise LogError(ErrorCode.INVALID_RECORD, "a partition was sent no record batch")
    try:
        header = check_produced(batch)
    except InvalidBatchError as error:
        raise LogError(error.error, error.what, fix=error.fix) from error
    attributes = header.attributes
    if len(batch) > config.max_message_bytes:
        raise _too_large(len(batch), config)
    if attributes & CODEC_MASK > _LAST_CODEC:
        raise LogError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"codec {header.codec} is unknown")
    if attributes & LOG_APPEND_TIME:
        raise LogError(ErrorCode.INVALID_TIMESTAMP, "a client sent a record batch with LogAppendTime")
    if header.producer_id >= 0 and header.producer_epoch < 0:
        raise LogError(ErrorCode.INVALID_RECORD, "a record batch has a producer id but no epoch")
    if attributes & TRANSACTIONAL and header.producer_id < 0:
        raise LogError(ErrorCode.INVALID_RECORD, "a transactional record batch has no producer id")
    if header.max_timestamp - now_ms > config.timestamp_after_max_ms and not config.log_append_time:
        raise LogError(
            ErrorCode.INVALID_TIMESTAMP,
            f"a record has the timestamp {header.max_timestamp}, more than message.timestamp.after.max.ms="
            f"{config.timestamp_after_max_ms} ahead of the broker's clock at {now_ms}",
            fix="Correct the clock of the producer, or raise message.timestamp.after.max.ms of the topic",
        )
    if config.reads_records:
        _check_records(batch, config, now_ms)
    return header


def _check_records(batch: memoryview, config: TopicConfig, now_ms: int) -> None:
    from tailrace.broker.records.columnar_parse import parse_batches  # Numba: 80 MB that others do not pay
    from tailrace.changes.errors import TailraceError

    header = read_header(batch)
    if header.codec:  # inflated here, where a bomb is refused, and not by the parser with its wider limit
        payload = _inflated(header, batch, config)
        batch = memoryview(_packed(header._replace(attributes=header.attributes & ~CODEC_MASK), payload))
    try:
        records = parse_batches([batch])
    except TailraceError as error:
        raise LogError(ErrorCode.CORRUPT_MESSAGE, error.what) from error
    if config.compact and (missing := (records.key_length < 0).nonzero()[0]).size:
        raise RecordsRefusedError(
            ErrorCode.INVALID_RECORD,
            missing.tolist(),
            "a compacted topic takes no record without a key",
            fix="Give every record a key, or set cleanup.policy=delete on the topic",
        )
    if config.log_append_time:
        return
    times = records.timestamp_ms
    oldest = now_ms - config.timestamp_before_max_ms
    if (old := ((times < oldest) & (times != _NO_TIMESTAMP)).nonzero()[0]).size:
        raise RecordsRefusedError(
            ErrorCode.INVALID_TIMESTAMP,
            old.tolist(),
            f"a timestamp is more than message.timestamp.before.max.ms={config.timestamp_before_max_ms} "
            f"behind the broker's clock at {now_ms}",
        )


def rewritten(
    batch: memoryview, header: BatchHeader, config: TopicConfig, now_ms: int
) -> tuple[BatchHeader, bytearray, memoryview]:
    """The batch with the timestamp and the codec that the topic wants: header, its bytes, records.

    Under LogAppendTime the attributes say so and the greatest timestamp is now; under another
    compression.type than the batch's the records are compressed again.  Raises LogError: MESSAGE_TOO_LARGE,
    CORRUPT_MESSAGE.
    """
    records = batch[HEADER_BYTES:]
    if config.log_append_time:
        attributes = header.attributes | LOG_APPEND_TIME
        header = header._replace(attributes=attributes, max_timestamp=now_ms)
    if config.codec is not None and config.codec != header.codec:
        payload = _inflated(header, batch, config)
        packed = compress(config.codec, payload, level=config.compression_level)
        attributes = header.attributes & ~CODEC_MASK | config.codec
        length = HEADER_BYTES - LENGTH_END + len(packed)
        header, records = header._replace(attributes=attributes, length=length), memoryview(packed)
        if header.size > config.max_message_bytes:
            raise _too_large(header.size, config)
    header = header._replace(crc=crc32c(records, crc32c(HEADER.pack(*header)[CRC_START:])))
    return header, bytearray(HEADER.pack(*header)), records


def _inflated(header: BatchHeader, batch: memoryview, config: TopicConfig) -> bytes:
    records = batch[HEADER_BYTES:]
    proportionate = max(INFLATED_FREELY, config.max_message_bytes, MOST_RATIO * len(records))
    limit = min(max(INFLATED_BYTES, config.max_message_bytes), proportionate)
    try:
        return decompress(header.codec, records, limit=limit)
    except InvalidBatchError as error:
        raise LogError(error.error, error.what, fix=error.fix) from error


def _packed(header: BatchHeader, records: bytes) -> bytes:
    length = HEADER_BYTES - LENGTH_END + len(records)
    return HEADER.pack(*header._replace(length=length)) + records


def _too_large(size: int, config: TopicConfig) -> LogError:
    return LogError(
        ErrorCode.MESSAGE_TOO_LARGE,
        f"a record batch of {size} bytes, max.message.bytes is {config.max_message_bytes}",
        fix="Send smaller batches or raise max.message.bytes of the topic",
    )
