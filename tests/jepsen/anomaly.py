"""What a checker objects to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that is wrong, or only notable: its name as Jepsen has it, and where it is."""

    name: str
    text: str
