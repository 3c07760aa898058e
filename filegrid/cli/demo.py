"""`filegrid demo`: what the grid is for, shown on this machine in under a minute."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from filecmp import cmp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from filegrid.cli.nodes import readiness
from filegrid.cli.output import connect, human_bytes
from filegrid.errors import DeadlineExceeded, IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from filegrid.cli.local_grid import LocalGrid

_MIB = 1024 * 1024
_BIG_BYTES = 64 * _MIB
_MOST_SMALL_FILES = 40
_PATIENCE_SECONDS = 30.0

_SETTINGS = {
    "grid.chunk_bytes": str(8 * _MIB),
    "chunk.heartbeat_seconds": "0.2",
    "chunk.suspect_seconds": "0.6",
    "chunk.dead_seconds": "2",
    "repair.mib_per_second": "0",
}
"""A real grid waits longer before it gives a server up; a spectator does not."""

_VICTIM = "chunk-2"


@click.command()
def demo() -> None:
    """Show a grid losing a chunk server and its head while files go in and out.

    All happens in a temporary folder, which is gone afterwards.
    """
    from rich.console import Console

    from filegrid.cli.local_grid import LocalGrid

    console = Console(highlight=False)
    # Ended politely (by `timeout`, for one), the demo cleans up as it does after Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="filegrid-demo-"))
    grid = LocalGrid(folder / "grid")
    began_at = time.monotonic()
    try:
        _Demo(console, grid, folder).run()
    finally:
        _clean_up(grid, folder)
        signal.signal(signal.SIGTERM, before)
    seconds = time.monotonic() - began_at
    console.print(f"[bold green]Done[/] in {seconds:.0f} seconds; nothing was left behind.")


def _clean_up(grid: LocalGrid, folder: Path) -> None:
    """Stop everything and remove the folder, whatever happened; a second Ctrl-C has to wait."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if grid.exists:
            try:
                grid.down()
            except Exception:
                for name in grid.running():
                    grid.kill(name)
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGINT, before)


class _Demo:
    """The show, one act after the other."""

    def __init__(self, console: Console, grid: LocalGrid, folder: Path) -> None:
        self._console = console
        self._grid = grid
        self._local = folder / "local"

    def run(self) -> None:
        self._local.mkdir()
        self._start()
        with connect(self._grid.grid_file, _PATIENCE_SECONDS) as client:
            big, small = self._make_files()
            with self._step(f"Upload {human_bytes(_BIG_BYTES)}, and {_VICTIM} is killed meanwhile"):
                self._meanwhile(
                    lambda: client.put(str(big), "/big.bin"), lambda: self._grid.kill(_VICTIM)
                )
            with self._step(f"Upload {len(small)} modules of the Python library"):
                client.mkdir("/python")
                for file in small:
                    client.put(str(file), f"/python/{file.name}")
            self._download(client, big, small)
            self._heal(client)
        with self._step("Stop the grid"):
            self._grid.down()

    def _start(self) -> None:
        from filegrid.cli.local_grid import Shape

        with self._step("Start a grid: 3 heads, 3 health nodes, 5 chunk servers, 3 replicas"):
            self._grid.make(Shape(settings=_SETTINGS))
            self._grid.start(*self._grid.nodes)
            self._grid.wait_ready(readiness(self._grid))

    def _make_files(self) -> tuple[Path, list[Path]]:
        big = self._local / "big.bin"
        with open(big, "wb") as file:
            for _ in range(_BIG_BYTES // _MIB):
                file.write(os.urandom(_MIB))
        library = Path(sysconfig.get_path("stdlib"))
        return big, sorted(library.glob("*.py"))[:_MOST_SMALL_FILES]

    def _download(self, client: Any, big: Path, small: list[Path]) -> None:
        copy = self._local / "copy"
        copy.mkdir()
        leader = client.status()["leader"]
        with self._step(f"Download, and {leader}, which leads, is killed meanwhile") as say:
            self._meanwhile(
                lambda: client.get("/big.bin", str(copy / big.name)),
                lambda: self._grid.kill(leader),
            )
            for file in small:
                client.get(f"/python/{file.name}", str(copy / file.name))
            say(f"{client.status()['leader']} was elected and leads now")
        with self._step(f"Compare all {len(small) + 1} files byte for byte"):
            for file in (big, *small):
                if not cmp(file, copy / file.name, shallow=False):
                    raise IntegrityError("came back different", file.name)

    def _heal(self, client: Any) -> None:
        with self._step(f"Heal: what {_VICTIM} held is made anew on the others") as say:
            deadline_at = time.monotonic() + _PATIENCE_SECONDS
            while True:
                status = client.status()
                chunks = status["chunks"]
                dead = any(
                    server["name"] == _VICTIM and server["state"] == "dead"
                    for server in status["chunk_servers"]
                )
                short = chunks["under_replicated"] + chunks["missing"]
                # Before the server is given up, its replicas still count.
                if dead and short == 0 and chunks["healthy"] == chunks["total"] > 0:
                    say(f"{chunks['total']} chunks, all with 3 good replicas again")
                    return
                if time.monotonic() > deadline_at:
                    raise DeadlineExceeded(
                        f"not healed after {_PATIENCE_SECONDS:g} seconds: {short} chunks are short"
                    )
                time.sleep(0.1)

    def _meanwhile(self, transfer: Callable[[], object], disaster: Callable[[], object]) -> None:
        """Let `disaster` strike once `transfer` is on its way; raise what the transfer raises."""
        done: Future[object] = Future()

        def work() -> None:
            try:
                done.set_result(transfer())
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.1)
        disaster()
        done.result()

    @contextlib.contextmanager
    def _step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Say what is done, and how long it took; the value takes a word on how it went."""
        began_at = time.monotonic()
        words: list[str] = []
        with self._console.status(text):
            yield words.append
        seconds = time.monotonic() - began_at
        self._console.print(f"[green]✓[/] {text} [dim]({seconds:.1f} s)[/]")
        for word in words:
            self._console.print(f"  {word}")


COMMANDS: list[click.Command] = [demo]
