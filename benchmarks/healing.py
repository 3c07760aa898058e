"""From kill -9 of one of four chunk servers that holds a GiB to full, verified redundancy.

    python -m benchmarks.healing [--times 3] [--unlimited]

Each time a grid is made, filled until every server holds about a GiB, and one server is killed.
Measured is the time until the status says that every chunk has its replicas, each of which was
read back when it was made; after it 'fsck --verify' has to agree. Beside it stands how long the
machine takes to copy the same bytes, file by file, each synced.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import filegrid
from benchmarks.measuring import GIB, MIB, drop_caches, local_grid, report
from filegrid.cli.local_grid import LocalGrid
from filegrid.measure import rounded, spread

FILES = 8
VICTIM = "chunk-1"
MOST_SECONDS = 120.0


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


def until_whole(local: LocalGrid, killed_at: float) -> dict[str, float]:
    """When the loss was seen, and when it was made good."""
    seen_at = 0.0
    with filegrid.connect(local.grid_file) as grid:
        while time.monotonic() - killed_at < MOST_SECONDS:
            counts = grid.status()["chunks"]
            if not seen_at and counts["under_replicated"]:
                seen_at = time.monotonic()
            if seen_at and counts["healthy"] == counts["total"] and not counts["repairing"]:
                now = time.monotonic()
                return {"all": now - killed_at, "repair": now - seen_at}
            time.sleep(0.05)
    raise SystemExit(f"not whole after {MOST_SECONDS} s: {counts}")


def once(folder: Path, held_bytes: int, settings: dict[str, str]) -> dict[str, float]:
    with local_grid(folder=folder, chunk_servers=4, settings=settings) as local:
        fill(local, folder, held_bytes)
        copy_seconds, size = plain_copy(local, folder)
        for number in range(4):
            drop_caches(local.folder / "nodes" / f"chunk-{number + 1}")
        killed_at = time.monotonic()
        local.kill(VICTIM)
        took = until_whole(local, killed_at)
        check = [sys.executable, "-c", "from filegrid.cli.main import main; main()"]
        subprocess.run([*check, "--grid", str(local.grid_file), "fsck", "--verify"], check=True)
    return {
        "held_mib": rounded(size / MIB),
        "seconds": rounded(took["all"]),
        "repair_seconds": rounded(took["repair"]),
        "plain_copy_seconds": rounded(copy_seconds),
        "of_plain_speed": rounded(copy_seconds / took["repair"]),
    }


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--held-mib", type=int, default=GIB // MIB)
    parser.add_argument("--unlimited", action="store_true", help="repair.mib_per_second = 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    arguments = parser.parse_args()
    settings = {"repair.mib_per_second": "0"} if arguments.unlimited else {}
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            once(Path(folder), arguments.held_mib * MIB, settings) for _ in range(arguments.times)
        ]
    figures: dict[str, Any] = {key: spread([run[key] for run in runs]) for key in runs[0]}
    report({"settings": settings, **figures}, arguments.json)


if __name__ == "__main__":
    main()
