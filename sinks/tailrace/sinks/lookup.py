"""Where the rows of given keys are: (data file, position).

Every data file has a run: its key codes in ascending order.  A lookup sorts the wanted codes once,
cuts out the part that meets a file's [first, last] code, and binary-searches it in that file's run: the cost
grows with the batch and the number of files, not with the rows of the table.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyroaring import BitMap

from tailrace.sinks.backend import DataFile
from tailrace.sinks.keys import KeyCodec, KeyCodes
from tailrace.sinks.sidecar import KeyRun, SidecarStore

ReadKeys = Callable[[DataFile], pa.Table]
"""Reads the key columns of a data file, all rows, in file order."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Live rows of one data file: `position` (row ordinals) and which wanted key each one has."""

    position: npt.NDArray[np.uint32]
    key: npt.NDArray[np.int64]


class KeyIndex:
    """Key runs of one table's data files, loaded when first needed."""

    def __init__(self, codec: KeyCodec, sidecars: SidecarStore, read_keys: ReadKeys) -> None:
        self._codec = codec
        self._sidecars = sidecars
        self._read_keys = read_keys
        self._runs: dict[str, KeyRun] = {}

    def add(self, file: DataFile, keys: KeyCodes) -> None:
        """Learn the keys of a new data file, in file order."""
        self._runs[file.path] = self._sidecars.save(file, KeyRun.of(keys))

    def forget(self, path: str) -> None:
        """A data file left the table."""
        if self._runs.pop(path, None) is not None:
            self._sidecars.forget(path)

    def find(
        self, wanted: KeyCodes, files: Iterable[DataFile], deleted: Mapping[str, BitMap]
    ) -> dict[str, Hits]:
        """Live rows whose key is in `wanted` (unique keys), by path of the files that have any."""
        order = np.argsort(wanted.code, kind="stable")
        code = wanted.code[order]
        found: dict[str, Hits] = {}
        if not len(code):
            return found
        for file in files:
            run = self._run(file)
            hits = _search(run, wanted, order, code)
            dead = deleted.get(file.path)
            if dead is not None and len(hits.position):
                live = ~np.isin(hits.position, _positions(BitMap(hits.position) & dead))
                hits = Hits(hits.position[live], hits.key[live])
            if len(hits.position):
                found[file.path] = hits
        return found

    def _run(self, file: DataFile) -> KeyRun:
        run = self._runs.get(file.path)
        if run is None:
            run = self._sidecars.load(file)
            if run is None:
                keys = self._codec.encode(self._read_keys(file))
                run = self._sidecars.save(file, KeyRun.of(keys))
            self._runs[file.path] = run
        return run


def _positions(bitmap: BitMap) -> npt.NDArray[np.uint32]:
    return np.array(bitmap.to_array(), np.uint32)


def _search(run: KeyRun, wanted: KeyCodes, order: npt.NDArray[np.intp], code: npt.NDArray[np.int64]) -> Hits:
    """Rows of a run that have one of the wanted keys; `code` is `wanted.code[order]`, ascending."""
    have = run.keys.code
    if not len(have):
        return Hits(np.empty(0, np.uint32), np.empty(0, np.int64))
    low = int(np.searchsorted(code, have[0], "left"))
    high = int(np.searchsorted(code, have[-1], "right"))
    key = order[low:high].astype(np.int64)
    first = np.searchsorted(have, code[low:high], "left")
    last = np.searchsorted(have, code[low:high], "right")
    count = last - first
    # A code stands more than once where a dead version of a row is in the same file, or two hashes meet.
    rank = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(
        int(count.sum())
    )
    key = np.repeat(key, count)
    if wanted.check is not None and run.keys.check is not None:
        same = run.keys.check[rank] == wanted.check[key]
        rank, key = rank[same], key[same]
    position = rank.astype(np.uint32) if run.positions is None else run.positions[rank]
    return Hits(position, key)
