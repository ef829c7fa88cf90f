"""`partition.metadata`: which topic a partition's directory belongs to, in Kafka's text form.

version: 0
topic_id: 3db0mQ8uQ9S0tJd4x1xk2A
"""

import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from tailrace.broker.log.disk import Disk
from tailrace.broker.log.durable import read_file, replace_file
from tailrace.broker.log.errors import DamagedLogError

METADATA = "partition.metadata"


def _metadata(topic_id: uuid.UUID) -> bytes:
    text = urlsafe_b64encode(topic_id.bytes).decode().rstrip("=")
    return f"version: 0\ntopic_id: {text}\n".encode()


def belongs(disk: Disk, directory: Path, topic_id: uuid.UUID) -> bool:
    """Whether the directory is that topic's; a creation that a crash cut short belongs to whoever comes."""
    path = directory / METADATA
    return not disk.exists(path) or read_file(disk, path) == _metadata(topic_id)


def claim(disk: Disk, directory: Path, topic_id: uuid.UUID, *, created: bool) -> bool:
    """Make the directory and its `partition.metadata`; an existing one must belong to the same topic.

    True: it was made, and the names are durable once the directory and its parent are synced.
    """
    path = directory / METADATA
    if disk.exists(path):
        if not belongs(disk, directory, topic_id):
            raise DamagedLogError(
                f"the directory {directory} belongs to another topic of that name",
                fix="Move it away, or restore the broker's metadata database that goes with it",
            )
        return False
    if disk.exists(directory) and created:
        raise DamagedLogError(
            f"the directory {directory} has no {METADATA}", fix="Restore it from a copy, or delete the topic"
        )
    disk.make_directory(directory)
    replace_file(disk, path, _metadata(topic_id), name_durable=False)
    return True
