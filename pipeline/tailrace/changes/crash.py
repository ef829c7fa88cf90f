"""Named crash points: places where a test kills the process as a power cut would.

``TAILRACE_CRASH_AT=sink.after_data_file:3`` kills the process with SIGKILL at the third pass of the
point.  A marker file (``TAILRACE_CRASH_MARK``) makes it fire once over restarts: the file is created
just before the kill, and while it exists no point fires.  Without the variable a pass costs one
comparison.
"""

import os
import signal
from pathlib import Path

_POINT, _, _PASS = os.environ.get("TAILRACE_CRASH_AT", "").partition(":")
_MARK = os.environ.get("TAILRACE_CRASH_MARK")
_passes_left = int(_PASS or 1)


def crash_point(name: str) -> None:
    """Kill this process here if a test asked for it."""
    global _passes_left
    if name != _POINT:
        return
    _passes_left -= 1
    if _passes_left > 0 or (_MARK and Path(_MARK).exists()):
        return
    if _MARK:
        Path(_MARK).touch()
    os.kill(os.getpid(), signal.SIGKILL)
