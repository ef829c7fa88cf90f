"""What a batch must be before it is appended (Kafka's LogValidator, ProduceRequest.validateRecords)."""

from tailrace.broker.log.config import TopicConfig
from tailrace.broker.log.errors import LogError
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.batch import LOG_APPEND_TIME, BatchHeader, check_produced, read_header
from tailrace.broker.records.compression import Codec
from tailrace.broker.records.errors import InvalidBatchError


def check_batch(batch: memoryview, config: TopicConfig, *, internal: bool) -> BatchHeader:
    """The header of a batch that is whole, intact and allowed in this topic.  Raises LogError.

    An internal batch was just built by this broker and is believed.
    """
    if internal:
        return read_header(batch)
    try:
        header = check_produced(batch)
    except InvalidBatchError as error:
        raise LogError(error.error, error.what, fix=error.fix) from error
    if header.size > config.max_message_bytes:
        raise LogError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"a record batch of {header.size} bytes, max.message.bytes is {config.max_message_bytes}",
            fix="Send smaller batches or raise max.message.bytes of the topic",
        )
    if header.codec > max(Codec):
        raise LogError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"codec {header.codec} is unknown")
    if header.attributes & LOG_APPEND_TIME:
        raise LogError(ErrorCode.INVALID_TIMESTAMP, "a client sent a record batch with LogAppendTime")
    if header.producer_id >= 0 and header.producer_epoch < 0:
        raise LogError(ErrorCode.INVALID_RECORD, "a record batch has a producer id but no epoch")
    if header.is_transactional and header.producer_id < 0:
        raise LogError(ErrorCode.INVALID_RECORD, "a transactional record batch has no producer id")
    if config.compact:
        _check_keys(batch)
    return header


def _check_keys(batch: memoryview) -> None:
    from tailrace.broker.records.columnar_parse import parse_batches  # Numba: 80 MB that others do not pay
    from tailrace.changes.errors import TailraceError

    try:
        records = parse_batches([batch])
    except InvalidBatchError as error:
        raise LogError(error.error, error.what, fix=error.fix) from error
    except TailraceError as error:
        raise LogError(ErrorCode.CORRUPT_MESSAGE, error.what) from error
    if (records.key_length < 0).any():
        raise LogError(
            ErrorCode.INVALID_RECORD,
            "a record without a key for a compacted topic",
            fix="Give every record a key, or set cleanup.policy=delete on the topic",
        )
