"""What a run would do, asked of the source itself: findings, columns and how each travels, warnings."""

from dataclasses import dataclass
from typing import Any

from tailrace.changes import ConfigError
from tailrace.connectors.prepare import columns_named
from tailrace.connectors.source import DiscoveredTable, Finding
from tailrace.pipeline.plan import Plan
from tailrace.pipeline.preflight import check_sinks
from tailrace.pipeline.source import open_source


@dataclass(frozen=True, slots=True)
class Findings:
    """What the source said: why it would not start, and what it would read."""

    findings: tuple[Finding, ...]
    tables: tuple[DiscoveredTable, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that forbid the start."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "findings": [{"level": item.level, "what": item.what, "fix": item.fix} for item in self.findings],
            "columns": {
                str(table.schema.id): {
                    "key": list(table.schema.key),
                    "estimated_rows": table.estimated_rows,
                    "columns": {
                        field.name: {
                            "source_type": (field.metadata or {}).get(b"pg_type", b"").decode(),
                            "type": str(field.type),
                            "nullable": field.nullable,
                        }
                        for field in table.schema.arrow
                    },
                    "warnings": list(table.warnings),
                    "left_out_by_updates": list(table.partial),
                }
                for table in self.tables
            },
        }

    def _transform_notes(self, plan: Plan) -> list[str]:
        """What whole rows cost the source, and what no transform can see."""
        notes = []
        for table in self.tables:
            sql = plan.transformed_tables().get(table.schema.id)
            if sql is None:
                continue
            if columns := columns_named(sql, table.partial):
                notes.append(
                    f"an update of {table.schema.id} that leaves {', '.join(columns)} unchanged may not carry the value "
                    "(TOAST): the source selects it again by key, as it is then; REPLICA IDENTITY FULL spares that"
                )
            notes.append(f"TRUNCATE of {table.schema.id} stops the source: a transform cannot see it")
        return notes

    def render(self, plan: Plan) -> str:
        """The plan for people."""
        lines = [f"pipeline {plan.name}: parts {', '.join(plan.parts())}"]
        for table in self.tables:
            schema = table.schema
            key = ", ".join(schema.key) or "none"
            lines.append(
                f"\n{schema.id} -> {plan.topics[schema.id]}   key: {key}   about {table.estimated_rows} rows"
            )
            for field in schema.arrow:
                source_type = (field.metadata or {}).get(b"pg_type", b"").decode()
                null = "" if field.nullable else " not null"
                lines.append(f"    {field.name}: {source_type} -> {field.type}{null}")
            lines += [f"    warning: {warning}" for warning in table.warnings]
        for name, transform in plan.spec.transforms.items():
            inputs = ", ".join(plan.resolve(wanted) for wanted in transform.inputs.values())
            lines.append(
                f"\ntransform {name}: {inputs} -> {transform.to}   key: {', '.join(transform.key) or 'none'}"
            )
        lines += [f"    note: {note}" for note in self._transform_notes(plan)]
        for name, sink in plan.spec.sinks.items():
            targets = ", ".join(f"{item.topic} -> {item.target}" for item in plan.sink_inputs(sink))
            lines.append(f"\nsink {name} ({sink.type}, {sink.mode}): {targets}")
        lines += [f"\n{item.level}: {item.what}\n    fix: {item.fix}" for item in self.findings]
        return "\n".join(lines)


def explain_plan(plan: Plan) -> Findings:
    """Ask the source and the sinks; raises what the source raises when it cannot be reached."""
    source = open_source(plan, plan.default_data_dir())
    try:
        findings = source.check(None)
        blocked = any(finding.level == "error" for finding in findings)
        try:
            check_sinks(plan, plan.default_data_dir())
        except ConfigError as error:
            findings.append(Finding("error", error.what, error.fix))
        return Findings(tuple(findings), () if blocked else tuple(source.discover()))
    finally:
        source.close()
