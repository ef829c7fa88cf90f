"""What librdkafka tells of its consumer, and where that goes back by itself.

To a late answer of ListOffsets that it no longer wants it asks the question again half a second later, and then reads
from the beginning a partition that it was reading all the time, or that it was given since with a committed offset
("timed offset query .. in state active", librdkafka 2.16).
"""

import re
from pathlib import Path

_GOES_BACK = re.compile(rb"Topic (\S+) \[(\d+)\]: timed offset query for offset BEGINNING .* in state active")


def log_of(folder: Path, process: int) -> Path:
    """Where the error output of a client process goes."""
    return folder / f"{process}.log"


class ClientLog:
    """The error output of this process, to which librdkafka's own logger writes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._rest = b""
        self._went_back: set[str] = set()

    def went_back(self) -> set[str]:
        """Keys that are read from the beginning again, or will be."""
        text = self._rest + self._file.read()
        whole = text.rfind(b"\n") + 1
        self._rest = text[whole:]
        for topic, partition in _GOES_BACK.findall(text[:whole]):
            self._went_back.add(f"{topic.decode()}/{partition.decode()}")
        return self._went_back

    def forget(self, keys: set[str]) -> None:
        """These were brought to their committed offsets."""
        self._went_back -= keys
