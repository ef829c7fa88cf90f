"""One round of fdatasync for one log: what to sync, and how far the log is durable afterwards."""

from dataclasses import dataclass

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.segment import Segment
from tailrace.changes import crash_point

CRASH_POINTS = ("broker.log.before_fsync", "broker.log.after_fsync")


@dataclass(frozen=True, slots=True)
class SyncRound:
    """Segments with the size that each must have on disk; made and released on the loop, run anywhere."""

    disk: Disk
    segments: list[tuple[Segment, int]]
    directory: int | None  # its descriptor, when segments were created: their names must be durable too
    end_offset: int

    def __post_init__(self) -> None:
        for segment, _ in self.segments:
            segment.file.pin()

    def run(self) -> None:
        """Block until everything is on disk.  Raises OSError; what the disk holds is then unknown."""
        crash_point("broker.log.before_fsync")
        for segment, _ in self.segments:
            try:
                self.disk.fdatasync(segment.file.fd)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(segment.file.path)) from error
        if self.directory is not None:
            self.disk.fsync(self.directory)
            self.disk.close(self.directory)
        crash_point("broker.log.after_fsync")

    def release(self) -> None:
        """Note what is durable and let go of the files."""
        for segment, size in self.segments:
            segment.synced_size = max(segment.synced_size, size)
            segment.file.release()
