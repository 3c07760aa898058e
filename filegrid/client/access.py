"""What every operation of a client works with."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, DeferredList

from filegrid.client.avoided import Avoided
from filegrid.client.digests import DigestCache
from filegrid.client.fetching import Fetches
from filegrid.client.parcels import Parcels
from filegrid.client.session import GOODBYE_SECONDS, Session
from filegrid.errors import GridError
from filegrid.model import ChunkId
from filegrid.net.dial import DataPool
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Runtime

MOST_COMPLAINTS = 64
"""Under way at once; scrubbing finds what is not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The way to the heads, the way to the chunk servers, and what operations share."""

    runtime: Runtime
    session: Session
    pool: DataPool
    unreadable: Avoided
    """Servers that just failed a reader."""
    unwritable: Avoided
    """Servers that just failed a writer; these alone may cost a new chunk a replica (S16)."""
    digests: DigestCache = field(default_factory=DigestCache)
    complaints: set[Deferred[None]] = field(default_factory=set)
    parcels: Parcels = field(init=False)
    fetches: Fetches = field(init=False)

    def __post_init__(self) -> None:
        # Made of what is here already; all is frozen from now on.
        object.__setattr__(self, "parcels", Parcels(self))
        object.__setattr__(self, "fetches", Fetches(self))

    def complain(self, chunk_id: ChunkId, server: str, reason: GridError) -> None:
        """Tell the head of a replica that is not what it should be; nobody waits for it."""
        if len(self.complaints) >= MOST_COMPLAINTS:
            return
        telling = Deferred.fromCoroutine(self._complain(chunk_id, server, str(reason)))
        self.complaints.add(telling)
        telling.addBoth(lambda _: self.complaints.discard(telling))

    async def close(self) -> None:
        """Let what is being said to the head be said, within a bounded time, and take leave."""
        telling = DeferredList(list(self.complaints), consumeErrors=True)
        await telling.addTimeout(GOODBYE_SECONDS, self.runtime.clock)
        await self.parcels.close()
        await self.fetches.close()
        self.pool.close()
        await self.session.close()

    async def _complain(self, chunk_id: ChunkId, server: str, reason: str) -> None:
        complaint = head_pb2.Complain(chunk_id=chunk_id, server=server, reason=reason)
        with suppress(GridError):  # scrubbing finds it later
            await self.session.call(complaint, Done)
