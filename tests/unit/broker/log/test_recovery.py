"""What a start finds after a crash, and what it refuses to repair."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.broker.log.harness import Harness

from tailrace.broker.log import LogError, TopicConfig
from tailrace.broker.log.checkpoints import LOG_STARTS, RECOVERY_POINTS
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.batch import HEADER_BYTES
from tailrace.changes.errors import TailraceError

PRODUCER = (7, 0)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path / "data", TopicConfig(segment_bytes=2000))
    yield harness
    harness.crash()


def offline_reason(at: Harness) -> str:
    with pytest.raises(LogError) as caught:
        at.log  # noqa: B018 - the look-up is what raises
    assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    return str(caught.value)


def fill(at: Harness, batches: int) -> list[bytes | None]:
    for number in range(batches):
        at.append(b"%03d" % number, b"." * 150)
    return at.values()


def test_a_tail_torn_at_every_byte_of_the_last_batch_leaves_the_acked_prefix(at: Harness) -> None:
    at.append(b"acked-1", b"acked-2")
    at.sync()
    whole = at.log.segments[-1].size
    at.append(b"torn", producer=PRODUCER, sequence=0)
    size = at.log.segments[-1].size
    at.crash()
    pristine = at.data_dir.with_name("pristine")
    shutil.copytree(at.data_dir, pristine)
    for keep in range(whole, size):
        shutil.rmtree(at.data_dir)
        shutil.copytree(pristine, at.data_dir)
        os.truncate(at.directory / "00000000000000000000.log", keep)
        at.start()
        assert at.values() == [b"acked-1", b"acked-2"], keep
        assert (at.log.log_end_offset, at.log.high_watermark, at.log.producers()) == (2, 2, [])
        assert at.append(b"next").base_offset == 2
        at.crash()
    at.start()


@pytest.mark.parametrize("tail", [bytes(200), b"\xff" * 200, b"\x00", os.urandom(5000)])
def test_bytes_after_the_last_batch_are_cut(at: Harness, tail: bytes) -> None:
    before = fill(at, 5)
    path = at.log.segments[-1].file.path
    at.crash()
    with path.open("ab") as file:
        file.write(tail)
    at.start()
    assert at.values() == before
    at.append(b"next")
    at.crash_and_start()
    assert at.values() == [*before, b"next"]


def test_a_flipped_bit_anywhere_in_an_unchecked_batch_cuts_there(at: Harness) -> None:
    at.append(b"kept")
    position = at.log.segments[-1].size
    at.append(b"damaged", b"x")
    size = at.log.segments[-1].size
    at.append(b"after")
    at.crash()
    path = at.directory / "00000000000000000000.log"
    good = path.read_bytes()
    for byte in range(position, size):
        bad = bytearray(good)
        bad[byte] ^= 0x41
        path.write_bytes(bad)
        at.start()
        assert at.values() == [b"kept"], byte - position
        at.crash()
    path.write_bytes(good)
    at.start()


def test_a_flipped_bit_below_the_recovery_point_is_offline_and_nothing_is_cut(at: Harness) -> None:
    fill(at, 3)
    at.sync()
    asyncio.run(at.logs.checkpoint())
    at.append(b"later")
    at.crash()
    path = at.directory / "00000000000000000000.log"
    damaged = bytearray(path.read_bytes())
    damaged[HEADER_BYTES + 3] ^= 1
    path.write_bytes(damaged)
    at.start()
    reason = offline_reason(at)
    assert "durable" in reason and str(path) in reason
    assert path.read_bytes() == damaged


def test_damage_that_comes_while_the_log_is_open_is_told_to_readers_and_logged_once(
    at: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    fill(at, 40)
    at.sync()
    path = at.files(".log")[1]
    damaged = bytearray(path.read_bytes())
    second = int.from_bytes(damaged[8:12], "big") + 12
    damaged[second + 8] ^= 0x40  # a length of a gigabyte
    path.write_bytes(damaged)
    first = int(path.stem)
    for _ in range(2):
        with pytest.raises(LogError, match=path.name) as caught:
            at.log.read(first + 1, 1 << 20, upper=40)
        assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR
        assert at.log.read(first - 1, 1, upper=first)
        assert at.log.read(int(at.files(".log")[2].stem), 1, upper=40)
    assert len([text for text in caplog.messages if path.name in text]) == 1
    assert path.read_bytes() == damaged


def test_a_log_that_ends_below_its_recovery_point_is_offline(at: Harness) -> None:
    fill(at, 3)
    at.stop()
    path = at.directory / "00000000000000000000.log"
    os.truncate(path, path.stat().st_size - 10)
    at.start()
    assert "durable" in offline_reason(at)


def test_a_missing_middle_segment_is_offline(at: Harness) -> None:
    fill(at, 40)
    at.stop()
    at.files(".log")[2].unlink()
    at.start()
    assert "the next begins at" in offline_reason(at)


@pytest.mark.parametrize("lost", ["*.snapshot", "leader-epoch-checkpoint"])
def test_damage_that_is_met_while_headers_are_read_again_takes_only_its_partition_offline(
    tmp_path: Path, lost: str
) -> None:
    at = Harness(tmp_path / "data", TopicConfig(segment_bytes=20_000))
    for _ in range(10):
        at.append(b"." * 3000)  # an index entry for every other one: the start looks at the last ones only
    at.sync()
    asyncio.run(at.logs.checkpoint())
    at.crash()
    for file in at.directory.glob(lost):
        file.write_text("damaged")
    path = at.files(".log")[0]
    damaged = bytearray(path.read_bytes())
    second = int.from_bytes(damaged[8:12], "big") + 12
    damaged[second + 16] = 7  # the magic byte
    path.write_bytes(damaged)
    at.start()
    assert path.name in offline_reason(at)
    assert path.read_bytes() == damaged
    at.crash()


def test_a_copied_segment_is_offline(at: Harness) -> None:
    fill(at, 40)
    base = int(at.files(".log")[1].stem) + 1
    at.stop()
    shutil.copy(at.files(".log")[1], at.directory / f"{base:020d}.log")
    at.start()
    assert offline_reason(at)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 1)


def oversize(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\x7f" * 24)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


# a transaction index below the recovery point that lost all its entries looks like one that has none
DAMAGES = [
    pytest.param(suffix, damage, clean, id=f"{suffix}-{damage.__name__}-{'stop' if clean else 'crash'}")
    for suffix in (".index", ".timeindex", ".txnindex", ".snapshot")
    for damage in (Path.unlink, empty, halve, oversize, zero)
    for clean in (False, True)
    if not (clean and suffix == ".txnindex" and damage is empty)
]


@pytest.mark.parametrize(("suffix", "damage", "clean"), DAMAGES)
def test_a_bad_index_is_rebuilt(
    at: Harness, suffix: str, damage: Callable[[Path], None], clean: bool
) -> None:
    for number in range(30):
        who = (number % 3, 0)
        at.append(b"." * 500, producer=who, sequence=number // 3, transactional=True)
        if number % 5 == 4:
            at.end(who, commit=False)
            at.append(b"." * 5000, timestamp_ms=at.clock.at_ms + number)
    at.sync()
    before = state(at)
    if clean:
        at.stop()
    else:
        at.crash()
    assert at.files(suffix)
    for path in at.files(suffix):
        damage(path)
    at.start()
    assert state(at) == before
    after = contents(at)
    at.crash_and_start()
    assert (state(at), contents(at)) == (before, after)


def contents(at: Harness) -> dict[str, bytes]:
    """What a further start must not change: all but the indexes of the newest segment, which it builds anew."""
    newest = at.files(".log")[-1].stem
    kept = [path for path in at.directory.iterdir() if path.stem != newest or path.suffix == ".log"]
    return {path.name: path.read_bytes() for path in kept if path.name != "leader-epoch-checkpoint"}


def state(at: Harness) -> object:
    log, end = at.log, at.log.log_end_offset
    return (
        at.values(),
        log.aborted_transactions(0, end),
        log.last_stable_offset,
        sorted(log.producers(), key=lambda producer: producer.producer_id),
        [bytes(log.read(offset, 1, upper=end)[0][:12]) for offset in range(end)],
        [log.offset_for_timestamp(at.clock.at_ms + n, end) for n in range(30)],
    )


def test_an_index_that_was_not_durable_when_its_segment_ended_at_the_recovery_point_is_built_anew(
    at: Harness,
) -> None:
    at.config = TopicConfig()
    at.restart()
    at.append(b"." * 5000)
    at.append(b"aborted", producer=PRODUCER, sequence=0, transactional=True)
    at.end(PRODUCER, commit=False)
    at.crash_and_start()
    at.log.roll()
    before = state(at)
    at.crash()
    at.files(".txnindex")[0].write_bytes(b"")  # what a power cut may leave of it
    at.start()
    assert state(at) == before and at.log.aborted_transactions(0, 3)


def test_without_the_recovery_point_file_every_segment_is_checked(at: Harness) -> None:
    before = fill(at, 40)
    at.sync()
    asyncio.run(at.logs.checkpoint())
    at.crash()
    (at.data_dir / RECOVERY_POINTS).unlink()
    at.start()
    assert at.values() == before
    at.crash()
    (at.data_dir / RECOVERY_POINTS).unlink()
    path = at.files(".log")[3]
    path.write_bytes(b"\0" * path.stat().st_size)
    at.start()
    assert at.log.log_end_offset == int(path.stem)


def test_a_damaged_checkpoint_names_the_file_and_the_next_step(at: Harness) -> None:
    at.crash()
    (at.data_dir / LOG_STARTS).write_text("0\n9\norders 0 1\n")
    with pytest.raises(TailraceError, match="Remove it"):
        at.start()
    at.logs._lock.release()
    (at.data_dir / LOG_STARTS).unlink()
    at.start()


def test_a_torn_sealed_segment_takes_the_later_ones_with_it(at: Harness) -> None:
    fill(at, 40)
    at.crash()
    paths = at.files(".log")
    os.truncate(paths[2], paths[2].stat().st_size - 1)
    at.start()
    assert at.files(".log") == paths[:3]
    end = at.log.log_end_offset
    assert end == int(paths[3].stem) - 2
    assert at.append(b"next").base_offset == end


def test_a_segment_cut_at_a_batch_boundary_takes_the_later_ones_with_it(at: Harness) -> None:
    fill(at, 40)
    first = at.log.segments[2]
    position = [position for position, _ in first.headers()][-1]
    at.crash()
    paths = at.files(".log")
    os.truncate(paths[2], position)
    at.start()
    assert at.files(".log") == paths[:3]
    assert at.log.log_end_offset == int(paths[3].stem) - 2


def test_duplicates_of_the_last_five_batches_are_known_after_a_clean_stop(at: Harness) -> None:
    for number in range(8):
        at.append(b"%d" % number, producer=PRODUCER, sequence=number)
    at.restart()
    for number in range(3, 8):
        again = at.append(b"%d" % number, producer=PRODUCER, sequence=number)
        assert again.duplicate and again.base_offset == number
    with pytest.raises(LogError, check=lambda e: e.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER):
        at.append(b"2", producer=PRODUCER, sequence=2)


def test_the_leader_epoch_grows_with_every_crash_and_only_then(at: Harness) -> None:
    epochs = [at.logs.leader_epoch]
    for again in (at.restart, at.crash_and_start, at.restart, at.crash_and_start):
        at.append(b"x")
        again()
        epochs.append(at.logs.leader_epoch)
    at.append(b"x")
    assert epochs[0] == 1 or epochs[0] == 0
    assert [epoch - epochs[0] for epoch in epochs] == [0, 0, 1, 1, 2]
    assert list(at.log.leader_epochs()) == [epochs[0], epochs[0] + 1, epochs[0] + 2]
    assert at.log.end_offset_for_epoch(epochs[0]) == (epochs[0], 2)
    assert at.log.end_offset_for_epoch(99) == (-1, -1)


def test_the_leader_epoch_of_an_emptied_log_is_known_after_two_starts(at: Harness) -> None:
    epoch = at.logs.leader_epoch
    at.append(b"x")
    at.sync()
    at.log.roll()
    at.logs.delete_records("orders", 0, 1)
    for _ in range(3):
        assert at.log.end_offset_for_epoch(epoch) == (epoch, 1)
        at.crash_and_start()
    at.append(b"y")
    assert at.log.leader_epochs() == {epoch + 3: 1}


def test_leader_epochs_go_with_their_records(at: Harness) -> None:
    epoch = at.logs.leader_epoch
    for _ in range(3):
        at.append(b"x")
        at.crash_and_start()
    at.logs.delete_records("orders", 0, 2)
    for _ in range(2):
        assert at.log.leader_epochs() == {epoch + 2: 2}
        at.crash_and_start()


def test_a_checked_log_is_not_checked_again(at: Harness) -> None:
    fill(at, 40)
    at.sync()
    asyncio.run(at.logs.checkpoint())
    point = at.log.recovery_point
    assert point == at.log.log_end_offset
    rows = (at.data_dir / RECOVERY_POINTS).read_text().splitlines()
    assert rows == ["0", "1", f"orders 0 {point}"]
