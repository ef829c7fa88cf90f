"""What the in-process cluster says of itself: state, failures, checkpoints and record counts, by REST on loopback."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.flink.failures import causes_of


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the job."""

    state: str
    checkpoint_id: int | None
    checkpoint_at_ms: int | None
    checkpoint_bytes: int
    records_in: int
    records_out: int
    tables_read: frozenset[str]
    """Names of the tables that the job has a source for: an input that no SQL names has none."""


@dataclass(frozen=True, slots=True)
class RestartedFor:
    """A failure that the cluster restarted the job for."""

    at_ms: int
    causes: list[tuple[str, str]]


class Monitor:
    """Looks at one job."""

    def __init__(self, rest: str, job_id: str) -> None:
        self._job = f"{rest.rstrip('/')}/jobs/{job_id}"

    def look(self) -> Observed | None:
        """State, newest checkpoint and record counts; None while the cluster does not answer."""
        job, checkpoints = self._get(""), self._get("/checkpoints")
        if job is None or checkpoints is None:
            return None
        completed = (checkpoints.get("latest") or {}).get("completed") or {}
        vertices = job["vertices"]
        return Observed(
            state=job["state"],
            checkpoint_id=completed.get("id"),
            checkpoint_at_ms=completed.get("latest_ack_timestamp"),
            checkpoint_bytes=completed.get("state_size", 0),
            records_in=_counted(vertices, "write-records", "Source"),
            records_out=_counted(vertices, "read-records", "Writer"),
            tables_read=frozenset(
                name for vertex in vertices for name in re.findall(r"Source: (.+?)\[\d+\]", vertex["name"])
            ),
        )

    def failures(self) -> list[RestartedFor]:
        """The failures so far that the cluster restarted the job for, newest first (Flink keeps the last 16)."""
        answer = self._get("/exceptions")
        if answer is None:
            return []
        entries = answer.get("exceptionHistory", {}).get("entries", [])
        return [RestartedFor(entry["timestamp"], causes_of(entry["stacktrace"])) for entry in entries]

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(self._job + path, timeout=5) as response:
                return dict(json.load(response))
        except (urllib.error.URLError, OSError, ValueError):
            return None


def _counted(vertices: Sequence[dict[str, Any]], metric: str, named: str) -> int:
    return sum(vertex["metrics"].get(metric, 0) for vertex in vertices if named in vertex["name"])
