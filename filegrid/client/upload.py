"""One new version of a file: its chunks into the grid, then its name, in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from filegrid.client.access import Access
from filegrid.client.allocation import Allocator
from filegrid.client.payload import SPOOL_BYTES, Payload, SpooledPayload
from filegrid.client.pipeline import ChunkWriter
from filegrid.client.session import OpenedSession
from filegrid.client.stat import Stat
from filegrid.client.window import Window
from filegrid.errors import GridError, OutcomeUnknown, Unavailable
from filegrid.model import Chunk, Digest, digest_over
from filegrid.protocol.wire import chunk_pb2, values_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Bytes

CHUNKS_IN_FLIGHT = 3
"""While one chunk is synced at the end of its pipeline, the next ones fill the network."""

MANIFEST_PAGE = 4096
"""Chunks in one change: some 250 KiB, which no other change should have to wait for."""


class Upload:
    """A version being made. Nothing is seen of it before :meth:`publish` returns.

    :param replication: None for what the policy of the folder says, or else the grid's setting.
    :param chunk_bytes: None for the grid's.
    :param inherited: digests of the chunks, all of full length, that are kept of the version
        that this one continues.
    :param base_content_id: that version's.
    :param moved: told how many more bytes were acknowledged.
    """

    def __init__(
        self,
        access: Access,
        session: OpenedSession,
        path: str,
        *,
        replication: int | None = None,
        chunk_bytes: int | None = None,
        inherited: Sequence[Digest] = (),
        base_content_id: bytes = b"",
        moved: Callable[[int], None] | None = None,
    ) -> None:
        self.chunk_bytes = chunk_bytes or session.chunk_bytes
        self._access = access
        self._session = session
        self._path = path
        self._inherited = inherited
        self._content_id = session.begin_upload()
        self._replication = replication or 0
        self._chunks: list[Chunk | None] = []
        self.size = len(inherited) * self.chunk_bytes
        self._window = Window(CHUNKS_IN_FLIGHT)
        self.allocator = Allocator(access, session, self._replication, path)
        self._chunk_count = 0
        origin = chunk_pb2.ChunkOrigin(
            content_id=self._content_id,
            path=path,
            chunk_bytes=self.chunk_bytes,
            replication=self._replication,
            written_ms=round(access.runtime.wall_seconds() * 1000),
        )
        if inherited:
            origin.base_content_id, origin.inherited_chunks = base_content_id, len(inherited)
        self._writer = ChunkWriter(access, self.allocator, origin, moved or (lambda _: None))

    def expect(self, chunks: int) -> None:
        """So many chunks are going to be added, and no more."""
        self._chunk_count = len(self._inherited) + chunks
        self.allocator.expect(chunks)

    async def add(self, payload: Payload, *, last: bool = False) -> None:
        """Begin to store the next chunk, as soon as there is room for one more in flight.

        :param last: whether no other follows; it is known as well where :meth:`expect` was said.
        :raises GridError: why a chunk before it could not be stored.
        """
        index = len(self._chunks)
        if last:
            self._chunk_count = len(self._inherited) + index + 1
        self._chunks.append(None)
        self.size += payload.length
        try:
            await self._window.add(self._store(index, payload, self._chunk_count))
        except BaseException:
            payload.release()
            raise

    async def join(self) -> None:
        """Return once every chunk that was added is durable.

        :raises GridError: why one could not be stored.
        """
        await self._window.join()

    async def publish(self, *, replace: bool, base_version: int = 0) -> Stat:
        """Give the version its path, once all its chunks are durable.

        :param replace: whether a file that has the path may be replaced.
        :param base_version: the version that this one continues; 0 for none (S11).
        :raises AlreadyExists: where there is a file and `replace` is false.
        :raises VersionConflict: where the file is not at `base_version` any more.
        :raises OutcomeUnknown: where no answer came.
        """
        await self.join()
        chunks = [chunk for chunk in self._chunks if chunk is not None]
        first = len(self._inherited)
        digest = digest_over([*self._inherited, *(chunk.digest for chunk in chunks)])
        while len(chunks) > MANIFEST_PAGE:
            page, chunks = chunks[:MANIFEST_PAGE], chunks[MANIFEST_PAGE:]
            await self._stage(first, page)
            first += len(page)
        request = values_pb2.Publish(
            path=self._path,
            content_id=self._content_id,
            first_index=first,
            chunks=[chunk.to_wire() for chunk in chunks],
            size=self.size,
            digest=digest,
            replication=self._replication,
            chunk_bytes=self.chunk_bytes,
            replace=replace,
            base_version=base_version,
            inherited_chunks=len(self._inherited),
        )
        node = await self._access.session.change(request, values_pb2.Node, self._session)
        self._session.end_upload(self._content_id)
        return Stat.from_wire(node)

    async def abort(self) -> None:
        """Give it up; what was stored is collected once the heads have heard of it (S14)."""
        await self._window.cancel()
        self._access.session.give_up(self._session, self._content_id)

    async def _stage(self, first: int, page: Sequence[Chunk]) -> None:
        request = values_pb2.StageChunks(
            content_id=self._content_id,
            first_index=first,
            chunks=[chunk.to_wire() for chunk in page],
        )
        try:
            await self._access.session.change(request, Done, self._session)
        except OutcomeUnknown as error:
            raise Unavailable(
                "the manifest could not be written; nothing was published",
                self._path,
                advice="upload it again",
            ) from error

    async def _store(self, index: int, payload: Payload, chunk_count: int) -> None:
        try:
            place = len(self._inherited) + index
            self._chunks[index] = await self._writer.store(place, payload, chunk_count)
        except GridError as error:
            if error.subject:
                raise
            raise error.about(self._path) from error
        finally:
            payload.release()


class StreamUpload:
    """An upload whose bytes come one after the other, of a length that nobody knows yet.

    :param replace: as of :meth:`Upload.publish`; so `base_version`.
    """

    def __init__(
        self, access: Access, upload: Upload, *, replace: bool, base_version: int = 0
    ) -> None:
        self._access = access
        self._upload = upload
        self._replace = replace
        self._base_version = base_version
        self._payload: SpooledPayload | None = None

    @property
    def size(self) -> int:
        """Bytes so far, those of the version that this one continues with them."""
        return self._upload.size + (self._payload.length if self._payload else 0)

    async def write(self, data: Bytes) -> None:
        """Take the next bytes, and return once there is room for more.

        :raises GridError: why what was taken before could not be stored.
        """
        view = memoryview(data).cast("B")
        while view:
            if self._payload is not None and self._payload.length == self._upload.chunk_bytes:
                await self._flush()  # not before more follows: the last chunk says that it is
            payload = self._payload or SpooledPayload()
            self._payload = payload
            part = view[: self._upload.chunk_bytes - payload.length]
            if len(part) + payload.length <= SPOOL_BYTES:
                payload.append(part)
            else:
                await self._access.runtime.threads.run(payload.append, part)
            view = view[len(part) :]

    async def publish(self) -> Stat:
        """The end of the bytes: as :meth:`Upload.publish`."""
        await self._flush(last=True)
        return await self._upload.publish(replace=self._replace, base_version=self._base_version)

    async def abort(self) -> None:
        """As :meth:`Upload.abort`."""
        payload, self._payload = self._payload, None
        if payload is not None:
            payload.release()
        await self._upload.abort()

    async def _flush(self, *, last: bool = False) -> None:
        payload, self._payload = self._payload, None
        if payload is not None:
            await self._upload.add(payload, last=last)
