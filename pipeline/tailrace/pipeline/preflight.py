"""Every reason not to run a plan that can be seen before a process or a file is made."""

from pathlib import Path

from tailrace.changes import ConfigError
from tailrace.connectors.session import check
from tailrace.connectors.source import LogState, SourceUnavailable
from tailrace.pipeline.plan import BROKER, Endpoints, Plan
from tailrace.pipeline.source import open_source
from tailrace.sinks.service import make_sink

_NOWHERE = Endpoints("", "")  # the checks ask neither broker nor registry


def preflight(plan: Plan, data_dir: Path) -> None:
    """Ask the source and the sinks; nothing is changed anywhere.

    Raises ConfigError with what is wrong.  SourceUnavailable only for a data directory that has no log
    yet (then that the slot is free is asked too): later runs wait for a source that is down.
    """
    check_sinks(plan, data_dir)
    is_new = plan.embedded and not (data_dir / BROKER).is_dir()
    source = open_source(plan, data_dir)
    try:
        check(source, LogState() if is_new else None)
    except SourceUnavailable:
        if is_new:
            raise
    finally:
        source.close()


def check_sinks(plan: Plan, data_dir: Path) -> None:
    """ConfigError for a sink whose tables could not be written."""
    for name in plan.spec.sinks:
        config = plan.sink_config(name, data_dir, _NOWHERE)
        sink = make_sink(config)
        try:
            sink.check([item.target for item in config.inputs])
        except ConfigError as error:
            raise ConfigError(f"sink '{name}': {error.what}", fix=error.fix) from None
        finally:
            sink.close()
