"""One part of a plan as this process: what `tailrace run FILE --only PART` does.

Exit codes tell the supervisor what to do: 0 stopped cleanly, 1 or 2 a person must act, 75 (EX_TEMPFAIL)
try again later; anything else, a signal above all, is a crash and is restarted.  The reason goes to the
supervisor through a pipe: where the disk is full, no file could carry it.
"""

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from tailrace.changes.errors import ConfigError, TailraceError, operating_system_error
from tailrace.changes.status import StatusFile
from tailrace.pipeline.plan import BROKER, SOURCE, TRANSFORM, Endpoints, Plan

EX_TEMPFAIL = 75
_EX_SOFTWARE = 70
_REASON_BYTES = 4096  # PIPE_BUF: written whole or not at all
SUPERVISOR_PID = "TAILRACE_SUPERVISOR_PID"
REASON_FD = "TAILRACE_REASON_FD"
_PR_SET_PDEATHSIG = 1


def run_part(plan: Plan, part: str, data_dir: Path) -> None:
    """Run one part in the foreground until SIGTERM.

    Raises TailraceError with the exit code for the supervisor: EX_TEMPFAIL where a later try may succeed.
    """
    if part not in plan.parts():
        raise ConfigError(
            f"the pipeline {plan.name} has no part '{part}'", fix=f"parts: {', '.join(plan.parts())}"
        )
    die_with_supervisor()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        _run(plan, part, data_dir, stop)
    except TailraceError as error:
        if error.retriable:
            error.exit_code = EX_TEMPFAIL
        _tell(data_dir, part, error)
        raise
    except OSError as error:
        failure = operating_system_error(error, f"the part {part} stopped")
        _tell(data_dir, part, failure)
        raise failure from error
    except Exception:
        # not an error that tells a person what to do: crash, so that the supervisor tries again
        logging.getLogger("tailrace").exception("%s crashed", part)
        sys.exit(_EX_SOFTWARE)


def _tell(data_dir: Path, part: str, error: TailraceError) -> None:
    """Leave the reason for `tailrace status` and hand it to the supervisor."""
    with contextlib.suppress(OSError):
        StatusFile(data_dir, part).write("waiting" if error.retriable else "failed", error=str(error))
    pipe = os.environ.get(REASON_FD)
    if pipe is not None:
        os.write(int(pipe), str(error).encode()[:_REASON_BYTES])


def _run(plan: Plan, part: str, data_dir: Path, stop: threading.Event) -> None:
    if part == BROKER:
        from tailrace.broker.options import read_options
        from tailrace.pipeline.broker_file import run_options
        from tailrace.registry import service as broker

        broker.run(
            data_dir / "broker",
            listen=plan.spec.broker.listen,
            registry_listen=plan.spec.registry.listen,
            options=read_options(run_options(), plan.spec.broker.config),
            endpoints_file=endpoints_path(data_dir),
        )
        return
    endpoints = wait_for_endpoints(plan, data_dir, stop)
    if endpoints is None:
        return
    if part == SOURCE:
        from tailrace.connectors import service as source

        source.run(plan.source_config(data_dir, endpoints), stop)
    elif part == TRANSFORM:
        from tailrace.flink import service as flink

        flink.run(plan.flink_config(data_dir, endpoints), stop)
    else:
        from tailrace.sinks import service as sinks

        sinks.run(plan.sink_config(part.removeprefix("sink."), data_dir, endpoints), stop)


def endpoints_path(data_dir: Path) -> Path:
    """Where the broker writes the addresses that it listens on."""
    return data_dir / "endpoints.json"


def read_endpoints(plan: Plan, data_dir: Path) -> Endpoints | None:
    """The addresses of broker and registry; None while our own broker has not said them yet."""
    spec = plan.spec
    if not plan.embedded:
        assert spec.broker.bootstrap and spec.registry.url  # the loader refuses a file without them
        return Endpoints(
            spec.broker.bootstrap, spec.registry.url, plan.cluster.security, plan.cluster.registry_login
        )
    try:
        written = json.loads(endpoints_path(data_dir).read_text())
    except FileNotFoundError:
        return None
    url = spec.registry.url or written["registry_url"]
    return Endpoints(written["bootstrap"], url, registry_login=plan.cluster.registry_login)


def wait_for_endpoints(
    plan: Plan, data_dir: Path, stop: threading.Event, *, timeout_s: float = 60.0
) -> Endpoints | None:
    """Wait until the broker has said where it listens; None when asked to stop meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not stop.is_set():
        endpoints = read_endpoints(plan, data_dir)
        if endpoints is not None:
            return endpoints
        if time.monotonic() > deadline:
            raise TailraceError(
                f"no broker has started on {data_dir}",
                fix=f"start it with: tailrace run {plan.file} --only broker",
            )
        stop.wait(0.05)
    return None


def die_with_supervisor() -> None:
    """Ask the kernel for SIGTERM when the supervisor dies, so that no part outlives it."""
    supervisor = os.environ.get(SUPERVISOR_PID)
    if supervisor is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):  # it died before the call above
        sys.exit(0)
