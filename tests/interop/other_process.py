"""A writer in a process of its own: for a client that leaves sockets and threads behind when its broker dies."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.synchronize
import threading
from typing import cast

from tests.interop.ledger import Ledger, Progress
from tests.interop.writers import TIMEOUT_S, Writer


class _Steps(Progress):
    """Progress in the child: each step becomes a message to the parent."""

    def __init__(self, pipe: "multiprocessing.connection.Connection[object, object]") -> None:
        super().__init__()
        self._pipe = pipe

    def step(self) -> None:
        self._pipe.send("step")


def in_other_process(writer: Writer) -> Writer:
    """The same writer, which then runs in a child process; an exception there ends the step messages early."""

    def write(bootstrap: str, ledger: Ledger, progress: Progress, stop: threading.Event) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child_stop = context.Event()
        child = context.Process(target=_run, args=(writer, bootstrap, theirs, child_stop), daemon=True)
        child.start()
        theirs.close()

        def forward_stop() -> None:
            stop.wait()
            child_stop.set()

        threading.Thread(target=forward_stop, daemon=True).start()
        try:
            while (message := ours.recv()) == "step":
                progress.step()
            result = cast(Ledger, message)
            ledger.acknowledged |= result.acknowledged
            ledger.aborted |= result.aborted
            ledger.unknown += result.unknown
        finally:
            ours.close()
            child.join(TIMEOUT_S)

    return write


def _run(
    writer: Writer,
    bootstrap: str,
    pipe: "multiprocessing.connection.Connection[object, object]",
    stop: multiprocessing.synchronize.Event,
) -> None:
    ledger = Ledger()
    writer(bootstrap, ledger, _Steps(pipe), cast(threading.Event, stop))
    pipe.send(ledger)
