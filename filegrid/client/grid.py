"""The asynchronous client: the grid's verbs as coroutines on the Twisted reactor."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred

from filegrid.client import download
from filegrid.client.access import Access
from filegrid.client.avoided import Avoided
from filegrid.client.backup import BackedUp, back_up
from filegrid.client.content import Content
from filegrid.client.digests import DigestCache
from filegrid.client.forecast import forecast
from filegrid.client.ingest import Ingest, look_up
from filegrid.client.loans import Loans
from filegrid.client.session import Session
from filegrid.client.stat import FolderPolicy, Stat, Trashed
from filegrid.client.status import drain_document, event_document, status_document
from filegrid.client.upload import StreamUpload
from filegrid.config import find_client_config, load_client
from filegrid.errors import IsAFolder
from filegrid.model import Address, Identity, join_path, split_path
from filegrid.net.credentials import Credentials
from filegrid.net.dial import DataPool, hello_of
from filegrid.net.reactor import ReactorThreads, make_runtime
from filegrid.protocol.wire import backup_pb2, head_pb2, health_pb2, replication_pb2, values_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Bytes, Runtime

TIMEOUT_SECONDS = 30.0

OPEN_CHUNKS = 16
"""Told with an opened file: a file with more chunks is worth another call."""

LIST_PAGE = 1000
"""Names in one answer; a page is one moment, a whole listing is not."""


class GridClient:
    """The files of a grid. Paths are absolute grid paths.

    Every verb waits for the grid for `timeout_seconds` without progress, then raises
    :class:`~filegrid.errors.Unavailable`, or :class:`~filegrid.errors.OutcomeUnknown` where a
    change may have been applied. A verb can be cancelled.
    """

    def __init__(
        self,
        runtime: Runtime,
        identity: Identity,
        heads: Sequence[Address],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        pool = DataPool(runtime, lambda: hello_of(identity))
        digests = DigestCache()
        self.access = Access(
            runtime=runtime,
            session=Session(runtime, identity, heads, timeout_seconds),
            pool=pool,
            digests=digests,
            loans=Loans(runtime, pool, digests),
            unreadable=Avoided(runtime.clock),
            unwritable=Avoided(runtime.clock),
        )
        self._on_close: Callable[[], None] | None = None
        self.access.session.start()

    @classmethod
    async def connect(
        cls,
        reactor: Any,
        config: str | os.PathLike[str] | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> GridClient:
        """A client by the configuration file `config`; None looks where the command looks.

        :param timeout_seconds: None takes it from the file, where 30 is the default.
        :raises NoSuchPath: where there is no configuration.
        :raises NotPermitted: where the credentials that it names cannot be used.
        """
        file = find_client_config(os.fspath(config) if config is not None else None, os.environ)
        settings = load_client(file)
        credentials = Credentials(settings.tls.certificate, settings.tls.authority)
        runtime = make_runtime(reactor, credentials)
        client = cls(
            runtime,
            credentials.identity,
            settings.grid.heads,
            timeout_seconds=timeout_seconds or settings.client.timeout_seconds,
        )
        if isinstance(runtime.threads, ReactorThreads):
            client._on_close = runtime.threads.stop
        return client

    async def close(self) -> None:
        """Take leave of the grid; what is under way fails."""
        await self.access.close()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    # Contents

    async def put(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        path: str,
        *,
        replication: int | None = None,
        overwrite: bool = False,
        moved: Callable[[int], None] | None = None,
    ) -> Stat:
        """Upload a local file, or the rest of a binary file object, as the file `path`.

        :param replication: replicas of each chunk; None for what the folder's policy says.
        :param moved: told how many more bytes were acknowledged.
        :raises AlreadyExists: where `path` exists and `overwrite` is false.
        :raises SourceChanged: where the local file changed meanwhile; nothing is published.
        """
        ingest = self._ingest(path, replication, overwrite, moved)
        if isinstance(source, (str, os.PathLike)):
            return await ingest.from_path(Path(source))
        return await ingest.from_stream(source)

    async def write_bytes(
        self, path: str, data: Bytes, *, replication: int | None = None, overwrite: bool = False
    ) -> Stat:
        """Make `data` the contents of the file `path`; as :meth:`put`."""
        return await self._ingest(path, replication, overwrite).from_bytes(data)

    async def append(self, path: str, data: Bytes) -> Stat:
        """Add `data` at the end of a file, which is made where it is missing.

        :raises VersionConflict: where somebody else changed the file meanwhile.
        """
        writer = await self.open_append(path)
        try:
            await writer.write(data)
            return await writer.publish()
        except Exception:
            await writer.abort()
            raise

    async def open_write(
        self, path: str, *, replication: int | None = None, overwrite: bool = False
    ) -> StreamUpload:
        """A new file whose bytes come later: write to it, then publish or abort it."""
        return await self._ingest(path, replication, overwrite).open()

    async def open_append(self, path: str) -> StreamUpload:
        """As :meth:`open_write`, going on where the file ends now."""
        return await self._ingest(path, None, False).open_appending()

    async def get(
        self,
        path: str,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        overwrite: bool = True,
        moved: Callable[[int], None] | None = None,
    ) -> Stat:
        """Download a file to a local one, which appears whole or not at all, or to a file object.

        :param overwrite: whether a local file may be replaced.
        :param moved: told how many more bytes were written.
        :returns: what was downloaded.
        """
        content = await self.open_read(path)
        report = moved or (lambda _: None)
        runtime = self.access.runtime
        if isinstance(target, (str, os.PathLike)):
            await download.to_path(
                runtime, content, Path(target), overwrite=overwrite, moved=report
            )
        else:
            await download.to_stream(runtime, content, target, report)
        return content.stat

    async def open_read(self, path: str) -> Content:
        """The version that the file has now; it stays this version (S19)."""
        request = head_pb2.OpenFile(path=normal(path), limit=OPEN_CHUNKS)
        opened = await self.access.session.call(request, head_pb2.OpenedFile)
        stat = Stat.from_wire(opened.node)
        if stat.is_folder:
            raise IsAFolder("this is a folder", stat.path)
        return Content(self.access, stat, opened.page)

    async def read_bytes(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes from `offset` on, up to `length` or to the end of the file."""
        content = await self.open_read(path)
        return await content.pread(offset, content.stat.size if length is None else length)

    # Names

    async def stat(self, path: str) -> Stat:
        """:raises NoSuchPath: where nothing has this path."""
        return await look_up(self.access, normal(path))

    async def listdir(self, path: str = "/") -> AsyncGenerator[Stat, None]:
        """What is in a folder, in the byte order of the names.

        :raises NotAFolder: where `path` is a file.
        """
        page, after = await self.list_page(path)
        while after is not None:
            following = Deferred.fromCoroutine(self.list_page(path, after))  # while this is used
            try:
                for entry in page:
                    yield entry
                page, after = await following
            finally:
                following.addErrback(lambda _: None).cancel()  # where nobody wants it any more
        for entry in page:
            yield entry

    async def list_page(self, path: str, after: str = "") -> tuple[list[Stat], str | None]:
        """A page of :meth:`listdir`: names greater than `after`, and where the next page begins."""
        request = head_pb2.List(path=normal(path), after=after, limit=LIST_PAGE)
        listing = await self.access.session.call(request, head_pb2.Listing)
        page = [Stat.from_wire(node) for node in listing.nodes]
        return page, page[-1].name if listing.more and page else None

    async def list_contents(self, path: str, after: str = "") -> tuple[list[Content], str | None]:
        """As :meth:`list_page`, of what is to be read: for small files all that reading needs."""
        request = head_pb2.List(path=normal(path), after=after, with_chunks=True)
        listing = await self.access.session.call(request, head_pb2.Listing)
        found = []
        for node, page in zip(listing.nodes, listing.pages, strict=True):
            known = page if page.chunks else None
            found.append(Content(self.access, Stat.from_wire(node), known))
        return found, found[-1].stat.name if listing.more and found else None

    async def walk(self, path: str = "/") -> AsyncIterator[Stat]:
        """Everything beneath a folder, each folder before what is in it."""
        folders = [path]
        while folders:
            below = []
            async for entry in self.listdir(folders.pop()):
                if entry.is_folder:
                    below.append(entry.path)
                yield entry
            folders += reversed(below)

    async def mkdir(self, path: str, *, parents: bool = False) -> Stat:
        """Make a folder.

        :param parents: make those above it too, and be content where it exists.
        """
        request = values_pb2.MakeFolder(path=normal(path), parents=parents)
        return Stat.from_wire(await self.access.session.change(request, values_pb2.Node))

    async def rename(self, source: str, target: str, *, overwrite: bool = False) -> Stat:
        """Give a file or folder, with all that is in it, another path, in one step.

        :raises AlreadyExists: where `target` exists and `overwrite` is false.
        """
        request = values_pb2.Rename(source=normal(source), target=normal(target), replace=overwrite)
        return Stat.from_wire(await self.access.session.change(request, values_pb2.Node))

    async def remove(self, path: str, *, recursive: bool = False, now: bool = False) -> None:
        """Remove a file or an empty folder.

        :param recursive: a folder with all that is in it.
        :param now: without keeping it in the trash.
        """
        request = values_pb2.Remove(path=normal(path), recursive=recursive, now=now)
        await self.access.session.change(request, Done)

    # The trash

    async def list_trash(self) -> AsyncIterator[Trashed]:
        """What was removed or replaced and can still be restored, a page at a time."""
        after, more = 0, True
        while more:
            request = head_pb2.ListTrash(after=after)
            page = await self.access.session.call(request, head_pb2.TrashListing)
            for entry in page.entries:
                after = entry.trash_id
                yield Trashed.from_wire(entry)
            more = page.more

    async def restore(self, trash_id: int, target: str = "") -> Stat:
        """Take something out of the trash again, with all that is below it.

        :param target: its new path; where it was, by default.
        :raises NoSuchPath: where the trash has it no more, or its folder is gone.
        :raises AlreadyExists: where the path is taken.
        """
        path = normal(target) if target else ""
        request = values_pb2.RestoreTrash(trash_id=trash_id, target=path)
        return Stat.from_wire(await self.access.session.change(request, values_pb2.Node))

    async def empty_trash(self, *trash_ids: int) -> None:
        """Take apart for good what is in the trash: these, or all; for operators."""
        request = values_pb2.EmptyTrash(trash_ids=trash_ids)
        await self.access.session.change(request, Done)

    # Policies and quotas

    async def set_policy(self, path: str, *, unset: Sequence[str] = (), **values: int) -> None:
        """Say what holds for a folder and all below it; for operators.

        :param values: of ``replication``, ``spread`` (of values_pb2.Spread), ``trash_seconds``,
            ``quota_bytes`` and ``quota_files``; those not named stay as they are.
        :param unset: the names of those that the folder is to say no more.
        """
        request = values_pb2.SetPolicy(path=normal(path), unset=unset)
        for name, value in values.items():
            setattr(request, name, value)
        await self.access.session.change(request, Done)

    async def policies(self) -> list[FolderPolicy]:
        """The folders that say something, with what they hold."""
        found: list[FolderPolicy] = []
        after, more = 0, True
        while more:
            request = head_pb2.ListPolicies(after=after)
            page = await self.access.session.call(request, head_pb2.Policies)
            for one in page.policies:
                after = one.folder
                if one.path:  # else it is in the trash
                    found.append(FolderPolicy.from_wire(one))
            more = page.more
        return sorted(found, key=lambda one: one.path)

    # The grid

    async def status(self) -> dict[str, Any]:
        """The state of the grid, as `filegrid status --json` prints it."""
        return status_document(
            await self.access.session.call(head_pb2.GetStatus(), head_pb2.Status)
        )

    async def events(self) -> dict[str, Any]:
        """What came to pass, the oldest first, as `filegrid events --json` prints it."""
        found = await self.access.session.call(health_pb2.GetEvents(), health_pb2.Events)
        return {
            "events": [event_document(event) for event in found.events],
            "incomplete": found.incomplete,
        }

    async def hand_over(self, head: str) -> None:
        """Let the head of this name lead, once it has all of the log; for operators.

        :raises InvalidRequest: where it cannot be reached, or has no vote.
        :raises NotPermitted: where the certificate is not an operator's.
        """
        await self.access.session.call(replication_pb2.HandOver(head=head), Done)

    async def add_head(self, name: str, address: str) -> None:
        """Let another head have a vote, once it can be reached and has caught up; for operators.

        :param address: HOST:PORT, where it listens.
        :raises InvalidRequest: where there are too many heads.
        """
        await self.access.session.call(values_pb2.AddHead(name=name, address=address), Done)

    async def remove_head(self, name: str) -> None:
        """Let a head have no vote any more; where it leads, another one does first. For operators.

        :raises InvalidRequest: where there is none of this name, or it is the last.
        """
        await self.access.session.call(values_pb2.RemoveHead(name=name), Done)

    async def backup(self, target: str | os.PathLike[str]) -> BackedUp:
        """Copy the grid's metadata, as it is at one moment, into a local file; for operators.

        The file appears whole and checked, or not at all.

        :raises NotPermitted: where the certificate is not an operator's, or the file cannot be
            written.
        """
        return await back_up(self.access, Path(target))

    async def discard_unknown(self, *, dry_run: bool = False) -> int:
        """Let go of what was written before a restore and no file names; for operators.

        :returns: how many chunks that are.
        """
        request = backup_pb2.DiscardUnknown(dry_run=dry_run)
        return (await self.access.session.call(request, backup_pb2.UnknownChunks)).count

    async def drain(
        self, *targets: str, undo: bool = False, dry_run: bool = False
    ) -> list[dict[str, Any]]:
        """Chunk servers are to leave, which begins at once and goes on by itself; for operators.

        :param targets: names of servers, and racks, written ``rack:dc1/r2``.
        :param undo: they stay after all.
        :param dry_run: only tell how it is, and what is in the way.
        :returns: how it stands with each, as `filegrid drain --json` prints it.
        :raises InvalidRequest: where a target means nobody.
        """
        request = head_pb2.Drain(targets=targets, undo=undo, dry_run=dry_run)
        answer = await self.access.session.call(request, head_pb2.DrainReports)
        return [drain_document(server) for server in answer.servers]

    async def balance(self) -> None:
        """Make the chunk servers evenly full now; it goes on by itself, and
        :meth:`status` shows how far it is. For operators."""
        await self.access.session.call(head_pb2.StartBalance(), Done)

    async def repair_now(self) -> None:
        """Wait for no chunk server that vanished with others, or was stopped in good order; for
        operators."""
        await self.access.session.call(head_pb2.RepairNow(), Done)

    async def what_if(self, *down: str) -> dict[str, Any]:
        """What would be unreadable, on one replica or unwritable if these chunk servers, or racks
        (``rack:dc1/r2``), were down, and how long repair would take; as `filegrid whatif --json`
        prints it.

        :raises InvalidRequest: where one of them means nobody.
        """
        return await forecast(self.access.session, down)

    def _ingest(
        self,
        path: str,
        replication: int | None,
        overwrite: bool,
        moved: Callable[[int], None] | None = None,
    ) -> Ingest:
        return Ingest(
            access=self.access,
            path=normal(path),
            replication=replication,
            overwrite=overwrite,
            moved=moved,
        )


def normal(path: str) -> str:
    """The one spelling of a grid path.

    :raises InvalidPath: where it is none.
    """
    return join_path(split_path(path))
