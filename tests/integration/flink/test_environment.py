"""The PyFlink environment: made once, repaired when damaged, and able to run without a Java of the machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tailrace.changes.errors import ConfigError
from tailrace.flink import environment, jars
from tailrace.flink.java import find_java

pytestmark = [pytest.mark.flink, pytest.mark.slow, pytest.mark.timeout(900)]


def python(made: environment.FlinkEnvironment, code: str) -> str:
    return subprocess.run(
        [made.python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_damaged_environment_is_repaired_and_a_whole_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_CACHE", str(tmp_path))
    made = environment.prepare()
    assert python(made, "import pyarrow; print(pyarrow.__version__)").startswith("16.")
    mark = made.root / "made.json"
    first = mark.stat().st_mtime_ns
    environment.prepare()
    assert mark.stat().st_mtime_ns == first

    jar = next((made.flink_home / "lib").glob("flink-dist-*.jar"))
    jar.unlink()
    shutil.rmtree(made.site_packages / "py4j")
    assert not environment.is_whole(made.root)
    repaired = environment.prepare()
    assert jar.exists() and python(repaired, "import py4j; print('there')") == "there"


def test_functions_get_packages_of_their_own_beside_pyflinks(flink_environment: None) -> None:
    made = environment.prepare(["iniconfig==2.1.0"])
    assert made.functions is not None and (made.functions / "iniconfig").is_dir()
    assert not (made.site_packages / "iniconfig").exists()
    assert environment.prepare(["iniconfig==2.1.0"]).functions == made.functions


def test_a_requirement_that_pyflink_cannot_live_with_is_refused(flink_environment: None) -> None:
    with pytest.raises(ConfigError, match=r"cannot be installed beside PyFlink"):
        environment.prepare(["pyarrow>=21"])


def test_a_changed_jar_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_CACHE", str(tmp_path))
    path = jars.download(jars.KAFKA_CONNECTOR)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert jars.download(jars.KAFKA_CONNECTOR).read_bytes() == whole


def test_java_comes_from_a_wheel_where_the_machine_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    java = find_java() / "bin" / "java"
    version = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    assert 'version "21' in version


def test_a_java_that_flink_does_not_support_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "java"
    fake.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() != tmp_path
