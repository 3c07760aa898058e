"""What every operation of a client works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from filegrid.client.avoided import Avoided
from filegrid.client.digests import DigestCache
from filegrid.client.session import Session
from filegrid.errors import GridError
from filegrid.model import ChunkId
from filegrid.net.dial import DataPool
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The way to the heads, the way to the chunk servers, and what readers share."""

    runtime: Runtime
    session: Session
    pool: DataPool
    avoided: Avoided
    digests: DigestCache = field(default_factory=DigestCache)
    complaints: Tasks = field(default_factory=lambda: Tasks("complaining of a replica"))

    def complain(self, chunk_id: ChunkId, server: str, reason: GridError) -> None:
        """Tell the head of a replica that is not what it should be; nobody waits for it."""
        self.complaints.begin(self._complain(chunk_id, server, str(reason)))

    async def _complain(self, chunk_id: ChunkId, server: str, reason: str) -> None:
        complaint = head_pb2.Complain(chunk_id=chunk_id, server=server, reason=reason)
        try:
            await self.session.call(complaint, Done)
        except GridError:
            pass  # scrubbing finds it later
