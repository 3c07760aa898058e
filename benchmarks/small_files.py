"""Small files: written, read, and whole folders, beside the floor of the same run.

    python -m benchmarks.small_files [--files N] [--runs 5] [--folders] [--sync-ms N] [--json FILE]

Starts a grid of three chunk servers, and measures files of 4 KiB in three replicas, from one client
with one and with 64 in flight. The floor: the same bytes into a file of its own in each of three
folders of the same disk, each synced, one after the other. With --folders also `put -r`, `get -r`
and `rm -r` of this Python's standard library, each a process, beside what `cp -r` to three folders
with an fsync of each file takes. With --sync-ms each fsync and fdatasync of the nodes, and of the
floor, takes so much longer, as on a slower disk; not those of SQLite, for which nobody waits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred

import filegrid
from benchmarks.measuring import Watch, latencies_ms, local_grid, pids_of, report
from filegrid.cli.local_grid import LocalGrid
from filegrid.client.grid import GridClient
from filegrid.measure import spread

FILE_BYTES = 4096
REPLICAS = 3

ONE_AT_A_TIME_SHARE = 8
"""With one in flight only this part of the files is moved: it takes so much longer."""

Operation = Callable[[int], Coroutine[Deferred[Any], Any, object]]
Figures = dict[str, list[float]]


async def many(operation: Operation, count: int, in_flight: int) -> list[float]:
    """Run the operation `count` times; how many seconds each took."""
    numbers = iter(range(count))
    took = []

    async def work() -> None:
        for number in numbers:
            begun = time.perf_counter()
            await operation(number)
            took.append(time.perf_counter() - begun)

    workers = [Deferred.fromCoroutine(work()) for _ in range(in_flight)]
    for worker in workers:
        await worker
    return took


def measure(
    grid: filegrid.Grid, pids: dict[str, int], work: Operation, count: int, in_flight: int
) -> dict[str, float]:
    with Watch(pids) as watch:
        took = grid.runner.run(partial(many, work, count, in_flight))
    return {
        "files_per_second": count / watch.use.seconds,
        "cpu_ms_per_file": watch.use.all_cpu_seconds / count * 1000,
        "peak_mib": watch.use.most_mib,
        **latencies_ms(took),
    }


def one_run(
    grid: filegrid.Grid, pids: dict[str, int], run: int, files: int
) -> dict[str, dict[str, float]]:
    data, found = os.urandom(FILE_BYTES), {}
    client: GridClient = grid.client
    for in_flight in (1, 64):
        count = files if in_flight > 1 else files // ONE_AT_A_TIME_SHARE
        folder = f"/{run}-{in_flight}"
        grid.mkdir(folder)

        async def write(number: int, folder: str = folder) -> None:
            await client.write_bytes(f"{folder}/{number}", data)

        async def read(number: int, folder: str = folder) -> None:
            if await client.read_bytes(f"{folder}/{number}") != data:
                raise AssertionError("the grid gave other bytes")

        for name, work in (("write", write), ("read", read)):
            found[f"{name}, {in_flight} in flight"] = measure(grid, pids, work, count, in_flight)
    return found


SLOW_SYNCS = """
import os, time

def slowed(sync):
    def later(fd):
        sync(fd)
        time.sleep({seconds})
    return later

os.fsync, os.fdatasync = slowed(os.fsync), slowed(os.fdatasync)
"""


@contextmanager
def slow_syncs(milliseconds: float) -> Iterator[None]:
    """Let every sync of this process, and of those that it starts, take so much longer."""
    if not milliseconds:
        yield
        return
    code = SLOW_SYNCS.format(seconds=milliseconds / 1000)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.multiple(os, fsync=os.fsync, fdatasync=os.fdatasync),
        mock.patch.dict(os.environ, PYTHONPATH=folder),
    ):
        (Path(folder) / "sitecustomize.py").write_text(code)  # Python runs it at its start
        exec(compile(code, "sitecustomize", "exec"), {})
        yield


def write_synced(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)


def floor(folder: Path, files: int) -> dict[str, float]:
    data = os.urandom(FILE_BYTES)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for replica in range(REPLICAS):
            (Path(temporary) / str(replica)).mkdir()
        begun = time.perf_counter()
        for number in range(files):
            for replica in range(REPLICAS):
                write_synced(Path(temporary) / str(replica) / str(number), data)
        return {"files_per_second": files / (time.perf_counter() - begun)}


def library(folder: Path) -> Path:
    """A copy of the standard library's sources, without what was compiled or installed."""
    left_out = shutil.ignore_patterns("__pycache__", "site-packages", "*.so", "*.a")
    source = Path(sysconfig.get_path("stdlib"))
    return Path(shutil.copytree(source, folder / "library", ignore=left_out))


def copy_synced(source: Path, target: Path) -> int:
    """To three folders, each file synced; how many files there are."""
    count = 0
    for replica in range(REPLICAS):
        for path in sorted(source.rglob("*")):
            copy = target / str(replica) / path.relative_to(source)
            if path.is_dir():
                copy.mkdir(parents=True)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_synced(copy, path.read_bytes())
                count += 1
    return count // REPLICAS


def folders(local: LocalGrid, source: Path, run: int) -> dict[str, dict[str, float]]:
    target = source.parent / "copies"
    begun = time.perf_counter()
    count = copy_synced(source, target)
    found = {"cp -r, each file synced": {"files_per_second": count / (time.perf_counter() - begun)}}
    shutil.rmtree(target)
    command = [str(Path(sys.executable).with_name("filegrid"))]
    for words in (
        ["put", "-r", str(source), f"/library-{run}"],
        ["get", "-r", f"/library-{run}", str(target)],
        ["rm", "-r", "--now", f"/library-{run}"],
    ):
        begun = time.perf_counter()
        subprocess.run([*command, *words, "--grid", str(local.grid_file)], check=True)
        found[f"{words[0]} -r"] = {"files_per_second": count / (time.perf_counter() - begun)}
    shutil.rmtree(target)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, default=4000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--folders", action="store_true")
    arguments.add_argument("--sync-ms", type=float, default=0.0)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    results: dict[str, Figures] = {}
    with (
        slow_syncs(options.sync_ms),
        local_grid(chunk_servers=REPLICAS) as local,
        tempfile.TemporaryDirectory() as temporary,
        filegrid.connect(str(local.grid_file)) as grid,
    ):
        source = library(Path(temporary)) if options.folders else None
        for run in range(options.runs):
            found = {"floor": floor(Path(temporary), options.files // ONE_AT_A_TIME_SHARE)}
            found |= one_run(grid, pids_of(local), run, options.files)
            if source is not None:
                found |= folders(local, source, run)
            for name, figures in found.items():
                for figure, value in figures.items():
                    results.setdefault(name, {}).setdefault(figure, []).append(value)
    report(
        {
            name: {figure: spread(values) for figure, values in figures.items()}
            for name, figures in results.items()
        },
        options.json,
    )


if __name__ == "__main__":
    main()
