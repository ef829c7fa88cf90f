"""The part of `make interop` that CI runs: kcat whole, and a few of Kafka's own tools, judged by the same lists.

`make interop` runs every suite whole (kgo a minute, kafka-tools four, kafka-python five on an idle machine); here is
what fits a minute and reaches each group of APIs once.
"""

from pathlib import Path

import pytest
from tests.conformance import kafka_tools as suite
from tests.conformance import kcat
from tests.conformance.cache import MissingToolchain
from tests.conformance.expected import Expectations, judge
from tests.interop.kafka_tools import KafkaTools

QUICK = (
    "topics::describe",
    "configs::topic",
    "groups::describe",
    "records::log_dirs",
    "transactions::list_and_describe",
    "consoles::keys_and_headers",
    "security::add_list_remove",
    "cluster::broker_api_versions",
    "cluster::reassign_partitions",
    "workloads::client_compatibility",
    "workloads::log_compaction_tester",
)
pytestmark = pytest.mark.slow


@pytest.mark.java
@pytest.mark.timeout(600)
def test_kafkas_own_tools_print_what_they_print_of_apache_kafka(
    kafka_tools: KafkaTools, tmp_path: Path
) -> None:
    run = suite.run(QUICK, tmp_path)
    assert judge(run, Expectations.load(suite.NAME)).problems == []


def test_kcat_lists_produces_and_consumes_with_every_codec_in_groups_and_transactions(tmp_path: Path) -> None:
    try:
        run = kcat.run((), tmp_path)
    except MissingToolchain as error:  # neither kcat nor apt
        pytest.skip(str(error))
    assert judge(run, Expectations.load(kcat.NAME)).problems == []
