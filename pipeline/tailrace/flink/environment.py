"""PyFlink's own Python environment, made once per lock file in a cache folder.

apache-flink pins pyarrow, numpy and protobuf to versions that the rest of Tailrace cannot live with, so it gets
a virtual environment of its own, made by uv from `requirements.lock` (every file checked by hash):

    <cache>/flink-<hash>/            the environment; <hash> covers the locks, the interpreter and the platform
    <cache>/flink-<hash>/made.json   written last: what a whole environment holds
    <cache>/functions-<hash>/        packages that the user's functions require, put before the environment's

`<cache>` is `$TAILRACE_CACHE`, else `~/.cache/tailrace`.  Nothing is downloaded when both folders are whole; a
folder that lost a package or a jar is made again.  A file lock keeps two processes from making it at once.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from tailrace.changes.errors import ConfigError, TailraceError

LOCK = Path(__file__).with_name("requirements.lock")
BUILD_LOCK = Path(__file__).with_name("build.lock")
"""Versions of the tools that build the few packages which have no wheel."""


@dataclass(frozen=True, slots=True)
class FlinkEnvironment:
    """A whole environment: its interpreter, and the folder of the user's packages if any are required."""

    root: Path
    functions: Path | None = None

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.root / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        return _site_packages(self.root)

    @property
    def flink_home(self) -> Path:
        """Where PyFlink keeps its jars (`lib`, `opt`)."""
        return self.site_packages / "pyflink"


def cache_dir() -> Path:
    """The folder of everything that is downloaded or built once."""
    given = os.environ.get("TAILRACE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "tailrace"


def prepare(requirements: Sequence[str] = ()) -> FlinkEnvironment:
    """Return the environment, making or repairing it first where needed.

    Raises TailraceError when a download or a build fails, ConfigError when the user's requirements do not
    resolve beside PyFlink's own.
    """
    cache = cache_dir()
    root = cache / f"flink-{environment_hash()}"
    with _held(root.with_suffix(".lock")):
        if not is_whole(root):
            _make(root)
        functions = _functions_folder(cache, root, tuple(requirements)) if requirements else None
    return FlinkEnvironment(root, functions)


def environment_hash() -> str:
    """Twelve hex digits that change with the locks, the Python version and the platform."""
    digest = hashlib.sha256()
    for path in (LOCK, BUILD_LOCK):
        digest.update(path.read_bytes())
    digest.update(f"{sys.implementation.cache_tag} {sys.platform} {platform.machine()}".encode())
    return digest.hexdigest()[:12]


def is_whole(root: Path) -> bool:
    """Whether the environment holds everything that it held when it was made."""
    try:
        made = json.loads((root / "made.json").read_text())
        return made == _contents(root) and os.access(root / "bin" / "python", os.X_OK)
    except (OSError, ValueError):
        return False


def _make(root: Path) -> None:
    _say(f"making the PyFlink environment in {root} (about 450 MB to download, once)")
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    python = root / "bin" / "python"
    _uv("venv", "--python", sys.executable, str(root))
    _uv(
        "pip",
        "sync",
        "--require-hashes",
        "--build-constraints",
        str(BUILD_LOCK),
        "--python",
        str(python),
        str(LOCK),
    )
    (root / "made.json").write_text(json.dumps(_contents(root)))
    _say("the PyFlink environment is ready")


def _functions_folder(cache: Path, root: Path, requirements: tuple[str, ...]) -> Path:
    """The user's packages, resolved so that whatever PyFlink pins keeps its version."""
    digest = hashlib.sha256("\n".join([root.name, *sorted(requirements)]).encode()).hexdigest()[:12]
    folder = cache / f"functions-{digest}"
    if (folder / "made.json").exists():
        return folder
    _say(f"installing what the functions require: {', '.join(requirements)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pins = folder / "pins.txt"
    pins.write_text("\n".join(line.split(" \\")[0] for line in LOCK.read_text().splitlines() if "==" in line))
    python = root / "bin" / "python"
    try:
        _uv(
            *("pip", "install", "--target", str(folder), "--constraints", str(pins)),
            *("--python", str(python), *requirements),
        )
    except TailraceError as error:
        raise ConfigError(
            f"the functions' requirements ({', '.join(requirements)}) cannot be installed beside PyFlink: {error.what}",
            fix="loosen the versions under flink.requirements",
        ) from None
    (folder / "made.json").write_text(json.dumps(requirements))
    return folder


def _contents(root: Path) -> dict[str, object]:
    """Names of all packages, and the size of every jar: cheap to compare at each start."""
    packages = _site_packages(root)
    jars = sorted((packages / "pyflink").glob("*/*.jar"))
    return {
        "packages": sorted(path.name for path in packages.iterdir() if path.name != "__pycache__"),
        "jars": {path.name: path.stat().st_size for path in jars},
    }


def _site_packages(root: Path) -> Path:
    return root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _uv(*arguments: str) -> None:
    """Run uv: its progress bar on a terminal, its last lines in the error elsewhere."""
    on_terminal = sys.stderr.isatty()
    command = [uv.find_uv_bin(), *arguments]
    done = subprocess.run(command, stderr=None if on_terminal else subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        said = "" if on_terminal else " ".join((done.stderr or "").split()[-60:])
        raise TailraceError(
            f"uv could not {' '.join(arguments[:2])} for the PyFlink environment: {said or 'see above'}",
            fix="check the network and the disk, then start again",
        )


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold an exclusive file lock; the kernel frees it when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    sys.stderr.write(f"flink: {text}\n")
    sys.stderr.flush()
