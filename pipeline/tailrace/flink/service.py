"""The Flink part: prepares the environment, starts the job, watches it and restarts it.

Durability: the results of a transform become visible together with the offsets and the state that they were
computed from (Flink's checkpoint commits the sink's Kafka transaction, FLIP-143).  A job that dies goes on from the
newest whole checkpoint; a transaction that the checkpoint had prepared is committed then, a later one aborted.
"""

import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tailrace.broker.client import BrokerUnavailableError, Client
from tailrace.changes import crash_point
from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.changes.status import StatusFile
from tailrace.flink import environment, jars
from tailrace.flink.checkpoints import Checkpoint, JobState
from tailrace.flink.config import FlinkPartConfig
from tailrace.flink.environment import FlinkEnvironment
from tailrace.flink.failures import classify
from tailrace.flink.java import find_java
from tailrace.flink.lag import Lag
from tailrace.flink.monitor import Monitor, Observed, RestartedFor
from tailrace.flink.plan import PlannedTransform, Planner, create_targets, group_of, in_order
from tailrace.flink.process import JobEnded, JobProcess, RequestFailed, Stopped
from tailrace.flink.security import secret_variables
from tailrace.flink.settings import flink_settings, process_variables
from tailrace.flink.tables import TopicSchemas
from tailrace.registry.client import RegistryClient

CRASH_POINTS = (
    "flink.before_state_file",
    "flink.after_state_file",
    "flink.after_target_topic",
    "flink.after_target_subjects",
    "flink.before_job_start",
    "flink.after_job_start",
    "flink.after_first_checkpoint",
)

_LOOK_EVERY_S = 0.5
_LONGEST_PAUSE_S = 30.0
_RESTARTS_WITHOUT_PROGRESS = 3
_ATTEMPTS_WITHOUT_PROGRESS = 5
_STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Tools:
    """What every start of the job needs, prepared once."""

    environment: FlinkEnvironment
    libraries: Path
    java_home: Path


def prepare(requirements: Sequence[str] = ()) -> None:
    """Download and build everything that a job needs; a later start then needs no network."""
    _prepare(requirements)


def run(config: FlinkPartConfig, stop: threading.Event) -> None:
    """Run the transforms until `stop` is set; raise TailraceError when a retry cannot help.

    Waits until every input topic has its subjects in the registry.  Results appear in the target topics
    exactly once for read_committed readers, through kills of any process, as long as the job is not down for
    longer than `transaction_timeout_s`.
    """
    status = StatusFile(config.data_dir, "transform")
    status.write("starting", step="environment")
    try:
        tools = _prepare(config.requirements)
        _run_until_stopped(config, tools, status, stop)
    except TailraceError as error:
        status.write("failed", error=str(error))
        raise
    status.write("stopped")


def validate(config: FlinkPartConfig, schemas: Sequence[TopicSchemas] = ()) -> tuple[PlannedTransform, ...]:
    """Plan every transform with Flink's own planner; ConfigError with file and line for what it refuses.

    Runs nothing and creates nothing in broker and registry.  Topics that `schemas` does not give are looked up in
    the registry.
    """
    tools = _prepare(config.requirements)
    known = {given.topic: given for given in schemas}
    registry = RegistryClient(config.registry_url, login=config.registry_login)

    def schemas_of(topic: str) -> TopicSchemas:
        found = known.get(topic) or _look_up(registry, topic)
        if found is None:
            raise ConfigError(f"topic {topic} has no schema yet", fix="run the source first")
        return found

    state = JobState(config)
    try:
        with _process(config, tools, state, None, threading.Event()) as process:
            process.wait_ready()
            planner = Planner(config, process, schemas_of)
            return tuple(planner.plan(transform) for transform in in_order(config.transforms))
    except JobEnded as ended:
        raise classify(ended.causes, config.transforms).error from None
    finally:
        registry.close()


def _prepare(requirements: Sequence[str]) -> _Tools:
    made = environment.prepare(requirements)
    java_home = find_java()
    return _Tools(made, jars.prepare(made, java_home), java_home)


def _run_until_stopped(
    config: FlinkPartConfig, tools: _Tools, status: StatusFile, stop: threading.Event
) -> None:
    """Start the job again and again, with a pause that grows until a checkpoint completes."""
    failed = 0
    pause = 1.0
    while not stop.is_set():
        session = _Session(config, tools, status, stop)
        try:
            session.run()
            return
        except Stopped:
            return
        except (JobEnded, RequestFailed) as ended:
            failure = classify(ended.causes, config.transforms)
            failed, pause = (1, 1.0) if session.checkpoints_made else (failed + 1, pause)
            if not failure.curable or failed >= _ATTEMPTS_WITHOUT_PROGRESS:
                raise failure.error from None
            status.write("starting", step="restart", error=str(failure.error), attempts=failed)
        except BrokerUnavailableError as error:
            status.write("starting", step="broker", error=str(error))
        stop.wait(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


class _Session:
    """One life of the job's process: plan, start, watch, stop."""

    def __init__(
        self, config: FlinkPartConfig, tools: _Tools, status: StatusFile, stop: threading.Event
    ) -> None:
        self._config = config
        self._tools = tools
        self._status = status
        self._stop = stop
        self._state = JobState(config)
        self.checkpoints_made = 0

    def run(self) -> None:
        """Returns after a clean stop.  Raises JobEnded, RequestFailed, Stopped, TailraceError."""
        pinned = self._state.pinned_schemas() if self._state.newest() else {}
        config = self._config
        registry = RegistryClient(config.registry_url, login=config.registry_login)
        client = Client(
            config.bootstrap, client_id=f"tailrace.{config.pipeline}.transform", security=config.security
        )
        # started before the schemas are there: Java takes seconds to come up
        process = _process(self._config, self._tools, self._state, self._state.newest(), self._stop)
        try:
            with process, client:
                self._status.write("starting", step="flink")
                process.wait_ready()
                planner = Planner(
                    self._config,
                    process,
                    lambda topic: pinned.get(topic) or self._wait_for_topic(registry, client, topic),
                )
                planned = [planner.plan(transform) for transform in in_order(self._config.transforms)]
                if not pinned:
                    self._state.pin(planner.inputs())
                inserts = create_targets(self._config, planned, client, registry)
                self._start_and_watch(process, inserts, planned)
        finally:
            registry.close()

    def _start_and_watch(
        self, process: JobProcess, inserts: list[dict[str, str]], planned: Sequence[PlannedTransform]
    ) -> None:
        crash_point("flink.before_job_start")
        started = process.ask({"do": "start", "inserts": inserts})
        crash_point("flink.after_job_start")
        monitor = Monitor(started["rest"], started["job_id"])
        lag = Lag(self._config.bootstrap, group_of(self._config.pipeline), self._config.security)
        try:
            self._watch(process, monitor, lag, planned)
        finally:
            lag.close()
        self._status.write("stopping")
        process.stop_cleanly(self._state.checkpoints, timeout_s=_STOP_TIMEOUT_S)

    def _watch(
        self, process: JobProcess, monitor: Monitor, lag: Lag, planned: Sequence[PlannedTransform]
    ) -> None:
        """Return when asked to stop."""
        untraceable = {plan.transform.name: plan.untraceable for plan in planned if plan.untraceable}
        seen: int | None = None
        rows: int | None = None
        while not self._stop.wait(_LOOK_EVERY_S):
            process.check()
            observed = monitor.look()
            if observed is None:
                continue
            self._judge(monitor.failures(), observed)
            if observed.checkpoint_id is not None and observed.checkpoint_id != seen:
                if seen is None:
                    crash_point("flink.after_first_checkpoint")
                    self._state.prune()
                seen = observed.checkpoint_id
                self.checkpoints_made += 1
            if self._status.due():
                counted = lag.rows(observed.tables_read)
                rows = rows if counted is None else counted
                self._write_status(process, observed, rows, untraceable)

    def _judge(self, failures: Sequence[RestartedFor], observed: Observed) -> None:
        """Flink would restart the job for ever: not for what no restart cures, and not without progress."""
        for failure in failures:
            told = classify(failure.causes, self._config.transforms)
            if not told.curable:
                raise told.error
        fruitless = [failure for failure in failures if failure.at_ms > (observed.checkpoint_at_ms or 0)]
        if len(fruitless) >= _RESTARTS_WITHOUT_PROGRESS:
            raise JobEnded(fruitless[0].causes)

    def _write_status(
        self, process: JobProcess, observed: Observed, lag_rows: int | None, untraceable: dict[str, str]
    ) -> None:
        """`lag_rows` and `checkpoint_id` are None until both are known: together they tell who is caught up."""
        cpu, memory = process.usage()
        completed = observed.checkpoint_at_ms
        self._status.write(
            "running" if observed.state == "RUNNING" else "starting",
            job_state=observed.state,
            checkpoint_id=None if lag_rows is None else observed.checkpoint_id,
            lag_rows=lag_rows,
            checkpoint_age_s=None if completed is None else round(time.time() - completed / 1000, 3),
            checkpoint_bytes=observed.checkpoint_bytes,
            records_in=observed.records_in,
            records_out=observed.records_out,
            child_pid=process.pid,
            child_cpu_seconds=cpu,
            child_rss_bytes=memory,
            without_commit_time=untraceable,
        )

    def _wait_for_topic(self, registry: RegistryClient, client: Client, topic: str) -> TopicSchemas:
        while True:
            found = _look_up(registry, topic)
            if found is not None and client.metadata([topic]):
                return found
            self._status.write("starting", step=f"waiting for topic {topic} and its schema")
            if self._stop.wait(0.2):
                raise Stopped


def _process(
    config: FlinkPartConfig,
    tools: _Tools,
    state: JobState,
    checkpoint: Checkpoint | None,
    stop: threading.Event,
) -> JobProcess:
    temporary = state.root / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return JobProcess(
        tools.environment,
        state.root,
        config.data_dir / "logs" / "transform.log",
        flink_settings(config, tools.environment, state, checkpoint),
        process_variables(tools.environment, tools.java_home, tools.libraries, state)
        | secret_variables(config),
        stop,
    )


def _look_up(registry: RegistryClient, topic: str) -> TopicSchemas | None:
    """The newest schemas of a topic, None while it has no value schema."""
    value = registry.latest(f"{topic}-value")
    if value is None:
        return None
    key = registry.latest(f"{topic}-key")
    return TopicSchemas(topic, key[1] if key else None, value[1])
