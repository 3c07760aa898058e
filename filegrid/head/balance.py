"""Making chunk servers evenly full: by itself and gently, or now when a person says so.

A move is a copy to an emptier server, as in repair; the replica that is one too many then is taken
away from the fullest, once the others were read back. So no move ever lowers redundancy, and one
that is interrupted leaves a replica too many, never one too few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from filegrid.head.balancing import Balancing, Filling
from filegrid.head.deficits import Deficit
from filegrid.head.liveness import State
from filegrid.head.locations import Locations
from filegrid.head.planning import Copy
from filegrid.head.redundancy import Redundancy
from filegrid.head.registry import Registry
from filegrid.head.repair import Repair
from filegrid.head.roster import Roster
from filegrid.head.view import View
from filegrid.model import ChunkId
from filegrid.runtime import Runtime

PATIENCE_SECONDS = 30.0
"""So long the servers must have been uneven, and all else well, before anything moves by itself."""

GENTLE_FRACTION = 0.25
"""Of what repair may spend, for moves that nobody asked for."""

DEFAULT_MIB_PER_SECOND = 100.0
"""Where repair has no limit."""

MOST_MOVES = 32
MOST_MOVING_BYTES = 256 * 1024 * 1024
"""At once, the last chunk whole; a change of mind takes effect after these."""

SCAN_PAGE = 256
SCANS_PER_TURN = 4
"""Pages of chunks that are looked through for one that can move."""

AGAIN_SECONDS = 60.0
"""After nothing was found that can move."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    giver: str
    receiver: str
    length: int


class Balance:
    """Moves replicas, for a leader.

    :param mib_per_second: as for repair; 0 is no limit.
    :param band_percent: how far from the mean, in percent of its room, a server's use may be.
    """

    def __init__(
        self,
        runtime: Runtime,
        roster: Roster,
        redundancy: Redundancy,
        locations: Locations,
        registry: Registry,
        namespace: View,
        repair: Repair,
        *,
        mib_per_second: float,
        band_percent: float,
    ) -> None:
        self._runtime = runtime
        self._roster = roster
        self._redundancy = redundancy
        self._locations = locations
        self._registry = registry
        self._namespace = namespace
        self._repair = repair
        self._bytes_per_second = (mib_per_second or DEFAULT_MIB_PER_SECOND) * _MIB
        self._band = band_percent / 100
        self._moving: dict[ChunkId, _Move] = {}
        self._cursors: dict[str, bytes] = {}
        self._fruitless: set[str] = set()  # givers of which nothing can move since something did
        self._again: set[str] = set()  # givers that were begun before something moved last
        self._ordered = False
        self._active = False
        self._uneven_since: float | None = None
        self._rest_until = 0.0
        self._allowance_bytes = 0.0
        self._allowed_at = runtime.clock.seconds()

    @property
    def bytes_left(self) -> int:
        """What has to move yet."""
        return self._balancing().bytes_left

    @property
    def active(self) -> bool:
        """Whether moves are going on or are to begin."""
        return self._active or self._ordered or bool(self._moving)

    @property
    def bytes_per_second(self) -> float:
        """What it may copy, all servers together."""
        servers = max(1, len(self._roster.candidates()))
        share = 1.0 if self._ordered else GENTLE_FRACTION
        return self._bytes_per_second * share * servers

    def start(self) -> None:
        """Begin now, at the speed of repair, until the servers are even."""
        self._ordered = True
        self._rest_until = 0.0

    def turn(self) -> None:
        """Begin some moves where the servers are uneven and nothing is more urgent."""
        now = self._runtime.clock.seconds()
        elapsed, self._allowed_at = now - self._allowed_at, now
        rate = self.bytes_per_second
        self._allowance_bytes = min(rate, self._allowance_bytes + elapsed * rate)
        if not (self._roster.complete and self._redundancy.settled):
            return
        self._forget_ended()
        balancing = self._balancing()
        if balancing.even:
            self._uneven_since, self._active, self._ordered = None, False, False
            self._fruitless.clear()
            return
        if self._redundancy.deficits or self._redundancy.moves:
            self._uneven_since = None  # what is more urgent has the servers
            return
        if now < self._rest_until:
            return
        self._uneven_since = now if self._uneven_since is None else self._uneven_since
        self._active = self._active or now - self._uneven_since >= PATIENCE_SECONDS
        if self._active or self._ordered:
            self._move_some(balancing, now)

    def _balancing(self) -> Balancing:
        fillings = {
            server.name: Filling(
                name=server.name,
                rack=server.rack,
                held_bytes=server.load.held_bytes,
                room_bytes=server.load.held_bytes + server.load.free_bytes,
            )
            for server in self._roster
            if self._roster.state(server.name) is State.LIVE
            and server.load.writable
            and not self._roster.suspicion(server.name)
            and server.name not in self._registry.leaving
        }
        for chunk_id, move in self._moving.items():
            if move.giver in fillings:
                fillings[move.giver].held_bytes -= move.length
            arrived = move.receiver in self._locations.reporters(chunk_id)
            if move.receiver in fillings and not arrived:
                fillings[move.receiver].held_bytes += move.length
        return Balancing(list(fillings.values()), band=self._band)

    def _forget_ended(self) -> None:
        """A move has ended when nothing of the chunk is too much any more."""
        self._moving = {
            chunk_id: move
            for chunk_id, move in self._moving.items()
            if chunk_id in self._repair.running or chunk_id in self._redundancy.surplus
        }

    def _move_some(self, balancing: Balancing, now: float) -> None:
        racks = self._roster.racks()
        givers = balancing.givers()
        left = [giver for giver in givers if giver not in self._fruitless]
        for giver in left[:SCANS_PER_TURN]:
            if not self._may_move():
                return
            after = self._cursors.get(giver, b"")
            ids, following = self._locations.of_server(giver, after)
            copies = self._choose(balancing, giver, ids, racks)
            self._cursors[giver] = following or b""
            if copies:
                self._repair.begin(copies)
                # What did not fit before may fit now: each is looked through from its beginning.
                self._fruitless.clear()
                self._again.update(givers)
            elif following is None and giver not in self._again:
                self._fruitless.add(giver)
            if following is None:
                self._again.discard(giver)
        if not left and not self._moving:
            # As even as whole chunks and racks allow.
            self._fruitless.clear()
            self._rest_until = now + AGAIN_SECONDS
            self._active, self._ordered = False, False

    def _may_move(self) -> bool:
        moving = sum(move.length for move in self._moving.values())
        return (
            self._allowance_bytes > 0
            and len(self._moving) < MOST_MOVES
            and moving < MOST_MOVING_BYTES
        )

    def _choose(
        self,
        balancing: Balancing,
        giver: str,
        ids: Sequence[ChunkId],
        racks: Mapping[str, str],
    ) -> list[Copy]:
        copies = []
        for chunk_id, record in self._namespace.records(ids).items():
            if not self._may_move():
                break
            chunk = record.chunk
            if record.released_ms is not None or chunk_id in self._moving:
                continue
            holders = self._locations.holders(chunk)
            if len(holders) != record.replication or giver not in holders:
                continue  # repair, or pruning, is at it
            receiver = balancing.receiver(giver, chunk.length, holders, racks)
            if receiver is None:
                continue
            balancing.move(giver, receiver, chunk.length)
            self._moving[chunk_id] = _Move(giver=giver, receiver=receiver, length=chunk.length)
            self._allowance_bytes -= chunk.length
            need = Deficit(record=record, holders=tuple(holders), since=0.0, ready_at=0.0)
            copies.append(Copy(deficit=need, sources=(giver, *holders), target=receiver))
        return copies
