"""Timers and connections."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from filegrid.chunk.service import ChunkServer
from filegrid.simulation.checkers.checker import Checker

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign
    from filegrid.simulation.disk import SimulatedDisk

MOST_TIMERS = 5000
MOST_CONNECTIONS = 500
"""Of the whole grid, in the worst of storms."""

SETTLED_SECONDS = 3.0
"""After the clients have gone, until nothing of them is left."""


class Bounded(Checker):
    """Whatever happens, what waits is bounded; and nothing is left of clients that have gone."""

    promise = "queues, timers and connections stay bounded, and nothing leaks"

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self._machines = len(campaign.grid.machines)
        self._timers = self._count_timers()

    def _count_timers(self) -> int:
        return len(self.campaign.grid.clock.getDelayedCalls())

    def probe(self) -> None:
        timers, connections = self._count_timers(), self.campaign.grid.network.connections
        if timers > MOST_TIMERS or connections > MOST_CONNECTIONS:
            raise self.broken(f"{timers} timers and {connections} connections")

    async def finish(self) -> None:
        for actor in self.campaign.actors:
            await actor.client.close()
        await self.campaign.sleep(SETTLED_SECONDS)
        gone = {actor.name for actor in self.campaign.actors}
        left = [name for name in self.campaign.grid.network.connected_hosts() if name in gone]
        if left:
            raise self.broken(f"connections of {left} are left after they were closed")
        for machine in self.campaign.grid.chunk_servers:
            if isinstance(machine.node, ChunkServer):
                await self.campaign.becomes(
                    f"{machine.name} has files open that nobody reads or writes",
                    partial(_has_let_go, machine.node, machine.disk),
                )
        most = 2 * self._timers * len(self.campaign.grid.machines) // self._machines
        timers = self._count_timers()
        if timers > most:
            raise self.broken(f"{timers} timers are left of a grid that had {self._timers} once")


def _has_let_go(server: ChunkServer, disk: SimulatedDisk) -> bool:
    """Nothing is being written, and all that is open is kept for later."""
    kept = len(server._transfers._open_files) + len(server._store)  # a segment of each disk
    return not server._store.writers and len(disk.open_files) <= kept
