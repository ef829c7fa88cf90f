"""Where suites from registry packages are kept between runs, and the commands that bring and run them."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class MissingToolchain(Exception):
    """A suite cannot be run here; the message says what is missing and how it is had."""


def cache_dir(name: str) -> Path:
    """A folder of our own below the project's cache (TAILRACE_CACHE, else ~/.cache/tailrace)."""
    given = os.environ.get("TAILRACE_CACHE")
    folder = (Path(given) if given else Path.home() / ".cache" / "tailrace") / "conformance" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def on_path(command: str, how: str) -> str:
    """The program's path.  Raises MissingToolchain with `how` it is had."""
    found = shutil.which(command)
    if found is None:
        raise MissingToolchain(f"there is no {command} on PATH: {how}")
    return found


def call(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900.0,
) -> str:
    """Run a command that must succeed and return what it printed.  Raises RuntimeError with its last lines."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise RuntimeError(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{last}")
    return done.stdout
