"""A verdict passes only when everything was done that it speaks of."""

from pathlib import Path

from tailrace.pipeline.demo.chaos import Chaos
from tailrace.pipeline.verify.report import Report, TableVerdict


def test_a_table_with_keys_that_could_not_be_compared_does_not_pass() -> None:
    verdict = TableVerdict("lake", "orders", "mirror", rows=5, through=7, unsettled=2)
    assert not verdict.equal
    assert not Report([verdict]).equal
    assert "NOT CHECKED, 2 keys kept changing" in verdict.render()


def test_a_part_that_could_not_be_killed_did_not_survive_a_kill(tmp_path: Path) -> None:
    said: list[str] = []
    chaos = Chaos(tmp_path, ("source",), 0.0, said.append)
    chaos.run()
    chaos.wait_for_recovery()
    assert (chaos.planned, chaos.survived) == (1, 0)
    assert said == ["could not kill source: it does not run"]
