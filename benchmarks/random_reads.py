"""64 KiB at random offsets of one large file that is in memory, short-circuit and over TLS.

    python -m benchmarks.random_reads [--mib 1024] [--reads 2000] [--runs 5] [--folder DIR]
        [--json FILE]

One read at a time, every block checked. Beside it the floor: as many bytes asked of a blocking TLS
socket in another process, which has them in memory, and hashed here. The three take turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from blake3 import blake3

import filegrid
from benchmarks.floor import Paper
from benchmarks.measuring import (
    MIB,
    Use,
    Watch,
    latencies_ms,
    local_grid,
    pids_of,
    report,
    spreads,
    told,
)
from filegrid.cli.local_grid import LocalGrid
from filegrid.client.content import Content
from filegrid.client.grid import GridClient
from filegrid.config import load_client
from filegrid.measure import Figures
from filegrid.model import BLOCK_BYTES
from filegrid.net.credentials import Credentials

PATH = "/large"

WARM_READS = 200
"""Before those that count: connections are made, and the digests of blocks read."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--mib", type=int, default=1024)
    arguments.add_argument("--reads", type=int, default=2000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    found: dict[str, list[Figures]] = {"short-circuit": [], "over TLS": [], "floor": []}

    def note(name: str, latencies: list[float], use: Use) -> None:
        figures = latencies_ms(latencies)
        figures["cpu_ms"] = 1000 * use.all_cpu_seconds / (WARM_READS + len(latencies))
        figures["peak_mib"] = use.most_mib
        found[name].append(figures)

    with large_file(options.mib, options.folder) as (local, grid, distant):
        paper = Paper(
            str(local.folder / "certificates" / "chunk-1.pem"),
            str(local.folder / "ca" / "ca.pem"),
        )
        last = options.mib * MIB - BLOCK_BYTES
        with floor(paper) as (peer, peer_pid):
            for turn in range(options.runs):
                offsets = [random.randint(0, last) for _ in range(WARM_READS + options.reads)]
                for name, client in (("short-circuit", grid.client), ("over TLS", distant)):
                    with Watch(pids_of(local)) as watch:
                        latencies = grid.runner.run(partial(_read, client, offsets))
                    note(name, latencies[WARM_READS:], watch.use)
                with Watch({"peer": peer_pid}) as watch:
                    latencies = [_ask(peer) for _ in offsets]
                note("floor", latencies[WARM_READS:], watch.use)
                told(f"run {turn + 1} of {options.runs}")
    figures = {name: spreads(runs) for name, runs in found.items()}
    report({"mib": options.mib, "reads": options.reads, "random_64_kib": figures}, options.json)


@contextmanager
def large_file(
    mib: int, folder: Path | None
) -> Iterator[tuple[LocalGrid, filegrid.Grid, GridClient]]:
    """A grid with a file at `PATH`, and a client of it to which no server lends files."""
    with local_grid(folder=folder) as local, filegrid.connect(str(local.grid_file)) as grid:
        with grid.open(PATH, "wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        distant = _without_short_circuit(grid, local.grid_file)
        yield local, grid, distant
        grid.runner.run(distant.close)


def _without_short_circuit(grid: filegrid.Grid, file: Path) -> GridClient:
    """A client beside it that lends no files, as on another machine."""
    settings = load_client(file)
    identity = Credentials(settings.tls.certificate, settings.tls.authority).identity
    runtime = replace(grid.client.access.runtime, lending=None)
    return GridClient(runtime, identity, settings.grid.heads)


async def _read(client: GridClient, offsets: list[int]) -> list[float]:
    content: Content = await client.open_read(PATH)
    latencies = []
    for offset in offsets:
        begun = time.perf_counter()
        data = await content.pread(offset, BLOCK_BYTES)
        latencies.append(time.perf_counter() - begun)
        assert len(data) == BLOCK_BYTES, len(data)
    return latencies


# The floor.


@contextmanager
def floor(paper: Paper) -> Iterator[tuple[ssl.SSLSocket, int]]:
    """A connection to a process that answers each byte with a block, and its id."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, paper), daemon=True)
    process.start()
    try:
        with socket.create_connection(("127.0.0.1", ours.recv())) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with paper.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain) as peer:
                assert process.pid is not None
                yield peer, process.pid
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, paper: Paper) -> None:
    block = os.urandom(BLOCK_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pipe.send(listening.getsockname()[1])
        plain, _ = listening.accept()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with paper.context(ssl.PROTOCOL_TLS_SERVER).wrap_socket(plain, server_side=True) as peer:
        while peer.recv(1):
            peer.sendall(block)


def _ask(peer: ssl.SSLSocket) -> float:
    begun = time.perf_counter()
    peer.sendall(b"?")
    data = bytearray(BLOCK_BYTES)
    view, filled = memoryview(data), 0
    while filled < BLOCK_BYTES:
        filled += peer.recv_into(view[filled:])
    blake3(data).digest()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
