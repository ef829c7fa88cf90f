"""Which leader epoch wrote from which offset on: `leader-epoch-checkpoint`, in Kafka's text form.

0            version
2            entries
0 0          epoch, start offset
1 4711
"""

from itertools import pairwise
from pathlib import Path

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import checkpoint_content, read_checkpoint, replace_file

FILE_NAME = "leader-epoch-checkpoint"


class LeaderEpochs:
    """Start offsets by epoch, ascending in both."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._path = directory / FILE_NAME
        self.starts: dict[int, int] = {}
        self.written = True  # whether the file says the same

    def load(self) -> None:
        """Read the file.  Raises ValueError when it is damaged."""
        self.starts = {int(epoch): int(start) for epoch, start in read_checkpoint(self._disk, self._path, 2)}

    def note(self, epoch: int, offset: int) -> None:
        """A batch of `epoch` stands at `offset`."""
        if epoch > self.latest():
            if self.starts and self.starts[self.latest()] >= offset:  # kept for an empty log: see `cut`
                del self.starts[self.latest()]
            self.starts[epoch] = offset
            self.written = False

    def latest(self) -> int:
        """The newest epoch, -1 for none."""
        return next(reversed(self.starts), -1)

    def cut(self, log_start: int, log_end: int) -> None:
        """Forget epochs that have no offset in [log_start, log_end).

        The one that wrote the last record before `log_start` stays where nothing follows: a consumer that
        has read everything asks for it.
        """
        kept = {epoch: at for epoch, at in self.starts.items() if at < log_end or at == log_start}
        epochs = list(kept)
        for epoch, following in pairwise(epochs):
            if kept[following] <= log_start:
                del kept[epoch]
        first = next(iter(kept), None)
        if first is not None:
            kept[first] = max(kept[first], log_start)
        if kept != self.starts:
            self.starts = kept
            self.written = False

    def end_offset(self, epoch: int, log_end: int) -> tuple[int, int]:
        """(newest known epoch that is at most `epoch`, where the next one starts); (-1, -1) when unknown."""
        if epoch > self.latest():
            return -1, -1
        found, end = -1, log_end
        for known, start in self.starts.items():
            if known > epoch:
                end = start
                break
            found = known
        return (found, end) if found >= 0 else (-1, -1)

    def write(self, *, durable: bool) -> None:
        """Replace the file unless it says the same.  Raises OSError."""
        if self.written:
            return
        rows = [f"{epoch} {start}" for epoch, start in self.starts.items()]
        replace_file(self._disk, self._path, checkpoint_content(rows), durable=durable)
        self.written = True
