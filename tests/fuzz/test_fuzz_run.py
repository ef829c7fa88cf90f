"""A short run of the fuzzer in every test run; `make fuzz` is the long one (10 million inputs)."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import psutil
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient
from tests.unit.broker.protocol.random_messages import random_message

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.handlers import HANDLERS
from tailrace.broker.protocol import APIS, ApiKey, encode_request
from tailrace.broker.protocol import messages as m

SECONDS = os.environ.get("TAILRACE_FUZZ_SECONDS", "20")
ROUNDS = int(os.environ.get("TAILRACE_FUZZ_ROUNDS", "2"))
SEED = int(os.environ.get("TAILRACE_FUZZ_SEED", "1"))
ANSWER_S = 0.25


@pytest.mark.timeout(0)
def test_no_damaged_input_makes_a_reader_crash_hang_or_grow() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seconds", SECONDS],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none failed" in done.stdout


@pytest.mark.timeout(0)
def test_no_well_formed_request_makes_a_handler_fail(broker_factory: BrokerFactory) -> None:
    """Random content of the right form, every API in every version, each round on a broker that has seen it all."""
    broker = broker_factory(auto_create_topics=True, default_partitions=2)
    rng = Random(SEED)
    memory = psutil.Process(broker.pid).memory_info().rss
    for _ in range(ROUNDS):
        wire = WireClient(broker.bootstrap, timeout_s=ANSWER_S)
        for key in HANDLERS:
            for version in range(APIS[key].served.first, APIS[key].served.last + 1):
                request = random_message(APIS[key].request, version, rng)
                if key is ApiKey.FETCH:
                    request.max_wait_ms = 0
                try:
                    wire.send_bytes(b"".join(encode_request(key, version, 1, "me", request)))
                    wire.receive_bytes()
                except (ConnectionError, TimeoutError):
                    wire.close()
                    wire = WireClient(broker.bootstrap, timeout_s=ANSWER_S)
        wire.close()
    assert_unharmed(broker)
    assert psutil.Process(broker.pid).memory_info().rss - memory < 300 << 20


def assert_unharmed(broker: EmbeddedBroker) -> None:
    with WireClient(broker.bootstrap) as wire:
        assert wire.ask(ApiKey.METADATA, m.MetadataRequest([])).brokers
    log = broker.log_path.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 300 :][:4000]
    assert broker.stop() == 0
    broker.restart()
