"""Kafka's own tools, each run with a broker of ours and judged by what it prints: `tool_cases` has them by noun."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.conformance.cases import judged
from tests.conformance.outcome import SuiteRun
from tests.conformance.target import Target, running
from tests.conformance.tool_cases import (
    cluster,
    configs,
    consoles,
    groups,
    newer_groups,
    records,
    security,
    topics,
    transactions,
    workloads,
)
from tests.conformance.tool_cases.bench import Bench, Case
from tests.interop.kafka_tools import VERSION as VERSION
from tests.interop.kafka_tools import KafkaTools, class_path

NAME = "kafka-tools"
_NOUNS = (
    topics,
    configs,
    groups,
    records,
    transactions,
    consoles,
    security,
    cluster,
    workloads,
    newer_groups,
)
CASES: dict[str, Case] = {
    f"{noun.__name__.rpartition('.')[2]}::{case.__name__}": case for noun in _NOUNS for case in noun.CASES
}


def run(only: Sequence[str], folder: Path, target: Target = Target.TAILRACE) -> SuiteRun:
    """Every case in its order, or those of `only`, on one broker."""
    tools = KafkaTools(class_path())
    started = time.monotonic()
    with running(target, folder / "data", authorizer=True) as bootstrap:
        outcomes = []
        for name in only or CASES:
            scratch = folder / name.replace("::", ".")
            scratch.mkdir()
            bench = Bench(bootstrap, tools, scratch, folder / "data")
            outcomes.append(judged(name, partial(CASES[name], bench)))
    return SuiteRun(NAME, VERSION, tuple(outcomes), time.monotonic() - started, bool(only))
