"""What is counted on the way of a request: times by bucket, and every error code that an answer holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.broker.metrics.histogram import REQUEST_MS, Histogram
from tailrace.broker.metrics.requests import RequestMetrics, errors_of
from tailrace.broker.protocol import APIS, ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m


@given(st.lists(st.floats(0, 100_000)))
def test_a_histogram_counts_each_value_up_to_its_bound(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    expected = [sum(value <= bound for value in values) for bound in REQUEST_MS]
    assert [count for _, count in histogram.cumulative()] == [*expected, len(values)]
    assert histogram.total == pytest.approx(sum(values))
    twice = Histogram()
    twice.add(histogram)
    twice.add(histogram)
    assert twice.count == 2 * len(values)


def produced(*codes: int) -> m.ProduceResponse:
    return m.ProduceResponse(
        responses=[m.TopicProduceResponse("t", b"", [m.PartitionProduceResponse(0, c, 1) for c in codes])]
    )


def test_an_answer_counts_each_error_code_in_it_or_as_one_without_error() -> None:
    metrics = RequestMetrics()
    metrics.answered(ApiKey.PRODUCE, 9, 1.0, produced(0, 0))
    metrics.answered(
        ApiKey.PRODUCE, 9, 1.0, produced(0, ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.MESSAGE_TOO_LARGE)
    )
    metrics.answered(ApiKey.PRODUCE, 7, 1.0, None)  # acks=0
    assert set(metrics.stats) == {(0, 9), (0, 7)}
    stats = metrics.stats[0, 9]
    assert (stats.times.count, stats.without_error) == (2, 1)
    assert dict(stats.errors) == {ErrorCode.MESSAGE_TOO_LARGE: 2}


@pytest.mark.parametrize("key", APIS, ids=lambda key: key.name)
def test_an_empty_answer_of_every_api_holds_no_error(key: ApiKey) -> None:
    assert errors_of(APIS[key].response)(APIS[key].response()) == []


def test_error_codes_are_found_at_the_top_and_below_null_arrays() -> None:
    assert errors_of(m.ApiVersionsResponse)(m.ApiVersionsResponse(error_code=35)) == [35]
    offsets = m.OffsetFetchResponse()
    offsets.error_code = 16
    assert 16 in errors_of(m.OffsetFetchResponse)(offsets)
