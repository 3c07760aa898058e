"""Where new chunks may go: asked of the head, several chunks at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.defer import DeferredLock

from filegrid.client.patience import Patience
from filegrid.client.session import SESSION_ENDED, OpenedSession
from filegrid.errors import NoSpace, Unavailable
from filegrid.protocol.wire import head_pb2 as wire
from filegrid.protocol.wire.values_pb2 import Spread

if TYPE_CHECKING:
    from filegrid.client.access import Access

MOST_AHEAD = 8
"""Chunks asked for in one call: a placement grows old while it waits."""

AGAIN_SECONDS = 2.0
"""How long to ask for a placement without the servers that failed, before taking them again."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What placements follow.

    :ivar replication: replicas of each chunk.
    """

    replication: int
    spread: Spread.ValueType


class Allocator:
    """Gives each chunk of one upload its pipeline.

    :param replication: replicas of each chunk; 0: as the policy of its folder says.
    :param spread: None: as the policy of its folder says.
    :ivar least_replicas: how many must be durable before a chunk counts as stored (S16).
    """

    def __init__(
        self,
        access: Access,
        session: OpenedSession,
        replication: int,
        path: str,
        spread: Spread.ValueType | None = None,
    ) -> None:
        self.session = session
        self.replication = replication
        self.least_replicas = min(replication or session.replication, session.min_replicas)
        self._access = access
        self._path = path
        self._spread = spread
        self._ready: deque[Sequence[wire.Target]] = deque()
        self._ready_length = 0
        self._asking = DeferredLock()
        self._expected = 1

    def expect(self, chunks: int) -> None:
        """So many chunks of one length come next."""
        self._expected = chunks

    def avoid(self, servers: Collection[str]) -> None:
        """They failed; what was given out ahead may name them."""
        self._access.unwritable.add(servers)
        self._ready.clear()

    async def targets(self, length: int) -> Sequence[wire.Target]:
        """The servers for one chunk, in the order of the pipeline.

        :raises NoSpace: where no server has room for it.
        :raises Unavailable: where too few servers are live.
        """
        async with self._asking:
            if not self._ready or length > self._ready_length:
                count = max(1, min(MOST_AHEAD, self._expected))
                found, _ = await self.find(count, length)
                self._ready = deque(found)
                self._ready_length = length
            self._expected -= 1
            return self._ready.popleft()

    async def find(self, count: int, length: int) -> tuple[list[Sequence[wire.Target]], Rule]:
        """The servers for each of `count` chunks, and why these; raises as :meth:`targets`."""
        calls = self._access.session
        avoided = self._access.unwritable.servers()
        if avoided:
            try:
                patience = Patience(self._access.runtime, AGAIN_SECONDS)
                return await self._ask(count, length, avoided, patience)
            except (NoSpace, Unavailable):
                self._access.unwritable.clear()  # better one that failed before than none
        return await self._ask(count, length, (), calls.patience())

    async def _ask(
        self, count: int, length: int, exclude: Collection[str], patience: Patience
    ) -> tuple[list[Sequence[wire.Target]], Rule]:
        calls = self._access.session
        request = wire.Allocate(
            session=self.session.id,
            count=count,
            bytes=length,
            replication=self.replication,
            exclude=sorted(exclude),
            path=self._path,
            spread=self._spread,
        )
        try:
            answer = await calls.call(request, wire.Allocation, patience)
        except SESSION_ENDED as error:
            calls.forget(self.session)
            raise Unavailable(
                "the session ran out during the upload; nothing was published",
                self._path,
                advice="upload it again",
            ) from error
        placed: list[Sequence[wire.Target]] = [
            list(targets.targets) for targets in answer.chunks if targets.targets
        ]
        if answer.replication:
            self.least_replicas = min(answer.replication, self.session.min_replicas)
        if not placed:
            raise Unavailable("the head named no chunk server for a chunk", self._path)
        return placed, Rule(answer.replication, answer.spread)
