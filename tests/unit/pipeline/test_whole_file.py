"""Files that are replaced whole."""

import errno
from pathlib import Path

import pytest

from tailrace.changes.whole_file import replace_file


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_by_its_parts_in_order(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.json"
    contents: list[list[bytes | memoryview]] = [[b"old and long"], [b"new", memoryview(b"er"), b""]]
    for parts in contents:
        replace_file(path, parts, durable=durable)
        assert path.read_bytes() == b"".join(parts)
        assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_path_and_the_old_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    (tmp_path / "a.json.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:
        replace_file(path, [b"new"], durable=True)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
