"""Whether the broker does its work: what `/health/ready` answers from.

A check that fails says what is wrong and what to do; all of them must hold.
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tailrace.broker.broker import Broker

_NAMED = 5  # offline partitions that an answer names
_PROBE = ".health-probe"


@dataclass(frozen=True, slots=True)
class Check:
    """One condition: whether it holds, and the reason in words."""

    name: str
    ok: bool
    detail: str


def check_broker(broker: Broker) -> list[Check]:
    """What the broker's own state tells; on the event loop's thread."""
    failure, offline = broker.failure, broker.logs.offline()
    named = ", ".join(f"{topic}-{index}: {why}" for (topic, index), why in list(offline.items())[:_NAMED])
    return [
        Check("disk", failure is None, str(failure) if failure else "the last fsync succeeded"),
        Check(
            "partitions",
            not offline,
            f"{len(offline)} partitions are offline: {named}" if offline else "all partitions are online",
        ),
    ]


def check_fsync(broker: Broker) -> Check:
    """Whether the disk answers; on any thread, since the event loop may be what waits for it."""
    age_s, allowed_s = broker.flusher.backlog_age_s(time.monotonic()), broker.config.health_max_fsync_s
    late = f"an fdatasync of the log runs for {age_s:.1f} s: look at the disk"
    return Check("fsync", age_s <= allowed_s, late if age_s > allowed_s else "no fsync is late")


def check_folder(data_dir: Path, min_free_bytes: int) -> list[Check]:
    """Whether there is room and a file can be made durable; blocks on the disk, so never on the event loop."""
    try:
        free = shutil.disk_usage(data_dir).free
        room = Check(
            "space",
            free >= min_free_bytes,
            f"{free} bytes are free on the disk of {data_dir}"
            + ("" if free >= min_free_bytes else f", less than {min_free_bytes}: make room"),
        )
    except OSError as error:
        room = Check("space", False, f"cannot ask the disk of {data_dir}: {error.strerror}")
    return [room, _check_writable(data_dir)]


def _check_writable(data_dir: Path) -> Check:
    probe = data_dir / _PROBE
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, b"probe")
            os.fdatasync(fd)
        finally:
            os.close(fd)
            probe.unlink()
    except OSError as error:
        return Check("folder", False, f"cannot write to {data_dir}: {error.strerror}")
    return Check("folder", True, f"{data_dir} can be written")
