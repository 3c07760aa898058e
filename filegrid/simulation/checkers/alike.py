"""The heads' databases."""

from __future__ import annotations

from filegrid.simulation.checkers.checker import Checker


class Alike(Checker):
    """Heads that applied the same log know the same (S9)."""

    promise = "all heads come to the same state by the same log"

    async def finish(self) -> None:
        await self.campaign.becomes("the heads are not alike", self._caught_up)
        heads = self.campaign.running_heads()
        dumps = [list(head._namespace._database.iterdump()) for head in heads]
        for number, dump in enumerate(dumps):
            if dump != dumps[0]:
                differ = sorted(set(dump) ^ set(dumps[0]))
                raise self.broken(f"the first and head {number + 1} differ: {differ[:6]}")

    def _caught_up(self) -> bool:
        heads = self.campaign.running_heads()
        return len({(one._log.last_index, one._log.applied_index) for one in heads}) == 1
