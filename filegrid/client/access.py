"""What every operation of a client works with."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, DeferredList

from filegrid.client.avoided import Avoided
from filegrid.client.digests import DigestCache
from filegrid.client.fetching import Fetches
from filegrid.client.hedging import Hedges
from filegrid.client.latencies import Latencies
from filegrid.client.loans import Loans
from filegrid.client.lookups import Lookups
from filegrid.client.parcels import Parcels
from filegrid.client.session import GOODBYE_SECONDS, Session
from filegrid.errors import Busy, Cancelled, GridError, NoSpace
from filegrid.model import ChunkId
from filegrid.net.dial import DataPool
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Runtime

MOST_COMPLAINTS = 64
"""Under way at once; scrubbing finds what is not said."""

REPORT_SECONDS = 2.0
"""Between two reports of one server: the head counts no more than one in this time."""


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
    loans: Loans
    digests: DigestCache
    latencies: Latencies = field(default_factory=Latencies)
    hedges: Hedges = field(init=False)
    complaints: set[Deferred[None]] = field(default_factory=set)
    reported: dict[str, float] = field(default_factory=dict)
    """When each server was last reported."""
    parcels: Parcels = field(init=False)
    fetches: Fetches = field(init=False)
    lookups: Lookups = field(init=False)

    def __post_init__(self) -> None:
        # Made of what is here already; all is frozen from now on.
        object.__setattr__(self, "hedges", Hedges(self.runtime.clock, self.latencies))
        object.__setattr__(self, "parcels", Parcels(self))
        object.__setattr__(self, "fetches", Fetches(self))
        object.__setattr__(self, "lookups", Lookups(self.session))

    def complain(self, chunk_id: ChunkId, server: str, reason: GridError) -> None:
        """Tell the head of a replica that is not what it should be; nobody waits for it."""
        self._tell(head_pb2.Complain(chunk_id=chunk_id, server=server, reason=str(reason)))

    def report(self, server: str, error: GridError) -> None:
        """Tell the head of a server that failed us; being busy, or full, is no failure."""
        if not isinstance(error, (Busy, Cancelled, NoSpace)):
            self._report(server, error.what, head_pb2.Complain.KIND_FAILED)

    def report_slow(self, server: str, reason: str) -> None:
        """Tell the head of a server that is much slower than others."""
        self._report(server, reason, head_pb2.Complain.KIND_SLOW)

    def _report(self, server: str, reason: str, kind: head_pb2.Complain.Kind.ValueType) -> None:
        now = self.runtime.clock.seconds()
        if now - self.reported.get(server, -REPORT_SECONDS) < REPORT_SECONDS:
            return
        self.reported[server] = now
        self._tell(head_pb2.Complain(server=server, reason=reason, kind=kind))

    def _tell(self, complaint: head_pb2.Complain) -> None:
        if len(self.complaints) >= MOST_COMPLAINTS:
            return
        telling = Deferred.fromCoroutine(self._complain(complaint))
        self.complaints.add(telling)
        telling.addBoth(lambda _: self.complaints.discard(telling))

    async def close(self) -> None:
        """Let what is being said to the head be said, within a bounded time, and take leave."""
        telling = DeferredList(list(self.complaints), consumeErrors=True)
        await telling.addTimeout(GOODBYE_SECONDS, self.runtime.clock)
        await self.hedges.close()
        self.loans.close()
        await self.parcels.close()
        await self.fetches.close()
        await self.lookups.close()
        self.pool.close()
        await self.session.close()

    async def _complain(self, complaint: head_pb2.Complain) -> None:
        with suppress(GridError):  # scrubbing finds it later
            await self.session.call(complaint, Done)
