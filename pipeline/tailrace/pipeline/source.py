"""The source of a plan, to be asked: for its findings, its position, or its rows at a fence."""

from pathlib import Path

from tailrace.connectors.plugins import load_source
from tailrace.connectors.source import Source, SourceContext
from tailrace.pipeline.plan import Plan


def open_source(plan: Plan, data_dir: Path) -> Source:
    """The plan's source; connects nowhere before it is asked something."""
    plugin = load_source(plan.spec.source.type)
    context = SourceContext(plan.name, data_dir / "source", plan.tables_needing_keys())
    return plugin(plugin.Config(**plan.spec.source.options), context)
