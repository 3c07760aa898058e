"""Chunk servers lost under load: two of five at once, or one after the other until three are left.

    python -m benchmarks.losses [--transfers 64] [--mib 4]

Half of the transfers are uploads and half are downloads, all under way when two servers are killed
with kill -9. Every one of them has to end well, every byte is compared, and the grid has to come
back to full redundancy by itself, which 'fsck --verify' has to confirm. Then two of the five are
killed one after the other, the second once the first loss is healed, amid as many transfers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filegrid
from benchmarks.measuring import MIB, Watch, is_whole, local_grid, pids_of, report
from filegrid.cli.local_grid import LocalGrid
from filegrid.client.blocking import Grid
from filegrid.measure import rounded

MOST_SECONDS = 180.0

UNDER_WAY_SECONDS = 0.3
"""After the first transfer began, until servers are killed."""


class Transfers:
    """Uploads of new files and downloads of those that are there, all at the same time."""

    def __init__(
        self, grid: Grid, contents: dict[str, bytes], count: int, size: int, tag: str
    ) -> None:
        self._pool = ThreadPoolExecutor(count)
        self._contents = contents
        new = {f"/{tag}-{number}": os.urandom(size) for number in range(count // 2)}
        old = list(contents)
        self._begun = time.monotonic()
        self._uploads = [self._pool.submit(grid.write_bytes, *one) for one in new.items()]
        self._downloads = {
            path: self._pool.submit(grid.read_bytes, path) for path in old[: count - count // 2]
        }
        self._new = new

    def finish(self) -> tuple[int, float]:
        """How many were still under way, and seconds until the last has ended.

        :raises filegrid.GridError: where one failed; :raises SystemExit: for a wrong byte.
        """
        left = sum(not one.done() for one in [*self._uploads, *self._downloads.values()])
        for upload in self._uploads:
            upload.result(MOST_SECONDS)
        for path, download in self._downloads.items():
            if download.result(MOST_SECONDS) != self._contents[path]:
                raise SystemExit(f"{path} came back with other bytes")
        self._contents.update(self._new)
        self._pool.shutdown()
        return left, time.monotonic() - self._begun


def until_whole(grid: Grid, least_live: int) -> None:
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        status = grid.status()
        dead = sum(one["state"] == "dead" for one in status["chunk_servers"])
        counts = status["chunks"]
        if len(status["chunk_servers"]) - dead == least_live and is_whole(counts):
            return
        time.sleep(0.1)
    raise SystemExit(f"not whole after {MOST_SECONDS:g} s: {counts}")


def lose(local: LocalGrid, count: int, size: int, kills: list[list[str]]) -> list[dict[str, Any]]:
    """Kill these, one group after the other, each amid transfers; figures of each."""
    told = []
    with filegrid.connect(local.grid_file) as grid:
        contents = {f"/old-{number}": os.urandom(size) for number in range(count)}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda one: grid.write_bytes(*one), contents.items()))
        live = 5
        for number, victims in enumerate(kills):
            with Watch(pids_of(local)) as watch:
                running = Transfers(grid, contents, count, size, f"new{number}")
                time.sleep(UNDER_WAY_SECONDS)
                killed_at = time.monotonic()
                for victim in victims:
                    local.kill(victim)
                live -= len(victims)
                left, seconds = running.finish()
                until_whole(grid, live)
                whole_seconds = time.monotonic() - killed_at
            check = [sys.executable, "-c", "from filegrid.cli.main import main; main()"]
            subprocess.run([*check, "--grid", str(local.grid_file), "fsck", "--verify"], check=True)
            for path, data in contents.items():
                if grid.read_bytes(path) != data:
                    raise SystemExit(f"{path} came back with other bytes")
            told.append(
                {
                    "killed": victims,
                    "transfers": count,
                    "under_way_at_the_kill": left,
                    "transfers_seconds": rounded(seconds),
                    "whole_after_seconds": rounded(whole_seconds),
                    "files_compared": len(contents),
                    "peak_mib": {
                        role: max(
                            peak
                            for name, peak in watch.use.peak_mib.items()
                            if name.startswith(role)
                        )
                        for role in ("chunk", "head")
                    },
                }
            )
    return told


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transfers", type=int, default=64)
    parser.add_argument("--mib", type=int, default=4, help="of each file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    arguments = parser.parse_args()
    cases: dict[str, list[list[str]]] = {
        "two_at_once": [["chunk-2", "chunk-4"]],
        "one_after_the_other": [["chunk-1"], ["chunk-5"]],
    }
    figures: dict[str, Any] = {}
    for name, kills in cases.items():
        with local_grid(chunk_servers=5) as local:
            figures[name] = lose(local, arguments.transfers, arguments.mib * MIB, kills)
    report(figures, arguments.json)


if __name__ == "__main__":
    main()
