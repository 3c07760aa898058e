"""From this machine into the grid: what kind of upload each kind of source needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filegrid.client.access import Access
from filegrid.client.content import Content
from filegrid.client.local import LocalSource, local_errors, open_source
from filegrid.client.payload import BytesPayload, FilePayload
from filegrid.client.stat import Stat
from filegrid.client.upload import StreamUpload, Upload
from filegrid.errors import (
    TO_REPLACE,
    AlreadyExists,
    InvalidRequest,
    IsAFolder,
    NoSuchPath,
    NotAFolder,
)
from filegrid.model import MOST_REPLICATION, join_path, split_path
from filegrid.runtime import Bytes

STREAM_BYTES = 1024 * 1024
"""Taken at once from a file object."""

LARGE_BYTES = 8 * 1024 * 1024
"""Above this, what would be refused at the end is better refused before the bytes are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """One file to be made.

    :ivar replication: replicas of each chunk; None for what the folder's policy says.
    :ivar overwrite: whether a file that has the path may be replaced.
    :ivar moved: told how many more bytes the grid has acknowledged.
    """

    access: Access
    path: str
    replication: int | None
    overwrite: bool
    moved: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        if self.replication is not None and not 1 <= self.replication <= MOST_REPLICATION:
            raise InvalidRequest(f"replication is 1 to {MOST_REPLICATION}", self.path)

    async def from_path(self, source: Path) -> Stat:
        """Upload a file of this machine.

        :raises SourceChanged: where it changed meanwhile; nothing is published then.
        """
        opened = await self.access.runtime.threads.run(open_source, source)
        if isinstance(opened, bytes):
            return await self.from_bytes(opened)
        try:
            if isinstance(opened, LocalSource):
                return await self._from_source(opened)
            return await self.from_stream(opened)
        finally:
            opened.close()

    async def from_bytes(self, data: Bytes) -> Stat:
        """Upload what is in memory; it must not change before this returns."""
        view = memoryview(data).cast("B")
        if len(view) > LARGE_BYTES:
            await self.refuse_early()
        upload = await self._upload()
        chunk_bytes = upload.chunk_bytes
        upload.expect(-(-len(view) // chunk_bytes))
        try:
            for start in range(0, len(view), chunk_bytes):
                await upload.add(BytesPayload(view[start : start + chunk_bytes]))
            return await upload.publish(replace=self.overwrite)
        except Exception:
            await upload.abort()
            raise

    async def from_stream(self, stream: BinaryIO) -> Stat:
        """Upload the rest of a file object; it is read in a thread, never by two at once."""
        writer = await self.open()
        try:
            while piece := await self.access.runtime.threads.run(_read, stream):
                await writer.write(piece)
            return await writer.publish()
        except Exception:
            await writer.abort()
            raise

    async def open(self) -> StreamUpload:
        """An upload of bytes that come later.

        :raises AlreadyExists: where there is a file that may not be replaced; and as
            :meth:`refuse_early`.
        """
        await self.refuse_early()
        return StreamUpload(self.access, await self._upload(), replace=self.overwrite)

    async def open_appending(self) -> StreamUpload:
        """An upload that begins with what the file holds now, where there is one.

        Whole chunks are kept; a short last one is read and written anew, so that only the last
        chunk of a file is ever short. Publishing it raises VersionConflict where somebody else
        changed the file meanwhile.
        """
        try:
            stat = await look_up(self.access, self.path)
        except NoSuchPath:
            return StreamUpload(self.access, await self._upload(), replace=False)
        if stat.is_folder:
            raise IsAFolder("this is a folder", self.path)
        content = Content(self.access, stat)
        kept = stat.size // stat.chunk_bytes
        upload = Upload(
            self.access,
            await self.access.session.opened(),
            self.path,
            replication=self.replication,
            chunk_bytes=stat.chunk_bytes,
            inherited=await content.manifest.digests(kept),
            base_content_id=stat.content_id,
            moved=self.moved,
        )
        writer = StreamUpload(self.access, upload, replace=True, base_version=stat.version)
        reader = content.reader(kept * stat.chunk_bytes)
        try:
            while piece := await reader.next():
                await writer.write(piece)
        except Exception:
            reader.close()
            await writer.abort()
            raise
        return writer

    async def refuse_early(self) -> None:
        """Say now what publishing would say.

        :raises AlreadyExists, IsAFolder: of the path.
        :raises NoSuchPath, NotAFolder: of the folder that it should be in.
        """
        try:
            found = await look_up(self.access, self.path)
        except NoSuchPath:
            parent = join_path(split_path(self.path)[:-1])
            if not (await look_up(self.access, parent)).is_folder:
                raise NotAFolder("this is a file, not a folder", parent) from None
            return
        if found.is_folder:
            raise IsAFolder("this is a folder", self.path)
        if not self.overwrite:
            raise AlreadyExists("it exists already", self.path, advice=TO_REPLACE)

    async def _from_source(self, source: LocalSource) -> Stat:
        if source.size > LARGE_BYTES:
            await self.refuse_early()
        upload = await self._upload()
        chunk_bytes = upload.chunk_bytes
        upload.expect(-(-source.size // chunk_bytes))
        try:
            for start in range(0, source.size, chunk_bytes):
                length = min(chunk_bytes, source.size - start)
                await upload.add(FilePayload(source, start, length))
            await upload.join()
            await self.access.runtime.threads.run(source.check_whole)
            return await upload.publish(replace=self.overwrite)
        except Exception:
            await upload.abort()
            raise

    async def _upload(self) -> Upload:
        return Upload(
            self.access,
            await self.access.session.opened(),
            self.path,
            replication=self.replication,
            moved=self.moved,
        )


async def look_up(access: Access, path: str) -> Stat:
    """:raises NoSuchPath: where nothing has this path."""
    return Stat.from_wire(await access.lookups.find(path))


def _read(stream: BinaryIO) -> bytes:
    with local_errors(getattr(stream, "name", "the stream")):
        data = stream.read(STREAM_BYTES)
    if data is None:
        raise InvalidRequest("a stream that does not block cannot be uploaded")
    if not isinstance(data, bytes):
        raise TypeError(f"a binary stream is needed, and this one gives {type(data).__name__}")
    return data
