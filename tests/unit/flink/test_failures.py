"""What ends a job, in plain words."""

from pathlib import Path

import pytest

from tailrace.flink.config import TransformConfig, UdfConfig
from tailrace.flink.failures import causes_of, classify, refused_sql

TRANSFORM = TransformConfig(
    name="enriched",
    inputs={"t": "raw.t"},
    to="out",
    key=("id",),
    sql="SELECT id,\n  idd\nFROM t",
    udfs=(UdfConfig("risk", "risk.py:score", "DOUBLE"),),
    base_dir=Path("/project"),
    file="shop.yaml",
    line=31,
)
TRACEBACK = """Error received from SDK harness for instruction 1: Traceback (most recent call last):
  File "/env/lib/worker.py", line 289, in _execute
    response = task()
  File "/project/risk.py", line 12, in score
    return weight(amount)
  File "/project/risk.py", line 4, in weight
    return 1 / amount
ZeroDivisionError: float division by zero
"""


def test_an_unknown_column_names_the_line_of_the_pipeline_file() -> None:
    error = refused_sql(
        TRANSFORM,
        [
            (
                "org.apache.flink.table.api.ValidationException",
                "SQL validation failed. From line 2, column 3 to line 2, column 5: ...",
            ),
            (
                "org.apache.calcite.runtime.CalciteContextException",
                "From line 2, column 3 to line 2, column 5: Column 'idd' not found in any table",
            ),
        ],
    )
    assert error.what.startswith("shop.yaml:32: transform enriched: Column 'idd' not found in any table")
    assert "(SQL line 2, column 3: idd)" in error.what and error.exit_code == 2


def test_a_parse_error_names_what_was_not_expected_and_where() -> None:
    message = 'SQL parse failed. Encountered "x" at line 3, column 6.\nWas expecting one of:\n    <EOF>'
    error = refused_sql(TRANSFORM, [("org.apache.flink.table.api.SqlParserException", message)])
    assert error.what.startswith(
        'shop.yaml:33: transform enriched: unexpected "x" (SQL line 3, column 6: FROM t)'
    )


def test_a_function_that_cannot_be_loaded_is_told_as_it_is() -> None:
    error = refused_sql(
        TRANSFORM, [("python.BadFunction", "function risk: there is no file /project/risk.py")]
    )
    assert "there is no file /project/risk.py" in error.what


def test_a_function_that_raises_is_named_with_file_line_and_exception() -> None:
    failure = classify(
        [("java.lang.RuntimeException", "Failed to close"), ("java.lang.RuntimeException", TRACEBACK)],
        [TRANSFORM],
    )
    assert not failure.curable
    assert failure.error.what == (
        "transform enriched: function risk raised ZeroDivisionError: float division by zero "
        "at /project/risk.py:4, in weight"
    )


@pytest.mark.parametrize(
    ("kind", "message", "words"),
    [
        (
            "org.apache.flink.kafka.shaded.org.apache.kafka.common.errors.SaslAuthenticationException",
            "Authentication failed: the credentials are not valid for this mechanism",
            "refuses the login",
        ),
        (
            "tailrace.flink.SchemaMismatchException",
            "column a is Avro string in schema 4, ...",
            "do not fit the transform",
        ),
        ("java.lang.ArithmeticException", "/ by zero", "cannot be computed"),
        ("org.apache.flink.x.RecordTooLargeException", "The message is 2000000 bytes", "too large"),
        ("java.lang.OutOfMemoryError", "Java heap space", "out of memory"),
        (
            "org.apache.flink.util.StateMigrationException",
            "The new state serializer",
            "does not fit the transforms",
        ),
    ],
)
def test_what_would_fail_again_is_not_retried(kind: str, message: str, words: str) -> None:
    failure = classify(
        [("org.apache.flink.runtime.JobException", "Recovery is suppressed"), (kind, message)], [TRANSFORM]
    )
    assert not failure.curable and words in failure.error.what


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("org.apache.kafka.common.errors.TimeoutException", "Timeout expired while fetching topic metadata"),
        ("org.apache.kafka.common.errors.ProducerFencedException", "There is a newer producer"),
        ("java.net.ConnectException", "Connection refused"),
    ],
)
def test_a_lost_broker_is_retried(kind: str, message: str) -> None:
    assert classify(
        [("org.apache.flink.util.FlinkRuntimeException", "x"), (kind, message)], [TRANSFORM]
    ).curable


def test_a_process_that_ended_without_a_word_is_retried() -> None:
    assert classify([], [TRANSFORM]).curable


def test_a_printed_stack_trace_is_read_back_into_its_causes() -> None:
    trace = (
        "org.apache.flink.util.FlinkException: Global failure\n"
        "\tat org.apache.flink.A.b(A.java:1)\n"
        "\t... 3 more\n"
        "Caused by: pemja.core.PythonException: <class 'risk.TooMuch'>: no\n"
        "two lines\n"
        "\tat /project/risk.weight(risk.py:3) ~[?:?]\n"
        "\tat /project/risk.score(risk.py:7)\n"
        "\tat <string>.<lambda>(<string>:1)\n"
        "\tat pemja.core.PythonInterpreter.invokeMethod(PythonInterpreter.java:115)\n"
        "Caused by: java.lang.IllegalStateException\n"
        "\tat x.Y.z(Y.java:1)\n"
    )
    causes = causes_of(trace)
    assert [kind.rpartition(".")[2] for kind, _ in causes] == [
        "FlinkException",
        "PythonException",
        "IllegalStateException",
    ]
    assert causes[0][1] == "Global failure" and causes[2][1] == ""
    failure = classify(causes, [TRANSFORM])
    assert failure.error.what == (
        "transform enriched: function risk raised TooMuch: no at /project/risk.py:3, in weight"
    )
