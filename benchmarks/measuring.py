"""What benchmarks share: processor time and memory of many processes, and one JSON document.

A benchmark makes a grid (:func:`local_grid`), measures pieces of work (:class:`Watch`) some times
over, and hands the figures to :func:`report`.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Shape
from filegrid.cli.nodes import readiness
from filegrid.measure import Figures, percentiles, rounded, spread

MIB = 1024 * 1024
GIB = 1024 * MIB

_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def local_grid(
    *,
    folder: Path | None = None,
    chunk_servers: int = 5,
    racks: int = 3,
    settings: Mapping[str, str] | None = None,
) -> Iterator[LocalGrid]:
    """A grid of processes in a temporary folder, ready for writes; stopped and removed in the end.

    :param folder: where that folder is made: what disk is measured.
    """
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        local = LocalGrid(Path(temporary) / "grid")
        shape = Shape(chunk_servers=chunk_servers, racks=racks, settings=dict(settings or {}))
        local.make(shape)
        try:
            local.start(*local.nodes)
            local.wait_ready(readiness(local))
            _rank_alike(pids_of(local).values())
            yield local
        finally:
            local.down()


def _rank_alike(pids: Iterable[int]) -> None:
    """Give the grid's processes the weight of this one.

    Each is a session of its own, and Linux shares the processors out between sessions: beside
    other work on the machine a floor, which is of this session, would else have an advantage.
    """
    own = Path("/proc/self/autogroup")
    with suppress(OSError):  # a kernel without such groups
        rank = own.read_text().rpartition("nice")[2].strip()
        for pid in pids:
            Path(f"/proc/{pid}/autogroup").write_text(rank)


def _leave(number: int, frame: object) -> None:
    """A benchmark that is ended by `timeout` ends its grid too."""
    raise SystemExit(128 + number)


def pids_of(local: LocalGrid) -> dict[str, int]:
    """The processes of a grid by their nodes' names."""
    return {node: pid for node in local.nodes if (pid := local.pid(node)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a piece of work took.

    :ivar cpu_seconds: by the name of the process.
    :ivar peak_mib: resident memory at its highest, by the name of the process.
    """

    seconds: float
    cpu_seconds: dict[str, float]
    peak_mib: dict[str, float]

    @property
    def all_cpu_seconds(self) -> float:
        return sum(self.cpu_seconds.values())

    @property
    def most_mib(self) -> float:
        """Of the process that took most."""
        return max(self.peak_mib.values())


class Watch:
    """Measures what happens within it: time, and the processor time and memory of processes.

    :param pids: besides this process and the children that it has ended.
    :ivar use: once it is over.
    """

    use: Use

    def __init__(self, pids: Mapping[str, int] | None = None) -> None:
        self._pids = {"client": os.getpid(), **(pids or {})}

    def __enter__(self) -> Watch:
        for pid in self._pids.values():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        self._cpu = self._read_cpu()
        self._begun = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._begun
        now = self._read_cpu()
        self.use = Use(
            seconds=seconds,
            cpu_seconds={name: now[name] - self._cpu.get(name, 0.0) for name in now},
            peak_mib={name: _peak_mib(pid) for name, pid in self._pids.items()},
        )

    def _read_cpu(self) -> dict[str, float]:
        read = {name: _cpu_seconds(pid) for name, pid in self._pids.items()}
        times = os.times()
        read["ended children"] = times.children_user + times.children_system
        return read


def _cpu_seconds(pid: int) -> float:
    """Of all the threads of a process, those that have ended with them."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def _peak_mib(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return rounded(int(line.split()[1]) / 1024)
    return 0.0


def drop_caches(folder: Path) -> None:
    """Let the kernel forget what the files below `folder` hold; they must be on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(OSError), open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def throughput(uses: Iterable[Use], moved_bytes: int) -> dict[str, Any]:
    """The figures of one kind of transfer, several times over."""
    uses = list(uses)
    gibs = moved_bytes / GIB
    peaks = [(peak, name) for use in uses for name, peak in use.peak_mib.items()]
    return {
        "mib_per_second": spread([moved_bytes / MIB / use.seconds for use in uses]),
        "cpu_seconds_per_gib": spread([use.all_cpu_seconds / gibs for use in uses]),
        "cpu_seconds_per_gib_of": {
            name: rounded(sum(use.cpu_seconds[name] for use in uses) / len(uses) / gibs)
            for name in uses[0].cpu_seconds
            if sum(use.cpu_seconds[name] for use in uses) / len(uses) / gibs >= 0.01
        },
        "peak_mib": dict(zip(("of", "mib"), reversed(max(peaks)), strict=True)),
        "seconds": spread([use.seconds for use in uses]),
    }


def latencies_ms(seconds: Sequence[float]) -> Figures:
    """Percentiles in milliseconds; of one value at least."""
    return {f"{name}_ms": 1000 * value for name, value in percentiles(seconds).items()}


def spreads(runs: Sequence[Figures]) -> dict[str, Figures]:
    """Of each figure over all runs, which have the same ones."""
    return {figure: spread([one[figure] for one in runs]) for figure in runs[0]}


def is_whole(counts: Mapping[str, Any]) -> bool:
    """Whether every chunk has its replicas, by the counts of a status."""
    return counts["healthy"] == counts["total"] and not counts["repairing"]


def told(line: str) -> None:
    """Say how far a benchmark is, beside the document on its standard output."""
    print(line, file=sys.stderr, flush=True)


def report(figures: Mapping[str, Any], file: Path | None) -> None:
    """Print the figures with what they were measured on, as JSON, and keep them in `file`."""
    document = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        **figures,
    }
    text = json.dumps(document, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n")
