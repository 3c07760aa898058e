"""What watching many chunk servers costs the leading head: processor time of a whole core.

    python -m benchmarks.heartbeats [--servers 100] [--seconds 20]

The head is a process of its own with real TLS links; the chunk servers, empty and idle, share
another process. Measured is what the head's process uses while nothing but heartbeats goes on,
and what it uses without any chunk server.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import filegrid
from benchmarks.measuring import Watch, report
from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Shape
from filegrid.config import load
from filegrid.measure import rounded

READY_SECONDS = 120.0


def host(home: Path, servers: int) -> None:
    """Run all chunk servers of a grid in this process, until it is ended."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    from filegrid.chunk.service import open_chunk_server
    from filegrid.net.credentials import Credentials
    from filegrid.net.reactor import make_runtime

    for number in range(servers):
        settings = load(home / "etc" / f"chunk-{number + 1}.toml", "chunk")
        credentials = Credentials(settings.tls.certificate, settings.tls.authority)
        runtime = make_runtime(reactor, credentials, threads=1)
        server = open_chunk_server(
            runtime, settings, credentials.identity, create=True, cpu_percent=lambda: 0.0
        )
        Deferred.fromCoroutine(server.start()).addErrback(lambda failure: failure.printTraceback())
    any_reactor: Any = reactor
    any_reactor.run()


def until_all_live(local: LocalGrid, servers: int) -> None:
    deadline_at = time.monotonic() + READY_SECONDS
    with filegrid.connect(local.grid_file) as grid:
        while True:
            states = [server["state"] for server in grid.status()["chunk_servers"]]
            if states.count("live") == servers:
                return
            if time.monotonic() > deadline_at:
                raise SystemExit(f"only {states.count('live')} chunk servers are live")
            time.sleep(0.5)


def percent_of_a_core(pid: int, seconds: float) -> float:
    with Watch({"head": pid}) as watch:
        time.sleep(seconds)
    return rounded(100 * watch.use.cpu_seconds["head"] / watch.use.seconds)


def measure(servers: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        local = LocalGrid(Path(folder) / "grid")
        local.make(Shape(heads=1, health=0, chunk_servers=servers, racks=10))
        command = [sys.executable, "-m", "benchmarks.heartbeats", "--host", str(local.folder)]
        try:
            local.start("head-1")
            pid = local.pid("head-1")
            assert pid is not None
            time.sleep(3)
            alone = percent_of_a_core(pid, seconds)
            hosting = subprocess.Popen([*command, "--servers", str(servers)])
            try:
                until_all_live(local, servers)
                time.sleep(3)
                watching = percent_of_a_core(pid, seconds)
            finally:
                hosting.terminate()
                hosting.wait()
        finally:
            local.down()
    return {
        "servers": servers,
        "head_percent_of_a_core": watching,
        "of_it_without_servers": alone,
        "milliseconds_a_heartbeat": rounded((watching - alone) * 10 / servers),
    }


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--host", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    arguments = parser.parse_args()
    if arguments.host is not None:
        host(arguments.host, arguments.servers)
    else:
        report(measure(arguments.servers, arguments.seconds), arguments.json)


if __name__ == "__main__":
    main()
