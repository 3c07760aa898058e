"""How many small files a second: written, read, and whole folders; with real processes.

    python benchmarks/small_files.py [--files 4000] [--runs 5] [--json FILE] [--folder]

Starts a grid in a temporary folder (3 heads, 3 health nodes, 3 chunk servers, 3 replicas), and
measures 4 KiB files with one and with 64 in flight, from one client. In the same run, on the same
disk, it measures the floor: the same bytes into files of their own in three folders, each file
synced. With --folder also `put -r` and `get -r` of the standard library of this Python, beside
`cp -r` to three folders with an fsync of each file. Prints medians with the spread, latencies, and
processor seconds over all processes. Bounded in time; removes its grid afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from twisted.internet.defer import Deferred

import filegrid
from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Shape
from filegrid.cli.nodes import readiness
from filegrid.client.grid import GridClient

FILE_BYTES = 4096
IN_FLIGHT = (1, 64)
ONE_AT_A_TIME_SHARE = 8
"""With one in flight only this part of the files is moved: it takes so much longer."""

REPLICAS = 3

Operation = Callable[[int], Coroutine[Deferred[Any], Any, object]]


class Meter:
    """Processor seconds of the grid's processes and of this one."""

    def __init__(self, local: LocalGrid) -> None:
        pids = [local.pid(node) for node in local.nodes]
        self._processes = [psutil.Process(pid) for pid in pids if pid] + [psutil.Process()]

    def seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)


async def many(operation: Operation, count: int, in_flight: int) -> list[float]:
    """Run the operation `count` times; how long each took, in seconds."""
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


async def measured(
    meter: Meter, operation: Operation, count: int, in_flight: int
) -> dict[str, float]:
    begun, used = time.perf_counter(), meter.seconds()
    took = sorted(await many(operation, count, in_flight))
    seconds = time.perf_counter() - begun
    return {
        "per_second": count / seconds,
        "cpu_ms_each": (meter.seconds() - used) / count * 1000,
        "p50_ms": took[count // 2] * 1000,
        "p99_ms": took[count * 99 // 100] * 1000,
    }


def floor(folder: Path, files: int) -> float:
    """Files a second where each replica is a file of its own, written and synced in turn."""
    data = os.urandom(FILE_BYTES)
    for replica in range(REPLICAS):
        (folder / str(replica)).mkdir(parents=True)
    begun = time.perf_counter()
    for number in range(files):
        for replica in range(REPLICAS):
            write_synced(folder / str(replica) / str(number), data)
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return files / seconds


def write_synced(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)


def copy_synced(source: Path, target: Path) -> int:
    """As `cp -r` to three folders, each file synced; how many files there were."""
    count = 0
    for replica in range(REPLICAS):
        for path in sorted(source.rglob("*")):
            copy = target / str(replica) / path.relative_to(source)
            if path.is_dir():
                copy.mkdir(parents=True, exist_ok=True)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_synced(copy, path.read_bytes())
                count += 1
    return count // REPLICAS


def library(folder: Path) -> Path:
    """A copy of the standard library's sources, without what was compiled or installed."""
    source = Path(sysconfig.get_path("stdlib"))
    left_out = shutil.ignore_patterns("__pycache__", "site-packages", "*.so", "*.a")
    return Path(shutil.copytree(source, folder, ignore=left_out))


def whole_folders(local: LocalGrid, folder: Path, run: int) -> dict[str, float]:
    """Files a second of put -r, get -r, and the synced copy; one process each, start included."""
    source = folder / "library"
    if not source.exists():
        library(source)
    begun = time.perf_counter()
    count = copy_synced(source, folder / "copies")
    found = {"files": float(count), "copy": count / (time.perf_counter() - begun)}
    shutil.rmtree(folder / "copies")
    command = [sys.executable, "-m", "filegrid.cli.main", "--grid", str(local.grid_file)]
    remote, back = f"/library-{run}", folder / "back"
    for name, words in (
        ("put -r", ["put", "-r", str(source), remote]),
        ("get -r", ["get", "-r", remote, str(back)]),
        ("rm -r", ["rm", "-r", "--now", remote]),
    ):
        begun = time.perf_counter()
        subprocess.run([*command, *words], check=True)
        found[name] = count / (time.perf_counter() - begun)
    shutil.rmtree(back)
    return found


async def one_run(
    client: GridClient, meter: Meter, run: int, files: int
) -> list[tuple[str, dict[str, float]]]:
    data = os.urandom(FILE_BYTES)
    found = []
    for in_flight in IN_FLIGHT:
        count = files if in_flight > 1 else files // ONE_AT_A_TIME_SHARE
        folder = f"/{run}-{in_flight}"
        await client.mkdir(folder)

        async def write(number: int, folder: str = folder) -> None:
            await client.write_bytes(f"{folder}/{number}", data)

        async def read(number: int, folder: str = folder) -> None:
            if len(await client.read_bytes(f"{folder}/{number}")) != FILE_BYTES:
                raise AssertionError("the grid gave other bytes")

        for name, operation in (("write", write), ("read", read)):
            figures = await measured(meter, operation, count, in_flight)
            found.append((f"{name}, {in_flight} in flight", figures))
    return found


def measure(local: LocalGrid, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, list[dict[str, float]]] = {}
    with filegrid.connect(str(local.grid_file)) as grid:
        meter = Meter(local)
        for run in range(options.runs):
            rate = floor(folder / "floor", options.files // ONE_AT_A_TIME_SHARE)
            results.setdefault("floor, one file after the other", []).append({"per_second": rate})
            found = grid.runner.run(partial(one_run, grid.client, meter, run, options.files))
            for name, figures in found:
                results.setdefault(name, []).append(figures)
            if options.folder:
                results.setdefault("folders", []).append(whole_folders(local, folder, run))
    return {name: summary(runs) for name, runs in results.items()}


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    found = {}
    for figure in runs[0]:
        values = [run[figure] for run in runs]
        found[figure] = {
            "median": round(statistics.median(values), 3),
            "least": round(min(values), 3),
            "most": round(max(values), 3),
        }
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, default=4000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--folder", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        local = LocalGrid(Path(folder) / "grid")
        local.make(Shape(chunk_servers=REPLICAS))
        try:
            local.start(*local.nodes)
            local.wait_ready(readiness(local))
            report = measure(local, Path(folder), options)
        finally:
            local.down()
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    text = json.dumps({"machine": machine, "runs": options.runs, **report}, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text)


if __name__ == "__main__":
    main()
