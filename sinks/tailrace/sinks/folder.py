"""Local folders that hold tables: asked before anything is made, and durable once they are written."""

import os
from pathlib import Path

from tailrace.changes import ConfigError, TailraceError


def require_writable(folder: Path) -> None:
    """ConfigError when `folder` cannot be made or written; makes nothing."""
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ConfigError(
            f"tables cannot go to {folder}: {nearest} is a file", fix="choose a folder, or move the file away"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(
            f"tables cannot go to {folder}: {nearest} cannot be written by this user",
            fix="grant the right, or choose another folder",
        )


def make_durably(folder: Path) -> None:
    """Make `folder` with its parents, so that it is still there after a power cut."""
    if folder.is_dir():
        return
    made = [folder, *(parent for parent in folder.parents if not parent.exists())]
    folder.mkdir(parents=True, exist_ok=True)
    for step in made:
        sync_folder(step)
        sync_folder(step.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> TailraceError:
    """What to tell when a file of a table could not be written whole."""
    return TailraceError(
        f"cannot write {path}: {error.strerror}",
        fix="check that the folder may be written and the disk has room; nothing was committed",
    )
