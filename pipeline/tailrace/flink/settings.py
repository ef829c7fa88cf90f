"""Flink's configuration for a job of ours: one small JVM that listens on loopback only."""

import os
from pathlib import Path

from tailrace.flink.checkpoints import Checkpoint, JobState
from tailrace.flink.config import FlinkPartConfig
from tailrace.flink.environment import FlinkEnvironment

LOOPBACK = "127.0.0.1"

_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.name = stdout
appender.stdout.type = CONSOLE
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c{1} - %m%n
logger.states.name = org.apache.flink.runtime.executiongraph.ExecutionGraph
logger.states.level = INFO
logger.metrics.name = org.apache.flink.metrics.MetricGroup
logger.metrics.level = ERROR
logger.kafka.name = org.apache.flink.kafka.shaded.org.apache.kafka
logger.kafka.level = ERROR
"""

# what Flink needs opened in the modules of Java 17 and 21 (its own conf/config.yaml)
_OPENED = (
    "java.base/java.lang",
    "java.base/java.net",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.base/java.lang.reflect",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
)


def flink_settings(
    config: FlinkPartConfig,
    environment: FlinkEnvironment,
    state: JobState,
    checkpoint: Checkpoint | None,
) -> dict[str, str]:
    """The settings of the table environment; with `checkpoint` the job goes on from it, and owns its files."""
    settings = {
        "pipeline.name": f"tailrace {config.pipeline}",
        "parallelism.default": str(config.parallelism),
        "table.local-time-zone": "UTC",
        # checkpoints
        "execution.checkpointing.interval": f"{round(config.checkpoint_interval_s * 1000)} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.timeout": "5 min",
        "execution.checkpointing.tolerable-failed-checkpoints": "3",
        "execution.checkpointing.dir": state.checkpoints.as_uri(),
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.num-retained": "3",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.incremental": "true",
        "state.backend.type": "rocksdb",
        # most keys of a catch-up are new: without the filter each of them is looked for in every file (half the CPU)
        "state.backend.rocksdb.use-bloom-filter": "true",
        # a lost broker or registry is cured in place; whoever fails more often needs the service's back-off
        "restart-strategy.type": "failure-rate",
        "restart-strategy.failure-rate.max-failures-per-interval": "3",
        "restart-strategy.failure-rate.failure-rate-interval": "1 min",
        "restart-strategy.failure-rate.delay": "1 s",
        # loopback only, nothing to submit to
        "rest.address": LOOPBACK,
        "rest.bind-address": LOOPBACK,
        "rest.bind-port": "0",
        "security.delegation.tokens.enabled": "false",
        "web.submit.enable": "false",
        "web.cancel.enable": "false",
        "jobmanager.bind-host": LOOPBACK,
        "jobmanager.rpc.address": LOOPBACK,
        "taskmanager.bind-host": LOOPBACK,
        "taskmanager.host": LOOPBACK,
        # memory outside the heap
        "taskmanager.memory.managed.size": "192m",
        "taskmanager.memory.network.min": "32m",
        "taskmanager.memory.network.max": "32m",
        "io.tmp.dirs": str(state.root / "tmp"),
        "metrics.fetcher.update-interval": "1000",
        # Python functions
        "python.executable": str(environment.python),
        "python.client.executable": str(environment.python),
        "python.execution-mode": config.udf_mode,
        "python.fn-execution.bundle.size": "10000",
        "python.fn-execution.bundle.time": "100",
        "python.fn-execution.arrow.batch.size": "10000",
    }
    if checkpoint is not None:
        settings["execution.state-recovery.path"] = checkpoint.path.as_uri()
        settings["execution.state-recovery.claim-mode"] = "CLAIM"
    return settings


def process_variables(
    environment: FlinkEnvironment, java_home: Path, libraries: Path, state: JobState
) -> dict[str, str]:
    """Environment variables of the job's process; writes the configuration files that they point to."""
    folder = state.root / "conf"
    folder.mkdir(exist_ok=True)
    (folder / "log4j.properties").write_text(_LOG4J)
    (folder / "config.yaml").write_text("{}\n")
    java_options = [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED]
    # the second compiler costs 15 CPU seconds a start, and what it gains is lost behind RocksDB and Python
    java_options += [
        "-Xms64m",
        "-Xmx640m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:MaxMetaspaceSize=320m",
        f"-Djava.io.tmpdir={state.root / 'tmp'}",
    ]
    variables = {
        "JAVA_HOME": str(java_home),
        # PyFlink takes our library folder only from somebody who names its home too
        "FLINK_HOME": str(environment.flink_home),
        "FLINK_LIB_DIR": str(libraries),
        "FLINK_OPT_DIR": str(environment.flink_home / "opt"),
        "FLINK_PLUGINS_DIR": str(environment.flink_home / "plugins"),
        "FLINK_CONF_DIR": str(folder),
        "FLINK_LOG_DIR": str(folder),
        "LOG4J_PROPERTIES": str(folder / "log4j.properties"),
        "FLINK_ENV_JAVA_OPTS": " ".join(java_options),
        "PYTHONUNBUFFERED": "1",
        # PyFlink's other way, a worker service inside the job's own process, listens on all interfaces
        "_python_worker_execution_mode": "process",
    }
    # the interpreter inside the JVM (udf_mode thread) does not know that it belongs to a virtual environment
    folders = [environment.functions, environment.site_packages]
    variables["PYTHONPATH"] = os.pathsep.join(str(folder) for folder in folders if folder is not None)
    return variables
