"""The jars that a job needs beyond PyFlink's own.

Flink's Kafka connector comes from Maven Central through jgo and is checked against a pinned SHA-256.  The record
format `tailrace-avro` (`java/`) is built here: Janino, the compiler inside Flink's own jars, turns the sources into a
jar once per version, so that no Java development kit is needed.  PyFlink puts the jars of its library folder before
flink-python.jar on the class path, which lets one class of ours correct one of Flink's.

`TAILRACE_MAVEN_REPOSITORY` names a mirror of Maven Central.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from jgo.maven import MavenContext

from tailrace.changes.errors import TailraceError
from tailrace.flink.environment import FlinkEnvironment, cache_dir

SOURCES = Path(__file__).with_name("java")
COMPILER = Path(__file__).with_name("inside") / "compile_java.py"
FACTORY = "tailrace.flink.AvroFormatFactory"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of Maven Central, pinned by its SHA-256."""

    group: str
    name: str
    version: str
    sha256: str


KAFKA_CONNECTOR = Artifact(
    "org.apache.flink",
    "flink-sql-connector-kafka",
    "5.0.0-2.2",
    "5605c691d11a501382c383fecba37a7a552467da5ab7ba904ef5d6f3d62c5616",
)
AVRO_CONFLUENT = Artifact(
    "org.apache.flink",
    "flink-sql-avro-confluent-registry",
    "2.2.0",
    "dc331e14107ded6e07f5f77321aa06d8019aa9f33654d0658e49648409b5b80d",
)
"""Flink's own registry format: not on our jobs' path, but the proof that others' jobs can read our topics."""


def prepare(environment: FlinkEnvironment, java_home: Path) -> Path:
    """The folder of all jars of a job (`FLINK_LIB_DIR`), downloaded, checked and built where needed."""
    connector = download(KAFKA_CONNECTOR)
    ours = _own_jar(environment, java_home, connector)
    folder = cache_dir() / f"lib-{environment.root.name}-{ours.stem.rpartition('-')[2]}"
    wanted = {jar.name: jar for jar in [*(environment.flink_home / "lib").glob("*.jar"), connector, ours]}
    if not folder.is_dir():
        _link(folder, wanted)
    elif any(not (folder / name).exists() for name in wanted):
        shutil.rmtree(folder)
        _link(folder, wanted)
    return folder


def _link(folder: Path, jars: Mapping[str, Path]) -> None:
    making = folder.with_name(f"{folder.name}.{os.getpid()}")
    making.mkdir()
    for name, jar in jars.items():
        (making / name).symlink_to(jar)
    try:
        making.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(making)


def download(artifact: Artifact) -> Path:
    """The artifact's file in the cache; TailraceError when it cannot be had or is not the pinned one."""
    folder = cache_dir() / "jars"
    target = folder / f"{artifact.name}-{artifact.version}.jar"
    if target.exists() and _sha256(target) == artifact.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    mirror = os.environ.get("TAILRACE_MAVEN_REPOSITORY")
    try:
        context = MavenContext(remote_repos={"mirror": mirror}) if mirror else MavenContext()
        project = context.project(artifact.group, artifact.name).at_version(artifact.version)
        downloaded = Path(project.artifact().resolve())
    except Exception as error:  # jgo lets the errors of its HTTP library through
        raise TailraceError(
            f"{artifact.name} {artifact.version} could not be downloaded: {error}",
            fix="check the network, or name a mirror in TAILRACE_MAVEN_REPOSITORY, then start again",
        ) from error
    if _sha256(downloaded) != artifact.sha256:
        downloaded.unlink()
        raise TailraceError(
            f"{artifact.name} {artifact.version} as downloaded is not the pinned file (SHA-256 differs)",
            fix="start again; if it happens twice, the mirror or a proxy changes the file",
        )
    _put(downloaded, target)
    return target


def _own_jar(environment: FlinkEnvironment, java_home: Path, connector: Path) -> Path:
    sources = sorted(SOURCES.glob("*.java"))
    digest = hashlib.sha256(f"{environment.root.name} {connector.name}".encode())
    for source in (*sources, COMPILER):
        digest.update(source.read_bytes())
    target = cache_dir() / "jars" / f"tailrace-flink-{digest.hexdigest()[:12]}.jar"
    if target.exists() and zipfile.is_zipfile(target):
        return target
    with TemporaryDirectory(dir=target.parent) as folder:
        classes = Path(folder) / "classes"
        classes.mkdir()
        home = environment.flink_home
        libraries = [*(home / "lib").glob("*.jar"), *(home / "opt").glob("flink-python*.jar"), connector]
        command: list[str | Path] = [
            environment.python,
            "-P",
            COMPILER,
            classes,
            os.pathsep.join(map(str, libraries)),
            *sources,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "JAVA_HOME": str(java_home)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.stderr.write(done.stderr)
            raise TailraceError(
                "the Java sources could not be compiled", fix="the compiler's words are above"
            )
        built = Path(folder) / "built.jar"
        with zipfile.ZipFile(built, "w", zipfile.ZIP_DEFLATED) as jar:
            for path in sorted(classes.rglob("*.class")):
                jar.write(path, path.relative_to(classes))
            jar.writestr("META-INF/services/org.apache.flink.table.factories.Factory", FACTORY + "\n")
        _put(built, target)
    return target


def _put(source: Path, target: Path) -> None:
    """Copy so that another process sees no file or the whole file."""
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
