"""Whole folders, up and down: many files in flight, since most files are small."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from filegrid.client import download
from filegrid.client.content import Content
from filegrid.client.grid import GridClient, normal
from filegrid.client.local import local_errors
from filegrid.client.window import Window
from filegrid.errors import AlreadyExists, GridError, NotAFolder, Unavailable

FILES_IN_FLIGHT = 16
"""A small file is a few round trips and an fsync: that many at once hide them."""

LISTINGS_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Whom to tell of what.

    :ivar expected: a file of so many bytes is to be moved.
    :ivar moved: so many more bytes were.
    :ivar failed: a file or folder could not be, and the others go on.
    """

    expected: Callable[[int], None]
    moved: Callable[[int], None]
    failed: Callable[[GridError], None]


@dataclass(slots=True)
class Usage:
    """What a folder holds, at any depth."""

    files: int = 0
    folders: int = 0
    bytes: int = 0


async def upload_folder(
    client: GridClient,
    source: Path,
    path: str,
    *,
    replication: int | None,
    overwrite: bool,
    report: Report,
) -> None:
    """Make the folder `path` hold all that the local folder `source` holds.

    It may exist; so may folders below it. Files reached by symbolic links are uploaded. Folders
    reached so, and what is neither file nor folder, are refused by name.

    :raises GridError: where `path` cannot be made, or nothing can be done any more.
    """
    await _make_folder(client, normal(path))
    folders = [(source, normal(path))]
    async with Window(FILES_IN_FLIGHT) as window:
        while folders:
            local, remote = folders.pop()
            try:
                found = await client.access.runtime.threads.run(_scan, local)
            except GridError as error:
                report.failed(error)
                continue
            for refused in found.refused:
                report.failed(refused)
            for name in reversed(found.folders):
                below = _below(remote, name)
                try:
                    await client.mkdir(below, parents=True)
                except Unavailable:
                    raise
                except GridError as error:
                    report.failed(error)
                else:
                    folders.append((local / name, below))
            for name, size in found.files:
                report.expected(size)
                work = partial(
                    client.put,
                    local / name,
                    _below(remote, name),
                    replication=replication,
                    overwrite=overwrite,
                    moved=report.moved,
                )
                await window.add(_one(work, report))


async def download_folder(
    client: GridClient, path: str, target: Path, *, overwrite: bool, report: Report
) -> None:
    """Make the local folder `target` hold all that the folder `path` holds.

    :raises GridError: where `target` cannot be made, or nothing can be done any more.
    """
    run = client.access.runtime.threads.run
    await run(_make_local_folder, target)
    root = normal(path)
    async with Window(FILES_IN_FLIGHT) as window:
        async for entry in client.walk(root):
            local = target / entry.path[len(root) :].lstrip("/")
            if entry.is_folder:
                try:
                    await run(_make_local_folder, local)
                except GridError as error:
                    report.failed(error)
                continue
            report.expected(entry.size)
            work = partial(
                download.to_path,
                client.access.runtime,
                Content(client.access, entry),
                local,
                overwrite=overwrite,
                moved=report.moved,
            )
            await window.add(_one(work, report))


async def usage(client: GridClient, path: str) -> Usage:
    """Count what is at `path` and below."""
    top = await client.stat(path)
    if not top.is_folder:
        return Usage(files=1, bytes=top.size)
    total = Usage()
    level = [top.path]

    async def count(folder: str, below: list[str]) -> None:
        async for entry in client.listdir(folder):
            if entry.is_folder:
                total.folders += 1
                below.append(entry.path)
            else:
                total.files += 1
                total.bytes += entry.size

    while level:
        below: list[str] = []
        async with Window(LISTINGS_IN_FLIGHT) as window:
            for folder in level:
                await window.add(count(folder, below))
        level = below
    return total


@dataclass(slots=True)
class _Found:
    files: list[tuple[str, int]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    refused: list[GridError] = field(default_factory=list)


def _scan(folder: Path) -> _Found:
    """What is in a local folder; blocks."""
    found = _Found()
    with local_errors(folder):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                found.folders.append(entry.name)
                continue
            try:
                with local_errors(entry.path):
                    mode = entry.stat()
            except GridError as error:  # as a symbolic link that leads nowhere
                found.refused.append(error)
                continue
            if stat.S_ISREG(mode.st_mode):
                found.files.append((entry.name, mode.st_size))
            else:
                what = "a link to a folder" if stat.S_ISDIR(mode.st_mode) else "no regular file"
                found.refused.append(GridError(f"it is {what}, and was left out", entry.path))
    return found


async def _make_folder(client: GridClient, path: str) -> None:
    try:
        await client.mkdir(path)
    except AlreadyExists:
        if not (await client.stat(path)).is_folder:
            raise NotAFolder("this is a file, not a folder", path) from None


def _make_local_folder(path: Path) -> None:
    with local_errors(path):
        if not path.is_dir():
            path.mkdir()


async def _one(work: Callable[[], Coroutine[Deferred[Any], Any, object]], report: Report) -> None:
    try:
        await work()
    except Unavailable:
        raise
    except GridError as error:
        report.failed(error)


def _below(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
