"""From kill -9 of one of four chunk servers that holds a GiB to full, verified redundancy.

    python -m benchmarks.healing [--times 3] [--mib-per-second N]

Each time a grid is made, filled until every server holds about a GiB, and one server is killed.
Measured is the time until the status says that every chunk has its replicas, each of which was
read back when it was made; after it 'fsck --verify' has to agree. Beside it stands how long the
machine takes to copy the same bytes, file by file, each synced; and what a client that reads 64 KiB
here and there, some thirty times a second, sees before the kill and while replicas are made anew.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filegrid
from benchmarks.measuring import (
    GIB,
    MIB,
    Watch,
    drop_caches,
    is_whole,
    local_grid,
    pids_of,
    report,
)
from filegrid.cli.local_grid import LocalGrid
from filegrid.measure import rounded, spread

FILES = 8
VICTIM = "chunk-1"
MOST_SECONDS = 120.0
CALM_SECONDS = 8.0
READ_BYTES = 64 * 1024


def fill(local: LocalGrid, folder: Path, held_bytes: int) -> None:
    """So many bytes on each of four servers, on average: a third more in files, three times."""
    source = folder / "source"
    size = held_bytes * 4 // 3 // FILES
    with filegrid.connect(local.grid_file) as grid:
        for number in range(FILES):
            source.write_bytes(os.urandom(MIB) * (size // MIB))
            grid.put(str(source), f"/file-{number}")
    source.unlink()


def plain_copy(local: LocalGrid, folder: Path) -> tuple[float, int]:
    """Seconds to copy what the victim has, and how many bytes these are."""
    chunks = local.folder / "nodes" / VICTIM / "chunks"
    drop_caches(chunks)
    copied = 0
    begun = time.monotonic()
    for path in sorted(chunks.rglob("*")):
        if path.is_file():
            target = folder / "copy"
            shutil.copyfile(path, target)
            with open(target, "rb") as file:
                os.fdatasync(file.fileno())
            copied += path.stat().st_size
            target.unlink()
    return time.monotonic() - begun, copied


class Reader:
    """A client that reads a little here and there, and remembers how long each read took."""

    def __init__(self, local: LocalGrid) -> None:
        self._local = local
        self._reads: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        rng = random.Random(1)
        with filegrid.connect(self._local.grid_file) as grid:
            sizes = {entry.path: entry.size for entry in grid.listdir("/")}
            while not self._over.wait(0.02):
                path = rng.choice(sorted(sizes))
                offset = rng.randrange(sizes[path] - READ_BYTES)
                begun = time.monotonic()
                grid.read_bytes(path, offset, READ_BYTES)
                self._reads.append((begun, time.monotonic() - begun))

    def p99(self, start: float, end: float) -> float:
        """Milliseconds, of the reads that began between these times."""
        took = sorted(seconds for begun, seconds in self._reads if start <= begun < end)
        return rounded(1000 * took[int(0.99 * (len(took) - 1))]) if took else 0.0


def until(grid: filegrid.Grid, condition: Callable[[dict[str, Any]], bool]) -> float:
    """When the counts of chunks were so."""
    begun = time.monotonic()
    while not condition(counts := grid.status()["chunks"]):
        if time.monotonic() - begun > MOST_SECONDS:
            raise SystemExit(f"still so after {MOST_SECONDS} s: {counts}")
        time.sleep(0.05)
    return time.monotonic()


def is_lost(counts: dict[str, Any]) -> bool:
    return counts["under_replicated"] > 0


def once(folder: Path, held_bytes: int, settings: dict[str, str]) -> dict[str, float]:
    # A rack for each, so that all hold equally much.
    with local_grid(folder=folder, chunk_servers=4, racks=4, settings=settings) as local:
        fill(local, folder, held_bytes)
        copy_seconds, size = plain_copy(local, folder)
        for number in range(4):
            drop_caches(local.folder / "nodes" / f"chunk-{number + 1}")
        with Reader(local) as reader, filegrid.connect(local.grid_file) as grid:
            begun = time.monotonic()
            time.sleep(CALM_SECONDS)
            killed_at = time.monotonic()
            local.kill(VICTIM)
            seen_at = until(grid, is_lost)
            with Watch(pids_of(local)) as watch:
                whole_at = until(grid, is_whole)
        calm, busy = reader.p99(begun, killed_at), reader.p99(seen_at, whole_at)
        check = [sys.executable, "-c", "from filegrid.cli.main import main; main()"]
        subprocess.run([*check, "--grid", str(local.grid_file), "fsck", "--verify"], check=True)
    return {
        "held_mib": rounded(size / MIB),
        "seconds": rounded(whole_at - killed_at),
        "repair_seconds": rounded(whole_at - seen_at),
        "repair_cpu_seconds_per_gib": rounded(watch.use.all_cpu_seconds * GIB / size),
        "peak_mib": watch.use.most_mib,
        "plain_copy_seconds": rounded(copy_seconds),
        "of_plain_speed": rounded(copy_seconds / (whole_at - seen_at)),
        "read_p99_ms_before": calm,
        "read_p99_ms_while_repairing": busy,
    }


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--held-mib", type=int, default=GIB // MIB)
    parser.add_argument("--mib-per-second", help="repair.mib_per_second; 0: no limit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    arguments = parser.parse_args()
    rate = arguments.mib_per_second
    settings = {"repair.mib_per_second": rate} if rate is not None else {}
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            once(Path(folder), arguments.held_mib * MIB, settings) for _ in range(arguments.times)
        ]
    figures: dict[str, Any] = {key: spread([run[key] for run in runs]) for key in runs[0]}
    report({"settings": settings, **figures}, arguments.json)


if __name__ == "__main__":
    main()
