"""What clients feel when a chunk server stops answering and its connections stay up.

    python -m benchmarks.stalled [--writes] [--mib 256] [--stalls 5] [--seconds 8] [--folder DIR]
        [--json FILE]

A client reads 64 KiB at random offsets of a file that is in memory, one at a time, over the
network, or writes new files of 4 KiB; one server that has replicas of the large file is stopped for
a while (SIGSTOP), again and again. Beside each other: the calls just before, and those meanwhile.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from benchmarks.measuring import MIB, latencies_ms, pids_of, report, spreads, told
from benchmarks.random_reads import PATH, large_file
from filegrid.client.grid import GridClient
from filegrid.measure import Figures
from filegrid.model import BLOCK_BYTES

SETTLE_SECONDS = 30.0
"""After a stall: the server is trusted again by its head, and avoided by no client."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--writes", action="store_true")
    arguments.add_argument("--mib", type=int, default=256)
    arguments.add_argument("--stalls", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=8.0)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    found: dict[str, list[Figures]] = {"before": [], "stalled": []}
    with large_file(options.mib, options.folder) as (local, grid, client):
        if options.writes:
            work = partial(_write_for, client)
        else:
            work = partial(_read_for, client, last=options.mib * MIB - BLOCK_BYTES)
        holders = grid.runner.run(partial(_holders, client))
        for turn in range(options.stalls):
            before = grid.runner.run(partial(work, options.seconds))
            pid = pids_of(local)[holders[turn % len(holders)]]
            os.kill(pid, signal.SIGSTOP)
            try:
                stalled = grid.runner.run(partial(work, options.seconds))
            finally:
                os.kill(pid, signal.SIGCONT)
            for name, latencies in (("before", before), ("stalled", stalled)):
                figures = latencies_ms(latencies)
                figures["calls"] = float(len(latencies))
                figures["over_100_ms"] = float(sum(one > 0.1 for one in latencies))
                found[name].append(figures)
            told(f"stall {turn + 1} of {options.stalls}")
            time.sleep(SETTLE_SECONDS)
    figures = {name: spreads(runs) for name, runs in found.items()}
    report({"mib": options.mib, "seconds": options.seconds, "stalls": figures}, options.json)


async def _holders(client: GridClient) -> list[str]:
    content = await client.open_read(PATH)
    placed = await content.manifest.placed(0)
    return [replica.server for replica in placed.replicas]


async def _read_for(client: GridClient, seconds: float, *, last: int) -> list[float]:
    content = await client.open_read(PATH)

    async def read(_: int) -> None:
        data = await content.pread(random.randint(0, last), BLOCK_BYTES)
        assert len(data) == BLOCK_BYTES, len(data)

    return await _repeat(read, seconds)


async def _write_for(client: GridClient, seconds: float) -> list[float]:
    data, folder = os.urandom(4096), f"/{os.urandom(4).hex()}"
    await client.mkdir(folder)

    async def write(number: int) -> None:
        await client.write_bytes(f"{folder}/{number}", data)

    return await _repeat(write, seconds)


async def _repeat(call: Callable[[int], Awaitable[None]], seconds: float) -> list[float]:
    """How long each call took, one after the other."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        await call(len(latencies))
        latencies.append(time.perf_counter() - begun)
    return latencies


if __name__ == "__main__":
    main()
