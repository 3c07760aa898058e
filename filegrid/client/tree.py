"""Whole folders, up and down: many files in flight, since most files are small."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from filegrid.client import download
from filegrid.client.grid import GridClient, normal
from filegrid.client.local import MOST_SMALL_BYTES, local_errors, read_small
from filegrid.client.window import Window
from filegrid.errors import AlreadyExists, GridError, NotAFolder, Unavailable

FILES_IN_FLIGHT = 64
"""A small file is a few round trips and an fsync: that many at once hide them, and share them."""

FILES_AT_ONCE = 64
BYTES_AT_ONCE = 1024 * 1024
"""Of small files, read by one call of a thread."""

FOLDERS_IN_FLIGHT = 16
"""Looked through at once: one after the other they would wait for each other's round trips, and
files of small folders would not keep each other company."""


T = TypeVar("T")


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

    async def visit(folder: tuple[Path, str], below: list[tuple[Path, str]]) -> None:
        local, remote = folder
        try:
            found = await client.access.runtime.threads.run(_scan, local)
        except GridError as error:
            report.failed(error)
            return
        for refused in found.refused:
            report.failed(refused)
        made = await _make_folders(client, remote, found.folders, report)
        below += [(local / name, _below(remote, name)) for name in made]
        for batch in _batches(found.files):
            contents = await _read(client, [local / name for name, _ in batch], batch)
            for (name, size), content in zip(batch, contents, strict=True):
                report.expected(size)
                work = partial(
                    _upload,
                    client,
                    local / name,
                    content,
                    _below(remote, name),
                    replication=replication,
                    overwrite=overwrite,
                    report=report,
                )
                await files.add(_one(work, report))

    await _make_folder(client, normal(path))
    async with Window(FILES_IN_FLIGHT) as files:
        await _visit_all((source, normal(path)), visit)


async def download_folder(
    client: GridClient, path: str, target: Path, *, overwrite: bool, report: Report
) -> None:
    """Make the local folder `target` hold all that the folder `path` holds.

    :raises GridError: where `target` cannot be made, or nothing can be done any more.
    """
    run = client.access.runtime.threads.run

    async def visit(folder: tuple[str, Path], below: list[tuple[str, Path]]) -> None:
        remote, local = folder
        after: str | None = ""
        while after is not None:
            page, after = await client.list_contents(remote, after)
            for content in page:
                stat = content.stat
                if stat.is_folder:
                    try:
                        await run(_make_local_folder, local / stat.name)
                    except GridError as error:
                        report.failed(error)
                    else:
                        below.append((stat.path, local / stat.name))
                    continue
                report.expected(stat.size)
                work = partial(
                    download.to_path,
                    client.access.runtime,
                    content,
                    local / stat.name,
                    overwrite=overwrite,
                    moved=report.moved,
                )
                await files.add(_one(work, report))

    await run(_make_local_folder, target)
    async with Window(FILES_IN_FLIGHT) as files:
        await _visit_all((normal(path), target), visit)


async def usage(client: GridClient, path: str) -> Usage:
    """Count what is at `path` and below."""
    top = await client.stat(path)
    if not top.is_folder:
        return Usage(files=1, bytes=top.size)
    total = Usage()

    async def count(folder: str, below: list[str]) -> None:
        async for entry in client.listdir(folder):
            if entry.is_folder:
                total.folders += 1
                below.append(entry.path)
            else:
                total.files += 1
                total.bytes += entry.size

    await _visit_all(top.path, count)
    return total


async def _visit_all(
    top: T, visit: Callable[[T, list[T]], Coroutine[Deferred[Any], Any, None]]
) -> None:
    """Visit folders, some at a time; each visit adds those below to the list that it gets."""
    level = [top]
    while level:
        below: list[T] = []
        async with Window(FOLDERS_IN_FLIGHT) as window:
            for folder in level:
                await window.add(visit(folder, below))
        level = below


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


def _batches(files: list[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Small files are read some at a time: each call of a thread costs as much as reading one."""
    batch: list[tuple[str, int]] = []
    batch_bytes = 0
    for name, size in files:
        if batch and (len(batch) == FILES_AT_ONCE or batch_bytes + size > BYTES_AT_ONCE):
            yield batch
            batch, batch_bytes = [], 0
        batch.append((name, size))
        batch_bytes += size
    if batch:
        yield batch


async def _read(
    client: GridClient, paths: list[Path], batch: list[tuple[str, int]]
) -> list[bytes | GridError | None]:
    if len(batch) == 1 and batch[0][1] > MOST_SMALL_BYTES:
        return [None]
    return await client.access.runtime.threads.run(read_small, paths)


async def _upload(
    client: GridClient,
    local: Path,
    content: bytes | GridError | None,
    path: str,
    *,
    replication: int | None,
    overwrite: bool,
    report: Report,
) -> None:
    if isinstance(content, GridError):
        raise content
    if content is None:
        await client.put(
            local, path, replication=replication, overwrite=overwrite, moved=report.moved
        )
        return
    await client.write_bytes(path, content, replication=replication, overwrite=overwrite)
    report.moved(len(content))


async def _make_folders(
    client: GridClient, path: str, names: list[str], report: Report
) -> list[str]:
    """Make folders below `path`; which of them are there now."""
    made = set()

    async def make(name: str) -> None:
        try:
            await client.mkdir(_below(path, name), parents=True)
        except Unavailable:
            raise
        except GridError as error:
            report.failed(error)
        else:
            made.add(name)

    async with Window(FOLDERS_IN_FLIGHT) as window:
        for name in names:
            await window.add(make(name))
    return [name for name in names if name in made]


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
