"""What a checker is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from filegrid.simulation.promises import Broken

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign


class Checker:
    """Watches one promise over a whole run.

    Each method raises :class:`Broken` where it is not kept. None may change what happens next.
    """

    promise: ClassVar[str]

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign

    def look(self) -> None:
        """After every event: it must be quick."""

    def probe(self) -> None:
        """Every few simulated seconds, in the storm and in the calm."""

    async def finish(self) -> None:
        """In the end, when all is mended and the clients rest."""

    def close(self) -> None:
        """The run is over, in whatever way."""

    def broken(self, detail: str) -> Broken:
        return Broken(self.promise, detail)
