"""Whether a local folder can hold tables, asked before anything is made."""

import os
from pathlib import Path

from tailrace.changes import ConfigError


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
