"""How long clients wait when the leading head is killed, or hands over; with real processes.

    python benchmarks/failover.py [--failovers 20] [--handovers 10] [--clients 8]

Starts a grid in a temporary folder, keeps clients creating empty files, kills the leader with
SIGKILL again and again, and prints the longest pause that any client saw each time, with the
median and the worst. Then the same for planned handovers. Every acknowledged create is looked for
in the end. Bounded in time; removes its grid afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from pathlib import Path

import filegrid
from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Shape
from filegrid.cli.nodes import readiness

SETTLE_SECONDS = 3.0
WATCH_SECONDS = 5.0


class Load:
    """Clients that create files without pause, and remember when each was acknowledged."""

    def __init__(self, config: Path, clients: int) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.names: list[str] = []
        self.gaps: list[tuple[float, float]] = []  # when a create ended, and how long it took
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(config, number)) for number in range(clients)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def worst_since(self, begun: float) -> float:
        with self._lock:
            return max((gap for ended, gap in self.gaps if ended >= begun), default=0.0)

    def _run(self, config: Path, number: int) -> None:
        with filegrid.connect(str(config)) as grid:
            count = 0
            while not self._stop.is_set():
                name, begun = f"/{number}-{count}", time.monotonic()
                try:
                    grid.write_bytes(name, b"")
                except filegrid.GridError as error:
                    self.errors.append(f"{name}: {error}")
                    return
                ended = time.monotonic()
                with self._lock:
                    self.names.append(name)
                    self.gaps.append((ended, ended - begun))
                count += 1


def leader_of(grid: filegrid.Grid) -> str:
    while not (leader := grid.status()["leader"]):
        time.sleep(0.1)
    return str(leader)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--failovers", type=int, default=20)
    arguments.add_argument("--handovers", type=int, default=10)
    arguments.add_argument("--clients", type=int, default=8)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        local = LocalGrid(Path(folder) / "grid")
        local.make(Shape(chunk_servers=3))
        try:
            local.start(*local.nodes)
            local.wait_ready(readiness(local))
            measure(local, options)
        finally:
            local.down()


def measure(local: LocalGrid, options: argparse.Namespace) -> None:
    load = Load(local.grid_file, options.clients)
    load.start()
    pauses, handovers = [], []
    with (
        filegrid.connect(str(local.grid_file)) as grid,
        filegrid.connect(str(local.operator_file)) as operator,
    ):
        time.sleep(SETTLE_SECONDS)
        for _ in range(options.failovers):
            victim, begun = leader_of(grid), time.monotonic()
            local.kill(victim)
            time.sleep(WATCH_SECONDS)
            pauses.append(load.worst_since(begun))
            local.start(victim)
            time.sleep(SETTLE_SECONDS)
        for _ in range(options.handovers):
            heads = [head["name"] for head in grid.status()["heads"]]
            target = next(name for name in heads if name != leader_of(grid))
            begun = time.monotonic()
            operator.hand_over(target)
            time.sleep(SETTLE_SECONDS)
            handovers.append(load.worst_since(begun))
        load.stop()
        found = {entry.path for entry in grid.listdir("/")}
    missing = [name for name in load.names if name not in found]
    report = {
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "clients": options.clients,
        "creates": len(load.names),
        "creates_lost": len(missing),
        "errors": load.errors,
        "failover_seconds": summary(pauses),
        "handover_seconds": summary(handovers),
    }
    print(json.dumps(report, indent=2))


def summary(seconds: list[float]) -> dict[str, object]:
    if not seconds:
        return {}
    return {
        "runs": len(seconds),
        "median": round(statistics.median(seconds), 3),
        "least": round(min(seconds), 3),
        "worst": round(max(seconds), 3),
    }


if __name__ == "__main__":
    main()
