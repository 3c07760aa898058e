"""What a server that says nothing any more costs those who need it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from filegrid.client.grid import GridClient
from filegrid.errors import NoSpace
from filegrid.simulation.checkers.checker import Checker

MOST_SECONDS = 2.5
"""For one operation; without second requests, and parcels that are done with a server too few, it
takes five seconds and more until a server counts as failed."""

TRIES = 4


class Prompt(Checker):
    """One chunk server stalls in the calm, with its connections up: reads and small writes go on.

    It judges last, as it leaves the grid with a server less.
    """

    promise = "a stalled chunk server keeps nobody waiting"

    async def finish(self) -> None:
        grid = self.campaign.grid
        replication = self.campaign.scenario.replication
        if replication < 2 or len(grid.chunk_servers) <= replication:
            return
        client = GridClient(*grid.client_runtime("latecomer"), [*grid.head_addresses])
        data = self.campaign.rng("prompt").randbytes(grid.grid_settings.chunk_bytes + 1000)
        try:
            await client.write_bytes("/prompt", data)
        except NoSpace:  # nothing to judge in a grid that is full
            await client.close()
            return
        for _ in range(TRIES):  # it has seen most servers then
            await client.read_bytes("/prompt")
        placed = await (await client.open_read("/prompt")).manifest.placed(0)
        grid.network.isolate(placed.replicas[0].server)
        for number in range(TRIES):
            if await self._timed("a read", client.read_bytes("/prompt")) != data:
                raise self.broken("other bytes were read than were written")
            await self._timed("a small write", client.write_bytes(f"/prompt{number}", b"x"))
        await client.close()

    async def _timed(self, what: str, work: Coroutine[Deferred[Any], Any, Any]) -> Any:
        begun = self.campaign.seconds
        found = await work
        if (took := self.campaign.seconds - begun) > MOST_SECONDS:
            raise self.broken(f"{what} took {took:.1f} s")
        return found
