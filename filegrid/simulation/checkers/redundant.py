"""What the grid heals to."""

from __future__ import annotations

from filegrid.chunk.service import ChunkServer
from filegrid.errors import GridError
from filegrid.head.service import Head
from filegrid.simulation.checkers.checker import Checker
from filegrid.simulation.stored import named_chunks, where_stored


class Redundant(Checker):
    """In the end every chunk has all its replicas, each of them good, and nothing else is left."""

    promise = "the grid comes back to full redundancy, and gives back all other space"

    async def finish(self) -> None:
        await self.campaign.becomes("the head counts too few replicas", self._is_counted_whole)
        await self.campaign.becomes("replicas on the disks are not those wanted", self._is_whole)
        for machine in self.campaign.grid.chunk_servers:
            assert isinstance(machine.node, ChunkServer)
            for chunk in machine.node._inventory.page(b"", 1 << 30)[0]:
                try:
                    machine.node._store.verify(chunk)
                except GridError as error:
                    if self.campaign.misfortune.damage.is_rotten(machine, chunk.id):
                        continue  # nobody has read it since
                    raise self.broken(f"{chunk.id.hex()} on {machine.name}: {error}") from error

    async def _is_counted_whole(self) -> bool:
        counts = (await self.campaign.status()).chunks
        return counts.healthy == counts.total and not counts.repairing

    async def _is_whole(self) -> bool:
        leader, named = self.campaign.grid.leader(), named_chunks(self.campaign.grid)
        if named is None or leader is None or not isinstance(leader.node, Head):
            return False
        there = where_stored(self.campaign.grid)
        for one in named:
            if len(there.pop(one.chunk.id, ())) != one.replication:
                return False
        # What a client began stays while nobody can tell whether it goes on.
        return all(map(leader.node._namespace.may_be_published, there))
