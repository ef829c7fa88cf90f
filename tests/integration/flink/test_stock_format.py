"""Other people's Flink jobs, with Flink's own avro-confluent format, read and write topics of ours."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.fixtures.flink import CUSTOMERS, Topics

from tailrace.flink import environment, jars
from tailrace.flink.java import find_java

pytestmark = [pytest.mark.flink, pytest.mark.slow, pytest.mark.timeout(400)]

JOB = """
import sys
from pyflink.table import EnvironmentSettings, TableEnvironment

bootstrap, registry, jars = sys.argv[1:]
tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
tables.get_config().set("pipeline.jars", jars)
tables.get_config().set("parallelism.default", "1")
columns = "id BIGINT NOT NULL, country STRING, name STRING"
common = f"'connector' = 'kafka', 'properties.bootstrap.servers' = '{bootstrap}', 'value.format' = 'avro-confluent', "
common += f"'value.avro-confluent.url' = '{registry}', 'value.fields-include' = 'ALL'"
tables.execute_sql(f"CREATE TABLE source ({columns}) WITH ({common}, 'topic' = 'raw.shop.customers', "
                   "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset')")
tables.execute_sql(f"CREATE TABLE target ({columns}) WITH ({common}, 'topic' = 'copied', "
                   "'value.avro-confluent.subject' = 'copied-value')")
tables.execute_sql("INSERT INTO target SELECT id, UPPER(country), name FROM source").wait()
"""


def test_flinks_own_registry_format_reads_and_writes_our_topics(
    topics: Topics, flink_environment: None, tmp_path: Path
) -> None:
    topics.create("raw.shop.customers", CUSTOMERS)
    rows = [{"id": i, "country": "no", "name": None if i % 2 else f"é{i}"} for i in range(20)]
    topics.write("raw.shop.customers", rows)
    script = tmp_path / "job.py"
    script.write_text(JOB)
    made = environment.prepare()
    wanted = [jars.download(jars.KAFKA_CONNECTOR), jars.download(jars.AVRO_CONFLUENT)]
    arguments = [topics.bootstrap, topics.registry_url, ";".join(path.as_uri() for path in wanted)]
    subprocess.run(
        [made.python, script, *arguments],
        env={**os.environ, "JAVA_HOME": str(find_java())},
        timeout=300,
        check=True,
    )
    assert [value for _, value, _ in topics.records("copied")] == [{**row, "country": "NO"} for row in rows]
