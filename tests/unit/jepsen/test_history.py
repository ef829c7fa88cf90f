"""The file of a client process keeps all that it was told, also when the process is killed."""

from pathlib import Path

from tests.jepsen.history import Poll, Recorder, Send, Step, read_history


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 3)
    recorder.invoke("assign", keys=["t0/1"])
    recorder.complete("ok")
    recorder.invoke("txn", [Send("t0/0", 7), Poll()])
    steps: list[Step] = [Send("t0/0", 7, 11), Poll({"t0/1": [(4, 6), (5, 8)]})]
    recorder.complete("fail", steps, rebalanced=["t0/1"], group="g", error="why")
    assign, txn = read_history(tmp_path)
    assert (assign.process, assign.kind, assign.outcome, assign.keys) == (3, "assign", "ok", ("t0/1",))
    assert (txn.kind, txn.outcome, list(txn.steps)) == ("txn", "fail", steps)
    assert (txn.rebalanced, txn.group, txn.error) == (frozenset({"t0/1"}), "g", "why")
    assert txn.completed_ns is not None
    assert txn.completed_ns >= txn.invoked_ns


def test_an_operation_without_an_answer_has_an_unknown_outcome(tmp_path: Path) -> None:
    Recorder(tmp_path, 3).invoke("send", [Send("t0/0", 7)])
    (send,) = read_history(tmp_path)
    assert (send.outcome, list(send.steps), send.completed_ns) == ("info", [Send("t0/0", 7)], None)


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 3)
    recorder.invoke("send", [Send("t0/0", 7)])
    recorder.complete("ok", [Send("t0/0", 7, 1)])
    path = tmp_path / "3.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    (send,) = read_history(tmp_path)
    assert send.outcome == "info"
