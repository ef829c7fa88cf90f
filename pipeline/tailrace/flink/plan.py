"""What Flink's planner says about a transform before it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """A column of a transform's result: `type` as Flink SQL writes it, without NOT NULL."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class PlannedTransform:
    """The result of one transform: its columns, and whether it only appends (no updates, no deletes)."""

    name: str
    columns: tuple[PlannedColumn, ...]
    append_only: bool
    has_commit_time: bool
