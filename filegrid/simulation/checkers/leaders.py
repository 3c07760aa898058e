"""Nobody leads beside another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filegrid.head.service import Head
from filegrid.simulation.checkers.checker import Checker

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign


class OneLeader(Checker):
    """At every instant at most one head serves, and in an epoch always the same one (S4, S5)."""

    promise = "at most one leader serves in an epoch"

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self._last: tuple[str, int] | None = None
        self._of_epoch: dict[int, str] = {}

    def look(self) -> None:
        leading = None
        for machine in self.campaign.grid.heads:
            node = machine.node
            if isinstance(node, Head) and node.leads:
                if leading is not None:
                    raise self.broken(f"{leading.name} and {machine.name} serve at the same time")
                leading = machine
        if leading is None:
            return
        assert isinstance(leading.node, Head)
        epoch = leading.node._council.leader_epoch
        if (leading.name, epoch) == self._last:
            return
        self._last = (leading.name, epoch)
        self.campaign.note(f"{leading.name} leads in epoch {epoch}")
        other = self._of_epoch.setdefault(epoch, leading.name)
        if other != leading.name:
            raise self.broken(f"{other} and {leading.name} served in epoch {epoch}")
