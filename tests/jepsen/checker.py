"""The checker: a history in, what is wrong with it out.  The analyses are those of jepsen.tests.kafka.

Kafka's semantics allow some of what the analyses find: writes of transactions interleave (G0, G1c with ww edges,
int-send-skip), and the partitions of a subscribed consumer move between operations (poll-skip, nonmonotonic-poll).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.jepsen import cycles, sequences, values
from tests.jepsen.anomaly import Anomaly
from tests.jepsen.history import Operation
from tests.jepsen.lag import worst_lag_s
from tests.jepsen.observed import Observed

ALLOWED = frozenset(
    {
        "G0",
        "G1c-ww",
        "int-send-skip",
        "poll-skip" + sequences.SUBSCRIBED,
        "nonmonotonic-poll" + sequences.SUBSCRIBED,
    }
)
ANALYSES = (
    values.aborted_reads,
    values.inconsistent_offsets,
    values.lost_writes,
    cycles.cycles,
    sequences.internal_polls,
    sequences.external_polls,
    sequences.internal_sends,
    sequences.external_sends,
    values.duplicates,
    values.precommitted_reads,
    values.unseen,
    values.consumed_twice,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`anomalies` must be empty; `allowed` counts what Kafka's semantics permit."""

    anomalies: list[Anomaly]
    allowed: Counter[str]
    outcomes: Counter[str] = field(default_factory=Counter)
    worst_lag_s: float = 0.0


def check(history: Sequence[Operation]) -> Verdict:
    """Run every analysis."""
    seen = Observed(history)
    found = [anomaly for analysis in ANALYSES for anomaly in analysis(seen)]
    return Verdict(
        [anomaly for anomaly in found if anomaly.name not in ALLOWED],
        Counter(anomaly.name for anomaly in found if anomaly.name in ALLOWED),
        Counter(f"{operation.kind} {operation.outcome}" for operation in history),
        worst_lag_s(seen),
    )
