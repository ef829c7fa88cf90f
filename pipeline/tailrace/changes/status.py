"""The status file of a part: how a running part tells the supervisor and `tailrace status` about itself.

One JSON file per part, replaced atomically about once a second.  Common fields are filled in here;
a part adds its own (`tables`, `position`, `error`).  Never row values, never secrets.
"""

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

from tailrace.changes.whole_file import replace_json


class StatusFile:
    """Writes `<data_dir>/status/<part>.json`; readers see a whole old or a whole new file."""

    def __init__(self, data_dir: Path, part: str, *, every_s: float = 1.0) -> None:
        self._path = data_dir / "status" / f"{part}.json"
        self._part = part
        self._every_s = every_s
        self._due = 0.0
        self._started_at = time.time()
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def due(self) -> bool:
        """Whether it is time to write again (a cheap check for hot loops)."""
        return time.monotonic() >= self._due

    def write(self, state: str, **fields: Any) -> None:
        """Replace the file.  `state`: starting, snapshot, running, caught_up, stopped or failed."""
        self._due = time.monotonic() + self._every_s
        usage = resource.getrusage(resource.RUSAGE_SELF)
        document = {
            "part": self._part,
            "pid": os.getpid(),
            "state": state,
            "started_at": self._started_at,
            "updated_at": time.time(),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "max_rss_bytes": usage.ru_maxrss * 1024,
            **fields,
        }
        replace_json(self._path, document, durable=False)


def read_status(data_dir: Path) -> dict[str, dict[str, Any]]:
    """All status documents of a data directory, by part; a missing directory is an empty answer."""
    folder = data_dir / "status"
    if not folder.is_dir():
        return {}
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
