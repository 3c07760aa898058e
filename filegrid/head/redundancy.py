"""How many good replicas every chunk has: kept for those that are not as they should be.

Whatever may change a chunk's state (a server dies, returns or is to leave, a replica is reported or
removed, a file is published or released) makes it due for a look; looks are taken in small steps
between other work. A healthy chunk costs no memory here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

from filegrid.errors import ContentCollected
from filegrid.head.deficits import SETTLE_SECONDS, Deficit, Deficits
from filegrid.head.liveness import Liveness, State
from filegrid.head.locations import Locations
from filegrid.head.registry import Registry
from filegrid.head.view import ChunkRecord, View
from filegrid.model import ChunkId, SessionId, session_of

MOST_HEALED = 1000
"""Chunks that are whole again and that nobody has asked for yet."""

SCAN_PAGE = 256
"""Chunks looked at in one turn: some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A chunk that a server holds and no manifest names; :ivar since: when that was first seen.

    :ivar released: whether a manifest named it once.
    """

    since: float
    released: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """A chunk with more replicas on servers that stay than its file wants."""

    record: ChunkRecord
    holders: tuple[str, ...]


class Redundancy:
    """What is wanted against what is there.

    :ivar deficits: chunks with too few replicas.
    :ivar moves: chunks with enough of them, but only as long as drained servers stay.
    :ivar surplus: chunks with too many.
    :ivar condemned: servers that reported damage, for chunks that are not whole again yet.
    :ivar strays: chunks on some server that the namespace does not name.
    :ivar unknown: those of them whose birth is not in this history: not ours to judge (S14).
    """

    def __init__(
        self,
        namespace: View,
        locations: Locations,
        liveness: Liveness,
        registry: Registry,
        seconds: Callable[[], float],
    ) -> None:
        self._namespace = namespace
        self._locations = locations
        self._liveness = liveness
        self._registry = registry
        self._seconds = seconds
        self.deficits = Deficits()
        self.moves = Deficits()
        self.surplus: dict[ChunkId, Surplus] = {}
        self.condemned: dict[ChunkId, set[str]] = {}
        self.healed: deque[tuple[ChunkId, set[str]]] = deque(maxlen=MOST_HEALED)
        self.strays: dict[ChunkId, Stray] = {}
        self.unknown: set[ChunkId] = set()
        self._due: OrderedDict[ChunkId, None] = OrderedDict()
        self._scans: deque[Callable[[], bool]] = deque()

    @property
    def settled(self) -> bool:
        """Whether all that is known has been looked at."""
        return not self._due and not self._scans

    def touch(self, chunk_ids: Iterable[bytes]) -> None:
        """These are due for a look."""
        self._due.update(dict.fromkeys(map(ChunkId, chunk_ids)))

    def condemn(self, name: str, chunk_ids: Iterable[bytes]) -> None:
        """A server found its replicas damaged; it serves them no more."""
        for chunk_id in chunk_ids:
            self.condemned.setdefault(ChunkId(chunk_id), set()).add(name)

    def scan_server(self, name: str) -> None:
        """The state of a server changed: look at all that it holds."""
        self._scans.append(self._paged(partial(self._locations.of_server, name)))

    def scan_all(self) -> None:
        """Look at every chunk that the namespace names, and at all of which something is noted: a
        state that came whole from another head may not name them any more."""
        noted = [*self.deficits, *self.moves, *self.surplus, *self.condemned]
        rest = iter([*noted, *self.strays, *self.unknown])

        def advance() -> bool:
            ids = list(islice(rest, SCAN_PAGE))
            self._due.update(dict.fromkeys(ids))
            return len(ids) < SCAN_PAGE

        def page(after: bytes) -> tuple[list[ChunkId], ChunkId | None]:
            ids = [record.chunk.id for record in self._namespace.chunks_after(after, SCAN_PAGE)]
            return ids, ids[-1] if len(ids) == SCAN_PAGE else None

        self._scans.append(self._paged(page))
        self._scans.append(advance)

    def scan_content(self, content_id: bytes) -> None:
        """A file wants another number of replicas: look at all its chunks."""
        first = 0

        def advance() -> bool:
            nonlocal first
            try:
                chunks, more = self._namespace.manifest(content_id, first, SCAN_PAGE)
            except ContentCollected:
                return True
            self._due.update((chunk.id, None) for chunk in chunks)
            first += len(chunks)
            return not more

        self._scans.append(advance)

    def held_bytes(self, name: str, chunk_ids: Sequence[bytes]) -> int:
        """How much a server holds of these; without those that were never published."""
        return sum(
            record.chunk.length
            for record in self._namespace.records(chunk_ids).values()
            if name in self._locations.reporters(record.chunk.id)
        )

    def step(self) -> bool:
        """Look at some chunks; returns whether more are due."""
        if self._scans and len(self._due) < SCAN_PAGE and self._scans[0]():
            self._scans.popleft()
        if most := min(SCAN_PAGE, len(self._due)):
            self._look([self._due.popitem(last=False)[0] for _ in range(most)])
        return not self.settled

    def _paged(
        self, page: Callable[[bytes], tuple[list[ChunkId], ChunkId | None]]
    ) -> Callable[[], bool]:
        after = b""

        def advance() -> bool:
            nonlocal after
            ids, following = page(after)
            self._due.update(dict.fromkeys(ids))
            after = following or b""
            return following is None

        return advance

    def _look(self, chunk_ids: Sequence[ChunkId]) -> None:
        records = self._namespace.records(chunk_ids)
        was_opened = cache(self._namespace.session_was_opened)  # there are few among so many chunks
        dead = {name for name in self._liveness if self._liveness.state(name) is State.DEAD}
        for chunk_id in chunk_ids:
            record = records.get(chunk_id)
            if record is None or record.released_ms is not None:
                self._is_not_named(chunk_id, record, was_opened)
            else:
                self._is_named(record, dead)

    def _is_not_named(
        self,
        chunk_id: ChunkId,
        record: ChunkRecord | None,
        was_opened: Callable[[SessionId], bool],
    ) -> None:
        reported = bool(self._locations.reporters(chunk_id))
        self.condemned.pop(chunk_id, None)  # gone is not healed
        self._has_enough(chunk_id)
        self.surplus.pop(chunk_id, None)
        self.unknown.discard(chunk_id)
        if record is None and not was_opened(session_of(chunk_id)):
            if reported:
                self.unknown.add(chunk_id)
        elif reported or record is not None:
            known = self.strays.get(chunk_id)
            since = known.since if known is not None else self._seconds()
            self.strays[chunk_id] = Stray(since=since, released=record is not None)
        else:
            self.strays.pop(chunk_id, None)

    def _is_named(self, record: ChunkRecord, dead: Collection[str]) -> None:
        chunk = record.chunk
        self.strays.pop(chunk.id, None)
        self.unknown.discard(chunk.id)
        matching = self._locations.holders(chunk)
        self._are_replaced(chunk.id, matching)
        alive = [name for name in matching if name not in dead]
        holders = tuple(name for name in alive if name not in self._registry.leaving)
        if len(holders) > record.replication:
            self.surplus[chunk.id] = Surplus(record=record, holders=holders)
        else:
            self.surplus.pop(chunk.id, None)
        if len(holders) >= record.replication:
            self._has_enough(chunk.id)
            return
        known = self.deficits.find(chunk.id) or self.moves.find(chunk.id)
        now = self._seconds()
        if known is not None and len(holders) <= len(known.holders):
            ready_at = known.ready_at
        elif known is not None or len(matching) >= record.replication:
            ready_at = now  # it has one more; or had all, so that none is just not reported yet
        else:
            ready_at = now + SETTLE_SECONDS
        deficit = Deficit(
            record=record,
            holders=holders,
            leaving=tuple(name for name in alive if name not in holders),
            racks=len({self._registry.racks.get(name) for name in alive}),
            since=known.since if known is not None else now,
            ready_at=ready_at,
        )
        if deficit.short:
            self.moves.drop(chunk.id)
            self.deficits.put(deficit)
        else:
            self._has_enough(chunk.id)
            self.moves.put(deficit)

    def _are_replaced(self, chunk_id: ChunkId, names: Iterable[str]) -> None:
        """Damage is healed where the same server has a good replica again, whatever else lacks."""
        damaged = self.condemned.get(chunk_id)
        replaced = damaged.intersection(names) if damaged else None
        if damaged and replaced:
            self.healed.append((chunk_id, replaced))
            damaged -= replaced
            if not damaged:
                del self.condemned[chunk_id]

    def _has_enough(self, chunk_id: ChunkId) -> None:
        self.deficits.drop(chunk_id)
        self.moves.drop(chunk_id)
        if (names := self.condemned.pop(chunk_id, None)) is not None:
            self.healed.append((chunk_id, names))
