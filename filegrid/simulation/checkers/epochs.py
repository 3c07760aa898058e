"""Nobody goes back to an older epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filegrid.chunk.service import ChunkServer
from filegrid.election.messages import Ballot
from filegrid.election.quorum import Member
from filegrid.head.service import Head
from filegrid.simulation.checkers.checker import Checker

if TYPE_CHECKING:
    from filegrid.model import Epoch
    from filegrid.simulation.campaign import Campaign


class Epochs(Checker):
    """A head that gave its vote gives no other in that epoch, nor in an earlier one; a chunk server
    that obeyed a head obeys none of an earlier epoch (S13). A crash changes nothing about either;
    only a disk that goes back does, and then others refuse its head (S3). A chunk server of which
    the disk did is told the epoch anew when it joins.
    """

    promise = "no node goes back to an older epoch"

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self._votes: dict[Member, Ballot] = {}
        self._fences: dict[tuple[str, bytes], tuple[int, Epoch]] = {}
        campaign.misfortune.damage.tell_gone_back = self._forget_fence

    def _forget_fence(self, name: str) -> None:
        for key in [key for key in self._fences if key[0] == name]:
            del self._fences[key]

    def look(self) -> None:
        grid = self.campaign.grid
        for machine in grid.heads:
            if isinstance(machine.node, Head):
                self._look_at_head(machine.node)
        for machine in grid.chunk_servers:
            if isinstance(machine.node, ChunkServer):
                self._look_at_chunk_server(machine.node)

    def _look_at_head(self, head: Head) -> None:
        ballots, me = head._council._bully._ballots, head._council.me
        ballot, before = ballots._ballot, self._votes.get(me)
        meets_until = self.campaign.misfortune.damage.outdated.get(me)
        if meets_until is not None:
            if self.campaign.seconds > meets_until:
                raise self.broken(f"{me} lost what it said, and takes part")
            return
        if ballot is before or ballots.storing:
            return
        if before is not None and ballot != before and ballot.epoch <= before.epoch:
            raise self.broken(f"{me} has {ballot}, and had {before}")
        self._votes[me] = ballot

    def _look_at_chunk_server(self, server: ChunkServer) -> None:
        key = server._identity.name, server._folder.incarnation
        fence, before = server._fence._stored, self._fences.get(key)
        if fence is before:
            return
        if before is not None and fence < before:
            raise self.broken(f"{key[0]} obeys {fence}, and obeyed {before}")
        self._fences[key] = fence

    async def finish(self) -> None:
        await self.campaign.becomes("not all chunk servers obey the leader", self._all_obey)

    def _all_obey(self) -> bool:
        leader = self.campaign.grid.leader()
        if leader is None or not isinstance(leader.node, Head):
            return False
        reign = leader.node._namespace.registers().lineage, leader.node._council.leader_epoch
        servers = [machine.node for machine in self.campaign.grid.chunk_servers]
        return all(isinstance(one, ChunkServer) and one._fence._stored == reign for one in servers)
