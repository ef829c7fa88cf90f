"""Error codes against kio's and kafka-python's tables."""

from kio.schema.errors import ErrorCode as KioErrorCode

from tailrace.broker.protocol import ErrorCode


def test_error_codes_are_kafkas() -> None:
    theirs = {(code.value, code.name.upper(), code.retriable) for code in KioErrorCode}
    assert {(code.value, code.name, code.retriable) for code in ErrorCode} == theirs


def test_a_code_from_the_future_reads_as_unknown() -> None:
    assert ErrorCode.of(32000) is ErrorCode.UNKNOWN_SERVER_ERROR
    assert ErrorCode.of(1) is ErrorCode.OFFSET_OUT_OF_RANGE
