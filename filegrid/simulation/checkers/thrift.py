"""Nothing is repaired that is only not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filegrid.chunk.service import ChunkServer
from filegrid.head.liveness import State
from filegrid.simulation.checkers.checker import Checker

if TYPE_CHECKING:
    from filegrid.head.roster import Roster
    from filegrid.head.service import Head
    from filegrid.model import ChunkId
    from filegrid.simulation.campaign import Campaign


class Thrift(Checker):
    """A leader makes no replica of a chunk in the place of one of which it has not heard yet (S18).

    Otherwise each new leader would begin to copy what the slowest servers are about to report.
    """

    promise = "a replica that was not reported yet is not missing"

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self._running: set[ChunkId] = set()

    def look(self) -> None:
        for head in self.campaign.running_heads():
            if head.leads:
                assert head._reign is not None
                running = head._reign._repair.running
                if running.keys() != self._running:
                    for chunk_id in running.keys() - self._running:
                        self._judge(head, chunk_id)
                    self._running = set(running)

    def _judge(self, leader: Head, chunk_id: ChunkId) -> None:
        if chunk_id not in leader._redundancy.deficits:
            return  # it is moved
        now = leader._runtime.clock.seconds()
        for machine in self.campaign.grid.chunk_servers:
            node = machine.node
            has_it = isinstance(node, ChunkServer) and node._inventory.get(chunk_id) is not None
            if has_it and _is_waited_for(leader._roster, machine.name, now):
                raise self.broken(
                    f"{leader._identity.name} copies chunk {chunk_id.hex()}, and {machine.name},"
                    " which has it, has not reported to it"
                )


def _is_waited_for(roster: Roster, name: str, now: float) -> bool:
    liveness = roster._liveness
    return (
        name in liveness
        and not roster[name].reported
        and liveness.state(name) is not State.DEAD
        and not liveness.away_seconds(name, now)
    )
