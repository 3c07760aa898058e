"""`filegrid put` and `filegrid get`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from filegrid.cli.opened import (
    Failures,
    grid_paths,
    into_folder,
    note_too_few_servers,
    open_grid,
    shown,
)
from filegrid.errors import IsAFolder
from filegrid.model import MOST_REPLICATION

if TYPE_CHECKING:
    from filegrid.client.blocking import Grid
    from filegrid.client.tree import Report

STDIO = Path("-")
PIECE_BYTES = 1024 * 1024

_Recursive = click.option(
    "-r",
    "recursive",
    is_flag=True,
    help="A folder with all that is in it: the target then holds what the source holds.",
)


@click.command()
@click.argument("local", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("path", callback=grid_paths)
@_Recursive
@click.option(
    "--replication", type=click.IntRange(1, MOST_REPLICATION), help="Replicas of each chunk."
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
def put(local: Path, path: str, recursive: bool, replication: int | None, force: bool) -> None:
    """Upload the file LOCAL, or - for standard input, as PATH or into the folder PATH.

    With -r, files that symbolic links lead to are uploaded; links to folders, devices, pipes and
    sockets are left out, and named. Where a file fails, the others go on; the exit code is that
    of the first failure.
    """
    with open_grid() as grid:
        if local == STDIO:
            put_stdin(grid, path, replication, force)
        elif recursive and local.is_dir():
            put_folder(grid, local, path, replication, force)
        else:
            target = into_folder(grid, path, local.name)
            with progress(target) as report:
                expect_file(local, report)
                grid.runner.run(
                    lambda: grid.client.put(
                        local,
                        target,
                        replication=replication,
                        overwrite=force,
                        moved=report.moved,
                    )
                )
        note_too_few_servers(grid, replication)


def put_stdin(grid: Grid, path: str, replication: int | None, force: bool) -> None:
    # Read by this thread, which Ctrl-C interrupts also while nobody types.
    mode: Literal["wb", "xb"] = "wb" if force else "xb"
    with grid.open(path, mode, replication=replication) as file, progress(path) as report:
        while piece := sys.stdin.buffer.read(PIECE_BYTES):
            file.write(piece)
            report.moved(len(piece))


def put_folder(grid: Grid, local: Path, path: str, replication: int | None, force: bool) -> None:
    from filegrid.client.tree import upload_folder

    with progress(path) as report:
        grid.runner.run(
            lambda: upload_folder(
                grid.client,
                local,
                path,
                replication=replication,
                overwrite=force,
                report=report,
            )
        )


def expect_file(local: Path, report: Report) -> None:
    if local.is_file():
        report.expected(local.stat().st_size)


@click.command()
@click.argument("path", callback=grid_paths)
@click.argument("local", type=click.Path(path_type=Path, allow_dash=True))
@_Recursive
@click.option("--force", is_flag=True, help="Replace local files that exist.")
def get(path: str, local: Path, recursive: bool, force: bool) -> None:
    """Download the file PATH as LOCAL, into the folder LOCAL, or to - standard output.

    A local file appears whole or not at all; where one is replaced, the old one stays until then.
    With -r, where a file fails, the others go on; the exit code is that of the first failure.
    """
    with open_grid() as grid:
        if local == STDIO:
            for piece in grid.stream(path):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        found = grid.stat(path)
        if found.is_folder and not recursive:
            raise IsAFolder("this is a folder", path, advice="download it with -r")
        if found.is_folder:
            get_folder(grid, path, local, force)
            return
        target = local / found.name if local.is_dir() else local
        with progress(path) as report:
            report.expected(found.size)
            grid.runner.run(
                lambda: grid.client.get(path, target, overwrite=force, moved=report.moved)
            )


def get_folder(grid: Grid, path: str, local: Path, force: bool) -> None:
    from filegrid.client.tree import download_folder

    with progress(path) as report:
        grid.runner.run(
            lambda: download_folder(grid.client, path, local, overwrite=force, report=report)
        )


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show on a terminal how far the transfer is; at the end, exit as the first failure says."""
    from filegrid.client.tree import Report

    failures = Failures()
    if not sys.stderr.isatty():
        yield Report(expected=lambda size: None, moved=lambda size: None, failed=failures.add)
        failures.end()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(shown(title)), total=None)
        expected = 0

        def expect(size: int) -> None:
            nonlocal expected
            expected += size
            bar.update(task, total=expected)

        yield Report(
            expected=expect,
            moved=lambda size: bar.advance(task, size),
            failed=failures.add,
        )
    failures.end()
