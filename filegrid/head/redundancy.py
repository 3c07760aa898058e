"""How many good replicas every chunk has: kept for those that are not as they should be.

Whatever may change a chunk's state (a server dies or returns, a replica is reported or removed, a
file is published or released) makes it due for a look; looks are taken in small steps between other
work. A healthy chunk costs no memory here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from filegrid.head.liveness import Liveness, State
from filegrid.head.locations import Locations
from filegrid.head.view import ChunkRecord, View
from filegrid.model import ChunkId

SCAN_PAGE = 256
"""Chunks looked at in one turn: some milliseconds."""


@dataclass(slots=True, kw_only=True)
class Deficit:
    """A chunk that has fewer replicas on servers that are not dead than its file wants.

    :ivar holders: the servers that count; :ivar since: when the head first saw it so.
    """

    record: ChunkRecord
    holders: tuple[str, ...]
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A chunk that a server holds and no manifest names; :ivar since: when that was first seen."""

    since: float


class Redundancy:
    """What is wanted against what is there.

    :ivar deficits: chunks with too few replicas.
    :ivar condemned: servers that reported damage, for chunks that are not whole again yet.
    :ivar strays: chunks on some server that the namespace does not name.
    """

    def __init__(
        self,
        namespace: View,
        locations: Locations,
        liveness: Liveness,
        seconds: Callable[[], float],
    ) -> None:
        self._namespace = namespace
        self._locations = locations
        self._liveness = liveness
        self._seconds = seconds
        self.deficits: dict[ChunkId, Deficit] = {}
        self.condemned: dict[ChunkId, set[str]] = {}
        self.strays: dict[ChunkId, Stray] = {}
        self._due: deque[ChunkId] = deque()
        self._scans: deque[Callable[[], bool]] = deque()

    @property
    def settled(self) -> bool:
        """Whether all that is known has been looked at."""
        return not self._due and not self._scans

    def touch(self, chunk_ids: Iterable[bytes]) -> None:
        """These are due for a look."""
        self._due.extend(ChunkId(chunk_id) for chunk_id in chunk_ids)

    def condemn(self, name: str, chunk_ids: Iterable[bytes]) -> None:
        """A server found its replicas damaged; it serves them no more."""
        for chunk_id in chunk_ids:
            self.condemned.setdefault(ChunkId(chunk_id), set()).add(name)

    def scan_server(self, name: str) -> None:
        """The state of a server changed: look at all that it holds."""
        self._scans.append(
            self._paged(lambda after: self._locations.of_server(name, after, SCAN_PAGE))
        )

    def scan_all(self) -> None:
        """Look at every chunk that the namespace names."""
        self._scans.append(
            self._paged(
                lambda after: [
                    record.chunk.id for record in self._namespace.chunks_after(after, SCAN_PAGE)
                ]
            )
        )

    def step(self) -> bool:
        """Look at some chunks; returns whether more are due."""
        if self._scans and len(self._due) < SCAN_PAGE and self._scans[0]():
            self._scans.popleft()
        for _ in range(min(SCAN_PAGE, len(self._due))):
            self._look(self._due.popleft())
        return not self.settled

    def _paged(self, page: Callable[[bytes], list[ChunkId]]) -> Callable[[], bool]:
        after = b""

        def advance() -> bool:
            nonlocal after
            ids = page(after)
            self._due.extend(ids)
            if ids:
                after = ids[-1]
            return len(ids) < SCAN_PAGE

        return advance

    def _look(self, chunk_id: ChunkId) -> None:
        record = self._namespace.chunk(chunk_id)
        if record is None or record.released_ms is not None:
            self.deficits.pop(chunk_id, None)
            self.condemned.pop(chunk_id, None)
            if self._locations.reporters(chunk_id) or record is not None:
                self.strays.setdefault(chunk_id, Stray(since=self._seconds()))
            else:
                self.strays.pop(chunk_id, None)
            return
        self.strays.pop(chunk_id, None)
        holders = tuple(
            name
            for name in self._locations.holders(record.chunk)
            if self._liveness.state(name) is not State.DEAD
        )
        if len(holders) >= record.replication:
            self.deficits.pop(chunk_id, None)
            self.condemned.pop(chunk_id, None)
            return
        known = self.deficits.get(chunk_id)
        since = known.since if known is not None else self._seconds()
        self.deficits[chunk_id] = Deficit(record=record, holders=holders, since=since)
