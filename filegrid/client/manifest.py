"""The chunks of one version of a file, and where they are, fetched as they are needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from twisted.internet.defer import DeferredLock

from filegrid.client.session import Session
from filegrid.client.stat import Stat
from filegrid.errors import MalformedFrame
from filegrid.model import Chunk, Digest
from filegrid.protocol.wire import head_pb2 as wire

PAGE_CHUNKS = 512
"""Chunks in one answer, with their replicas some 100 KiB."""

MOST_PAGES = 8
"""Pages kept: a sequential reader needs one or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A chunk, and its replicas as far as the head knows them."""

    chunk: Chunk
    replicas: Sequence[wire.Replica]
    incomplete: bool
    """Some server has not said yet what it holds: a replica may be missing here."""


class Manifest:
    """The chunks of one content. They never change; where they are does (S19).

    :param first_page: where it is known already.
    """

    def __init__(
        self, session: Session, stat: Stat, first_page: wire.ManifestPage | None = None
    ) -> None:
        self._session = session
        self._stat = stat
        self._pages: OrderedDict[int, wire.ManifestPage] = OrderedDict()
        if first_page is not None and not first_page.more:
            self._pages[0] = self._checked(0, first_page)
        self._fetching = DeferredLock()

    async def placed(self, index: int) -> Placed:
        """Chunk `index` and its replicas.

        :raises ContentCollected: where this version has been removed for good.
        """
        number, place = divmod(index, PAGE_CHUNKS)
        page = await self._page(number)
        entry = page.chunks[place]
        return Placed(
            chunk=Chunk.from_wire(entry.chunk),
            replicas=entry.replicas,
            incomplete=page.locations_incomplete,
        )

    def forget(self, index: int) -> None:
        """Ask the head anew where this chunk is."""
        self._pages.pop(index // PAGE_CHUNKS, None)

    async def all_placed(self, end: int | None = None) -> AsyncIterator[Placed]:
        """Every chunk in order, or those before `end`."""
        for index in range(self._stat.chunk_count if end is None else end):
            yield await self.placed(index)

    async def digests(self, end: int) -> list[Digest]:
        """Of the chunks before `end`."""
        return [placed.chunk.digest async for placed in self.all_placed(end)]

    async def _page(self, number: int) -> wire.ManifestPage:
        if number in self._pages:
            self._pages.move_to_end(number)
            return self._pages[number]
        async with self._fetching:  # readers of neighbouring chunks want the same page
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = await self._fetch(number)
                if len(self._pages) > MOST_PAGES:
                    self._pages.popitem(last=False)
            self._pages.move_to_end(number)
            return page

    async def _fetch(self, number: int) -> wire.ManifestPage:
        first = number * PAGE_CHUNKS
        request = wire.Manifest(
            content_id=self._stat.content_id, first_index=first, limit=PAGE_CHUNKS
        )
        return self._checked(first, await self._session.call(request, wire.ManifestPage))

    def _checked(self, first: int, page: wire.ManifestPage) -> wire.ManifestPage:
        lengths = [entry.chunk.length for entry in page.chunks]
        if lengths != self._lengths(first):
            raise MalformedFrame("the head's manifest does not add up to the file", self._stat.path)
        return page

    def _lengths(self, first: int) -> list[int]:
        """What the chunks of the page that begins at `first` must have."""
        chunk_bytes, size = self._stat.chunk_bytes, self._stat.size
        end = min(first + PAGE_CHUNKS, self._stat.chunk_count)
        return [min(chunk_bytes, size - index * chunk_bytes) for index in range(first, end)]
