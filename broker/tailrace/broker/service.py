"""The broker as a process: `run(config)` serves until SIGTERM.

`python -m tailrace.broker.service` is what `EmbeddedBroker` starts: it reads one line with the options as JSON
from standard input, writes one line `{"host": .., "port": ..}` to standard output when clients may connect, and
also stops when its standard input closes, so that it never outlives the process that started it.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from tailrace.broker import log, topics
from tailrace.broker.config import BrokerConfig
from tailrace.broker.garbage import leave_loaded_alone
from tailrace.broker.operations import Operations
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import TailraceError

CRASH_POINTS = (
    "broker.before_produce_answer",
    "broker.before_offset_commit",
    "broker.before_transaction_state",
    "broker.after_transaction_state",
    "broker.before_markers",
    "broker.between_markers",
    "broker.after_markers",
    *log.CRASH_POINTS,
    *topics.CRASH_POINTS,
)

OnReady = Callable[[BrokerServer], None]

_log = logging.getLogger(__name__)


def run(
    config: BrokerConfig,
    *,
    on_ready: OnReady | None = None,
    stop_with_stdin: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then return after a clean stop.

    `on_ready` is called once, on the broker's thread, when clients may connect: what is started there
    (the registry) must bring its own thread.  Raises TailraceError when the port is taken, the data
    directory cannot be used, or a disk write failed.  What the process makes from now on is readable by
    its user only.
    """
    os.umask(0o077)
    uvloop.run(_serve(config, on_ready, stop_with_stdin))


async def _serve(
    config: BrokerConfig,
    on_ready: OnReady | None,
    stop_with_stdin: bool,
) -> None:
    operations = Operations(config) if config.metrics_listen else None
    server = BrokerServer(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if operations is not None:
            operations.stopping()
        server.stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    if stop_with_stdin:
        loop.add_reader(sys.stdin.fileno(), stop)
    try:
        await server.start()
        if operations is not None:
            operations.serving(server)
        if on_ready is not None:
            on_ready(server)
        leave_loaded_alone()
        await server.run_until_stopped()
    finally:
        if operations is not None:
            await loop.run_in_executor(None, operations.close)


def _main(options: dict[str, Any]) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)

    def tell(server: BrokerServer) -> None:
        host, port = server.address
        ports = {door.listener.name: door.port for door in server.doors}
        sys.stdout.write(json.dumps({"host": host, "port": port, "listeners": ports}) + "\n")
        sys.stdout.flush()

    try:
        config = BrokerConfig(**{**options, "data_dir": Path(options["data_dir"])})
        run(config, on_ready=tell, stop_with_stdin=True)
    except TailraceError as error:
        sys.stderr.write(f"broker: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.stdin.readline())))
