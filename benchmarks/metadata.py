"""How fast the heads are: creates, stats, renames, removes and listings, beside a bare TLS echo.

    python benchmarks/metadata.py [--runs 5] [--files 8000] [--in-flight 64] [--clients 1]
                                  [--heads 3] [--json FILE]

Starts a grid with three heads in a temporary folder, and a client process (or several), all on this
machine. Every run makes empty files, looks at them, renames, lists and removes them, and measures a
bare TLS echo of protobuf messages, also from `in-flight` calls at once, as the floor. Prints the
medians over all runs with the spread, the ratio to the echo of the same run, latencies, and the CPU
microseconds of each role for one operation. Bounded in time; removes its grid afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

import filegrid
from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Shape
from filegrid.cli.nodes import readiness

VERBS = ("create", "stat", "rename", "list", "remove")
STATS_PER_FILE = 3
LISTINGS = 3
ECHOES = 60_000


class Process:
    """A worker that runs beside us."""

    def __init__(self, config: Path) -> None:
        worker = Path(__file__).with_name("metadata_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, str(worker), str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, **task: Any) -> None:
        assert self._process.stdin is not None
        print(json.dumps(task), file=self._process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the worker ended"}
        if "error" in answer:
            raise SystemExit(answer["error"])
        return answer

    def ask(self, **task: Any) -> dict[str, Any]:
        self.tell(**task)
        return self.hear()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


class Bench:
    def __init__(self, local: LocalGrid, options: argparse.Namespace) -> None:
        self._local = local
        self._options = options
        self._clients = [Process(local.grid_file) for _ in range(options.clients)]
        self._echo = Process(local.grid_file)
        self.epochs: set[int] = set()
        self.rates: defaultdict[str, list[float]] = defaultdict(list)
        self.ratios: defaultdict[str, list[float]] = defaultdict(list)
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.cpu: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def end(self) -> None:
        for process in [*self._clients, self._echo]:
            process.end()

    def run(self) -> None:
        for client in self._clients:
            client.ask(verb="connect")
        settings = self._local.folder / "etc" / "head-1.toml"
        self._port = self._echo.ask(verb="echo_serve", settings=str(settings))["port"]
        for number in range(-1, self._options.runs):  # the first one warms up
            found = self._one_run(number)
            if number >= 0:
                for verb, rate in found.items():
                    self.rates[verb].append(rate)
                    self.ratios[verb].append(rate / found["echo"])

    def _one_run(self, number: int) -> dict[str, float]:
        folder = f"/bench/run-{number}"
        self._clients[0].ask(verb="mkdir", path=folder)
        rates = {verb: self._verb(verb, folder, number) for verb in VERBS}
        in_flight = self._options.in_flight
        echo = self._clients[0].ask(verb="echo", port=self._port, count=ECHOES, in_flight=in_flight)
        rates["echo"] = ECHOES / echo["seconds"]
        print(
            f"run {number}: " + ", ".join(f"{verb} {rate:,.0f}/s" for verb, rate in rates.items()),
            file=sys.stderr,
            flush=True,
        )
        return rates

    def _verb(self, verb: str, folder: str, number: int) -> float:
        before = self._cpu()
        if verb == "list":
            found = [self._clients[0].ask(verb="list", folder=folder) for _ in range(LISTINGS)]
            count = sum(one["count"] for one in found)
            elapsed = sum(one["ended"] - one["begun"] for one in found)
        else:
            repeats = STATS_PER_FILE if verb == "stat" else 1
            found = [one for _ in range(repeats) for one in self._all(verb, folder)]
            count = sum(len(one["seconds"]) for one in found)
            rounds = [
                found[i : i + len(self._clients)] for i in range(0, len(found), len(self._clients))
            ]
            elapsed = sum(
                max(one["ended"] for one in part) - min(one["begun"] for one in part)
                for part in rounds
            )
            if number >= 0:
                self.seconds[verb] += [second for one in found for second in one["seconds"]]
                self.cpu[verb]["client"].append(sum(one["cpu"] for one in found) / count * 1e6)
        if number >= 0:
            after = self._cpu()
            for role in after:
                self.cpu[verb][role].append((after[role] - before[role]) / count * 1e6)
        return count / elapsed

    def _all(self, verb: str, folder: str) -> list[dict[str, Any]]:
        each = self._options.files // len(self._clients)
        for place, client in enumerate(self._clients):
            client.tell(
                verb="run",
                what=verb,
                folder=folder,
                first=place * each,
                count=each,
                in_flight=self._options.in_flight // len(self._clients),
            )
        return [client.hear() for client in self._clients]

    def _cpu(self) -> dict[str, float]:
        with filegrid.connect(str(self._local.grid_file)) as grid:
            status = grid.status()
        leader = status["leader"]
        self.epochs.add(status["epoch"])
        seconds: defaultdict[str, float] = defaultdict(float)
        for node in self._local.nodes:
            role = node.partition("-")[0]
            role = ("leader" if node == leader else "standbys") if role == "head" else "others"
            pid = self._local.pid(node)
            if pid is not None:
                times = psutil.Process(pid).cpu_times()
                seconds[role] += times.user + times.system
        return seconds


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--files", type=int, default=8000)
    arguments.add_argument("--in-flight", type=int, default=64)
    arguments.add_argument("--clients", type=int, default=1)
    arguments.add_argument("--heads", type=int, default=3)
    arguments.add_argument("--json", type=Path, help="write the report there, too")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # not without the grid
    with tempfile.TemporaryDirectory() as folder:
        local = LocalGrid(Path(folder) / "grid")
        local.make(Shape(heads=options.heads, chunk_servers=3))
        try:
            local.start(*local.nodes)
            local.wait_ready(readiness(local))
            bench = Bench(local, options)
            try:
                bench.run()
            finally:
                bench.end()
            text = json.dumps(report(bench, options), indent=2)
        finally:
            local.down()
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def report(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "heads": options.heads,
        "in_flight": options.in_flight,
        "clients": options.clients,
        "runs": options.runs,
        "elections_meanwhile": len(bench.epochs) - 1,
        "per_second": {verb: spread(rates) for verb, rates in bench.rates.items()},
        "ratio_to_echo": {
            verb: spread(ratios, 3) for verb, ratios in bench.ratios.items() if verb != "echo"
        },
        "latency_ms": {verb: latencies(found) for verb, found in bench.seconds.items()},
        "cpu_us_per_operation": {
            verb: {role: round(statistics.median(us), 1) for role, us in roles.items()}
            for verb, roles in bench.cpu.items()
        },
    }


def spread(values: list[float], digits: int = 0) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }


def latencies(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000, 2)
        for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("most", 1.0))
    }


if __name__ == "__main__":
    main()
