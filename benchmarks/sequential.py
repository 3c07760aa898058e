"""Put and get of one large file, beside the machine's floor and the naive way, in the same run.

    python -m benchmarks.sequential [--mib 1024] [--runs 5] [--folder DIR] [--json FILE]

Starts a grid in a temporary folder below DIR, then does in turn, so often: the floor's put, the
grid's, the naive one; the floor's get with caches dropped, the grid's, the naive one. Needs some
four times the size of the file of space. The contents are compared once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import filegrid
from benchmarks import floor as plain
from benchmarks.measuring import (
    MIB,
    Use,
    Watch,
    drop_caches,
    local_grid,
    pids_of,
    report,
    throughput,
    told,
)
from filegrid.cli.local_grid import LocalGrid
from filegrid.measure import spread

SETTLE_SECONDS = 1.0
"""Between two pieces of work: what the disk still does of one shall not slow the next."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--mib", type=int, default=1024)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--no-naive", action="store_true")
    options = arguments.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as scratch,
        local_grid(folder=options.folder) as local,
    ):
        source = Path(scratch) / "source"
        make_source(source, options.mib * MIB)
        paper = plain.Paper(
            str(local.folder / "certificates" / "chunk-1.pem"),
            str(local.folder / "ca" / "ca.pem"),
        )
        with plain.floor(paper, Path(scratch)) as floor:
            sequential = Sequential(local, floor, source, naive=not options.no_naive)
            for _ in range(options.runs):
                sequential.run()
    report({"mib": options.mib, **sequential.figures()}, options.json)


def make_source(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


class Sequential:
    """The pieces of work, in turn, and what they took."""

    def __init__(self, local: LocalGrid, floor: plain.Floor, source: Path, *, naive: bool) -> None:
        self._local = local
        self._floor = floor
        self._source = source
        self._naive = naive
        self._size = source.stat().st_size
        self._uses: dict[str, list[Use]] = {}
        self._first_bytes: dict[str, list[float]] = {}

    def run(self) -> None:
        with filegrid.connect(str(self._local.grid_file)) as grid:
            self._watch("floor put", lambda: plain.floor_put(self._floor, self._source))
            self._watch("put", lambda: grid.put(self._source, "/bench", overwrite=True))
            if self._naive:
                self._watch("naive put", lambda: plain.naive_put(self._floor, self._source))
            self._watch("floor get", self._floor_get, cold=True)
            self._watch("get", lambda: self._get(grid), cold=True)
            self._watch("get again", lambda: self._get(grid))
            if self._naive:
                self._watch("naive get", self._naive_get, cold=True)
            self._compare(grid)
            grid.remove("/bench", now=True)

    def figures(self) -> dict[str, Any]:
        found = {name: throughput(uses, self._size) for name, uses in self._uses.items()}
        ratios = {
            f"{name} / {other}": spread(
                [
                    mine.seconds / its.seconds
                    for mine, its in zip(self._uses[name], self._uses[other], strict=True)
                ]
            )
            for name, other in RATIOS
            if name in self._uses and other in self._uses
        }
        first = {name: spread(values) for name, values in self._first_bytes.items()}
        return {"work": found, "ratios_of_time": ratios, "first_byte_seconds": first}

    def _watch(self, name: str, work: Any, *, cold: bool = False) -> None:
        if cold:
            drop_caches(self._local.folder)
            drop_caches(self._source.parent)
            with open(self._source, "rb") as file:  # what is sent is read beforehand
                while file.read(MIB):
                    pass
        time.sleep(SETTLE_SECONDS)
        with Watch(pids_of(self._local) | self._floor.pids) as watch:
            first = work()
        self._uses.setdefault(name, []).append(watch.use)
        told(f"{name}: {self._size / MIB / watch.use.seconds:.0f} MiB/s")
        if isinstance(first, float):
            self._first_bytes.setdefault(name, []).append(first)

    def _floor_get(self) -> float:
        return plain.floor_get(self._floor, self._size)

    def _naive_get(self) -> float:
        return plain.naive_get(self._floor, self._size)

    def _get(self, grid: filegrid.Grid) -> float:
        sink = _Sink()
        grid.get("/bench", sink)  # type: ignore[arg-type]  # all that is asked of it is write
        assert sink.size == self._size
        return sink.first_at - sink.made_at

    def _compare(self, grid: filegrid.Grid) -> None:
        with open(self._source, "rb") as source, grid.open("/bench", "rb") as copy:
            while piece := source.read(16 * MIB):
                assert copy.read(16 * MIB) == piece, "the grid gave back something else"


RATIOS = (
    ("put", "floor put"),
    ("get", "floor get"),
    ("naive put", "put"),
    ("naive get", "get"),
)


class _Sink:
    """Counts what comes."""

    def __init__(self) -> None:
        self.size = 0
        self.made_at = time.perf_counter()
        self.first_at = 0.0

    def write(self, data: memoryview) -> int:
        self.first_at = self.first_at or time.perf_counter()
        self.size += len(data)
        return len(data)


if __name__ == "__main__":
    main()
