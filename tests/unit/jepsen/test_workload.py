"""The workload is the same for the same seed, writes each value once, and moves on to new keys."""

from random import Random

from tests.jepsen.history import Send
from tests.jepsen.workload import Task, Workload

SECONDS = 10.0


def tasks(process: int, *, transactional: bool = True, subscribes: bool = False) -> list[Task]:
    workload = Workload(
        Random(process), process, transactional=transactional, subscribes=subscribes, seconds=SECONDS
    )
    return [workload.next(SECONDS * number / 500) for number in range(500)]


def sends(made: list[Task]) -> list[Send]:
    return [step for task in made for step in task.steps if isinstance(step, Send)]


def test_the_same_seed_and_process_choose_alike() -> None:
    assert tasks(3) == tasks(3)
    assert tasks(3) != tasks(4)


def test_no_value_is_written_twice() -> None:
    values = [send.value for process in range(3) for send in sends(tasks(process))]
    assert len(values) == len(set(values))


def test_transactions_mix_sends_and_polls_and_others_do_one_thing_at_a_time() -> None:
    assert {task.kind for task in tasks(1)} == {"assign", "send", "poll", "txn"}
    single = tasks(1, transactional=False, subscribes=True)
    assert {task.kind for task in single} == {"subscribe", "send", "poll"}
    assert max(len(task.steps) for task in single) == 1


def test_new_keys_follow_and_old_ones_are_read_again() -> None:
    made = tasks(1)
    written = [send.key for send in sends(made)]
    assert written[0] in ("t0/0", "t0/1", "t1/0", "t1/1")
    assert "t4/0" in written
    assert not {"t0/0", "t0/1"} & set(written[-50:])
    assert any("t0/0" in task.keys for task in made[-200:])
