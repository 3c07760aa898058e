"""The blocking face of the client: ordinary calls, from any thread but the reactor's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, overload

from filegrid.client.backup import BackedUp
from filegrid.client.file import GridReader, GridWriter
from filegrid.client.grid import GridClient
from filegrid.client.ingest import STREAM_BYTES
from filegrid.client.reader import Reader
from filegrid.client.runner import ReactorThread, Runner
from filegrid.client.stat import FolderPolicy, Stat, Trashed
from filegrid.runtime import Bytes

Mode = Literal["rb", "wb", "xb", "ab"]


def connect(
    config: str | os.PathLike[str] | None = None, *, timeout_seconds: float | None = None
) -> Grid:
    """A grid, by its configuration file; None looks where the command looks.

    :param timeout_seconds: how long each operation waits for the grid without progress; None
        takes it from the file, where 30 is the default.
    :raises NoSuchPath: where there is no configuration.
    :raises NotPermitted: where the credentials that it names cannot be used.
    """
    runner = ReactorThread()
    client = runner.run(
        lambda: GridClient.connect(runner.reactor, config, timeout_seconds=timeout_seconds)
    )
    return Grid(client, runner)


class Grid:
    """The files of a grid. May be shared by threads. Paths are absolute grid paths.

    The verbs are those of :class:`~filegrid.client.grid.GridClient`, and raise what they raise.
    Ctrl-C cancels what is under way.
    """

    def __init__(self, client: GridClient, runner: Runner) -> None:
        self.client = client
        self.runner = runner

    def __enter__(self) -> Grid:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take leave of the grid; files that are open for writing are not published."""
        self.runner.run(self.client.close)

    # Contents

    def put(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        path: str,
        *,
        replication: int | None = None,
        overwrite: bool = False,
    ) -> Stat:
        """Upload a local file, or the rest of a binary file object."""
        if isinstance(source, (str, os.PathLike)):
            local = Path(source)
            return self.runner.run(
                lambda: self.client.put(local, path, replication=replication, overwrite=overwrite)
            )
        # A file object is read by the caller's own thread, which Ctrl-C can interrupt.
        with self.open(path, "wb" if overwrite else "xb", replication=replication) as file:
            while piece := source.read(STREAM_BYTES):
                file.write(piece)
        assert file.published is not None
        return file.published

    def get(
        self, path: str, target: str | os.PathLike[str] | BinaryIO, *, overwrite: bool = True
    ) -> Stat:
        """Download a file to a local one, which appears whole or not at all, or a file object."""
        if isinstance(target, (str, os.PathLike)):
            local = Path(target)
            return self.runner.run(lambda: self.client.get(path, local, overwrite=overwrite))
        content = self.runner.run(lambda: self.client.open_read(path))
        for piece in self._pieces(content.reader()):
            target.write(piece)
        return content.stat

    def stream(self, path: str, offset: int = 0, length: int | None = None) -> Iterator[memoryview]:
        """The bytes from `offset` on, in order, a bounded part of them read ahead."""
        content = self.runner.run(lambda: self.client.open_read(path))
        return self._pieces(content.reader(offset, length))

    def read_bytes(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes from `offset` on, up to `length` or to the end of the file."""
        return self.runner.run(lambda: self.client.read_bytes(path, offset, length))

    def write_bytes(
        self, path: str, data: Bytes, *, replication: int | None = None, overwrite: bool = False
    ) -> Stat:
        """Make `data` the contents of the file `path`."""
        return self.runner.run(
            lambda: self.client.write_bytes(
                path, data, replication=replication, overwrite=overwrite
            )
        )

    def append(self, path: str, data: Bytes) -> Stat:
        """Add `data` at the end of a file, which is made where it is missing."""
        return self.runner.run(lambda: self.client.append(path, data))

    @overload
    def open(self, path: str, mode: Literal["rb"] = "rb") -> GridReader: ...

    @overload
    def open(
        self, path: str, mode: Literal["wb", "xb", "ab"], *, replication: int | None = None
    ) -> GridWriter: ...

    def open(
        self, path: str, mode: Mode = "rb", *, replication: int | None = None
    ) -> GridReader | GridWriter:
        """A file as a raw stream of Python's io.

        :param mode: "rb" reads one version, "wb" makes a new one and "xb" the first one, "ab" goes
            on at the end. What is written appears when the file is closed; where its `with` block
            ends in an exception, nothing appears.
        """
        if mode == "rb":
            return GridReader(self.runner, self.runner.run(lambda: self.client.open_read(path)))
        if mode == "ab":
            upload = self.runner.run(lambda: self.client.open_append(path))
        elif mode in ("wb", "xb"):
            upload = self.runner.run(
                lambda: self.client.open_write(
                    path, replication=replication, overwrite=mode == "wb"
                )
            )
        else:
            raise ValueError(f"mode is one of rb, wb, xb and ab, not {mode!r}")
        return GridWriter(self.runner, upload, path, mode)

    # Names

    def stat(self, path: str) -> Stat:
        """:raises NoSuchPath: where nothing has this path."""
        return self.runner.run(lambda: self.client.stat(path))

    def listdir(self, path: str = "/") -> Iterator[Stat]:
        """What is in a folder, in the byte order of the names; each page of it is one moment."""
        next_page: str | None = ""
        while next_page is not None:
            work = partial(self.client.list_page, path, next_page)
            page, next_page = self.runner.run(work)
            yield from page

    def walk(self, path: str = "/") -> Iterator[Stat]:
        """Everything beneath a folder, each folder before what is in it."""
        folders = [path]
        while folders:
            below = []
            for entry in self.listdir(folders.pop()):
                if entry.is_folder:
                    below.append(entry.path)
                yield entry
            folders += reversed(below)

    def mkdir(self, path: str, *, parents: bool = False) -> Stat:
        """Make a folder; with `parents` those above it too, and be content where it exists."""
        return self.runner.run(lambda: self.client.mkdir(path, parents=parents))

    def rename(self, source: str, target: str, *, overwrite: bool = False) -> Stat:
        """Give a file or folder another path, in one step."""
        return self.runner.run(lambda: self.client.rename(source, target, overwrite=overwrite))

    def remove(self, path: str, *, recursive: bool = False, now: bool = False) -> None:
        """Remove a file or an empty folder; with `recursive` all that is in it, with `now` without
        keeping it in the trash."""
        self.runner.run(lambda: self.client.remove(path, recursive=recursive, now=now))

    # The grid

    def status(self) -> dict[str, Any]:
        """The state of the grid, as `filegrid status --json` prints it."""
        return self.runner.run(self.client.status)

    def events(self) -> dict[str, Any]:
        """As :meth:`filegrid.client.grid.GridClient.events`."""
        return self.runner.run(self.client.events)

    def list_trash(self) -> list[Trashed]:
        """As :meth:`filegrid.client.grid.GridClient.list_trash`, whole."""

        async def listed() -> list[Trashed]:
            return [one async for one in self.client.list_trash()]

        return self.runner.run(listed)

    def restore(self, trash_id: int, target: str = "") -> Stat:
        """As :meth:`filegrid.client.grid.GridClient.restore`."""
        return self.runner.run(lambda: self.client.restore(trash_id, target))

    def empty_trash(self, *trash_ids: int) -> None:
        """As :meth:`filegrid.client.grid.GridClient.empty_trash`."""
        self.runner.run(lambda: self.client.empty_trash(*trash_ids))

    def set_policy(self, path: str, *, unset: Sequence[str] = (), **values: int) -> None:
        """As :meth:`filegrid.client.grid.GridClient.set_policy`."""
        self.runner.run(lambda: self.client.set_policy(path, unset=unset, **values))

    def policies(self) -> list[FolderPolicy]:
        """As :meth:`filegrid.client.grid.GridClient.policies`."""
        return self.runner.run(self.client.policies)

    def hand_over(self, head: str) -> None:
        """As :meth:`filegrid.client.grid.GridClient.hand_over`."""
        self.runner.run(lambda: self.client.hand_over(head))

    def backup(self, target: str | os.PathLike[str]) -> BackedUp:
        """As :meth:`filegrid.client.grid.GridClient.backup`."""
        return self.runner.run(lambda: self.client.backup(target))

    def add_head(self, name: str, address: str) -> None:
        """As :meth:`filegrid.client.grid.GridClient.add_head`."""
        self.runner.run(lambda: self.client.add_head(name, address))

    def remove_head(self, name: str) -> None:
        """As :meth:`filegrid.client.grid.GridClient.remove_head`."""
        self.runner.run(lambda: self.client.remove_head(name))

    def discard_unknown(self, *, dry_run: bool = False) -> int:
        """As :meth:`filegrid.client.grid.GridClient.discard_unknown`."""
        return self.runner.run(lambda: self.client.discard_unknown(dry_run=dry_run))

    def drain(
        self, *targets: str, undo: bool = False, dry_run: bool = False
    ) -> list[dict[str, Any]]:
        """As :meth:`filegrid.client.grid.GridClient.drain`."""
        return self.runner.run(lambda: self.client.drain(*targets, undo=undo, dry_run=dry_run))

    def balance(self) -> None:
        """As :meth:`filegrid.client.grid.GridClient.balance`."""
        self.runner.run(self.client.balance)

    def repair_now(self) -> None:
        """As :meth:`filegrid.client.grid.GridClient.repair_now`."""
        self.runner.run(self.client.repair_now)

    def what_if(self, *down: str) -> dict[str, Any]:
        """As :meth:`filegrid.client.grid.GridClient.what_if`."""
        return self.runner.run(lambda: self.client.what_if(*down))

    def _pieces(self, reader: Reader) -> Iterator[memoryview]:
        async def close() -> None:
            reader.close()

        try:
            while piece := self.runner.run(reader.next):
                yield piece
        finally:
            self.runner.run(close)
