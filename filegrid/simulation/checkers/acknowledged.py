"""What clients were told is so."""

from __future__ import annotations

from filegrid.simulation.checkers.checker import Checker
from filegrid.simulation.promises import KEPT_PROMISE


class Acknowledged(Checker):
    """What was acknowledged is there in the end, whole; what surely failed is not.

    That it is so meanwhile the clients see themselves.
    """

    promise = KEPT_PROMISE

    async def finish(self) -> None:
        for actor in self.campaign.actors:
            await actor.check()
