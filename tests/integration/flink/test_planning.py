"""Planning with Flink's own planner, without a broker: one job process for all questions."""

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from tailrace.changes.errors import ConfigError
from tailrace.flink import environment, jars
from tailrace.flink.checkpoints import JobState
from tailrace.flink.columns import Column
from tailrace.flink.config import FlinkPartConfig, TransformConfig, UdfConfig
from tailrace.flink.java import find_java
from tailrace.flink.plan import PlannedTransform, Planner
from tailrace.flink.process import JobProcess
from tailrace.flink.settings import flink_settings, process_variables
from tailrace.flink.tables import TopicSchemas, sink_ddl

pytestmark = [pytest.mark.flink, pytest.mark.slow, pytest.mark.timeout(400)]

KEY = '{"type": "record", "name": "k", "fields": [{"name": "id", "type": "long"}]}'
ORDERS = """{"type": "record", "name": "orders", "fields": [
    {"name": "id", "type": "long"}, {"name": "customer_id", "type": ["null", "long"], "default": null},
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"""
CUSTOMERS = """{"type": "record", "name": "customers", "fields": [
    {"name": "id", "type": "long"}, {"name": "country", "type": ["null", "string"], "default": null}]}"""
SCHEMAS = {
    "raw.orders": TopicSchemas("raw.orders", KEY, ORDERS),
    "raw.customers": TopicSchemas("raw.customers", KEY, CUSTOMERS),
    "raw.log": TopicSchemas("raw.log", None, CUSTOMERS),
}

Plan = Callable[..., PlannedTransform]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, flink_environment: None) -> Iterator[JobProcess]:
    config = FlinkPartConfig("shop", (), "127.0.0.1:1", "http://127.0.0.1:1", tmp_path_factory.mktemp("data"))
    state = JobState(config)
    made, java_home = environment.prepare(), find_java()
    (state.root / "tmp").mkdir()
    with JobProcess(
        made,
        state.root,
        state.root / "job.log",
        flink_settings(config, made, state, None),
        process_variables(made, java_home, jars.prepare(made, java_home), state),
        threading.Event(),
    ) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def plan(process: JobProcess, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "f.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "broken.py").write_text("import json\n\nraise ValueError('no')\n")
    config = FlinkPartConfig("shop", (), "127.0.0.1:1", "http://127.0.0.1:1", folder)
    planner = Planner(config, process, SCHEMAS.__getitem__)
    numbers = itertools.count()

    def plan_one(sql: str, *udfs: UdfConfig, key: tuple[str, ...] = ("id",)) -> PlannedTransform:
        inputs = {"orders": "raw.orders", "customers": "raw.customers", "log": "raw.log"}
        name = f"t{next(numbers)}"
        return planner.plan(
            TransformConfig(name, inputs, f"out.{name}", key, sql, udfs, folder, "shop.yaml", 10)
        )

    return plan_one


def explain(process: JobProcess, planned: PlannedTransform) -> str:
    columns = ", ".join(f"`{column.name}`" for column in planned.sink.columns)
    table = sink_ddl(
        planned.sink,
        "`__target`",
        bootstrap="127.0.0.1:1",
        security={},
        key_id=1,
        value_id=2,
        transactional_prefix="x",
        transaction_timeout_ms=1000,
    )
    into = f"INSERT INTO `__target` ({columns}, `__commit_time`)"
    statement = f"{into} SELECT {columns}, `{planned.commit_time}` FROM `__result`"
    insert = {"database": planned.transform.name, "table": table, "statement": statement}
    return str(process.ask({"do": "explain", "inserts": [insert]})["plan"])


def test_a_result_has_the_planners_columns_and_only_the_key_is_not_null(plan: Plan) -> None:
    planned = plan("SELECT id, amount * 2 AS doubled, `at`, CAST(NULL AS STRING) AS nothing FROM orders")
    assert planned.sink.columns == (
        Column("id", "BIGINT", nullable=False),
        Column("doubled", "DECIMAL(23, 2)", nullable=True),
        Column("at", "TIMESTAMP(6) WITH LOCAL TIME ZONE", nullable=True),
        Column("nothing", "VARCHAR(2147483647)", nullable=True),
    )


def test_a_stateless_transform_keeps_no_table_in_state(plan: Plan, process: JobProcess) -> None:
    twice = UdfConfig("twice", "f.py:double", "DOUBLE")
    text = explain(process, plan("SELECT *, twice(CAST(amount AS DOUBLE)) AS d FROM orders", twice))
    assert "ChangelogNormalize" not in text and "SinkMaterialize" not in text
    assert "upsertMaterialize=[true]" not in text


def test_a_filter_keeps_the_rows_that_it_may_have_to_take_back(plan: Plan, process: JobProcess) -> None:
    assert "ChangelogNormalize" in explain(process, plan("SELECT id, amount FROM orders WHERE amount > 5"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM orders",
        "select id from customers -- a comment",
        "SELECT o.*, (c.country) FROM orders AS o LEFT JOIN customers c ON c.id = o.customer_id",
        "WITH c AS (SELECT * FROM customers) SELECT o.id, c.country FROM orders o, c WHERE c.id = o.customer_id",
        "SELECT id FROM customers UNION ALL SELECT id FROM orders",
        "SELECT id, n FROM (SELECT customer_id AS id, COUNT(*) AS n FROM orders GROUP BY customer_id) AS x",
        "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY country ORDER BY id) AS n FROM customers) x WHERE n = 1",
        "SELECT id FROM customers WHERE id IN (SELECT customer_id FROM orders)",
        "\n\n  SELECT\n id, COUNT(*) AS n FROM orders GROUP BY id",
    ],
)
def test_the_commit_time_goes_through(plan: Plan, sql: str) -> None:
    planned = plan(sql)
    assert planned.commit_time is not None, planned.untraceable
    assert not any(column.name.startswith("__") for column in planned.sink.columns)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT DISTINCT id FROM orders", "SELECT DISTINCT"),
        ("SELECT id FROM orders UNION SELECT id FROM customers", "it has a SqlBasicCall"),
        ("SELECT amount AS id FROM orders NATURAL JOIN customers", "NATURAL JOIN"),
        ("SELECT id FROM (SELECT DISTINCT id FROM orders) AS x", "SELECT DISTINCT"),
        ("WITH x (id) AS (SELECT id FROM orders) SELECT id FROM x", "lists its columns"),
        ("SELECT a AS id FROM orders AS o (a, b, c, d)", "lists its columns"),
    ],
)
def test_where_a_hidden_column_could_change_the_result_there_is_none(
    plan: Plan, sql: str, reason: str
) -> None:
    planned = plan(sql)
    assert planned.commit_time is None and reason in (planned.untraceable or "")


def test_only_a_changing_result_needs_a_key(plan: Plan) -> None:
    assert plan("SELECT id FROM log", key=()).append_only
    with pytest.raises(ConfigError, match=r"shop.yaml:10: .* has no key") as refused:
        plan("SELECT id FROM orders", key=())
    assert refused.value.fix == "name the columns that identify a row of its result: key: [id]"


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT id,\n idd FROM orders", "shop.yaml:11: transform t.*: Column 'idd' not found in any table"),
        ("SELECT id FORM orders x", 'shop.yaml:10: transform t.*: unexpected "orders"'),
        ("SELECT id FROM order_lines", "shop.yaml:10: transform t.*: Object 'order_lines' not found"),
        (
            "SELECT nothing(id) FROM orders",
            "shop.yaml:10: transform t.*: No match found for function signature nothing",
        ),
        ("SELECT id, CAST(`at` AS TIME) AS t FROM orders", "column t of the result has the type TIME"),
        ("SELECT country FROM customers", "key column id is not in the result"),
        ("DELETE FROM orders", "transform t"),
    ],
)
def test_what_the_planner_refuses_is_told_with_its_line(plan: Plan, sql: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        plan(sql)
    assert "org.apache" not in str(refused.value) and "\tat " not in str(refused.value)


@pytest.mark.parametrize(
    ("udf", "says"),
    [
        (UdfConfig("f", "missing.py:f", "INT"), "function f: there is no file .*missing.py"),
        (UdfConfig("f", "f.py:treble", "INT"), "function f: .*f.py defines no function treble"),
        (UdfConfig("f", "broken.py:f", "INT"), "function f: .*broken.py:3: ValueError: no"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_told_with_file_and_line(
    plan: Plan, udf: UdfConfig, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        plan("SELECT id FROM orders", udf)
