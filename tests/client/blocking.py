"""The blocking face over a simulated grid: waiting lets simulated time pass."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from twisted.internet.defer import Deferred

from filegrid.client.blocking import Grid
from filegrid.client.runner import Work
from filegrid.simulation.grid import SimulatedGrid
from tests.grid.case import GridCase

T = TypeVar("T")


class SimulatedRunner:
    """:class:`filegrid.client.runner.Runner`."""

    def __init__(self, grid: SimulatedGrid) -> None:
        self._grid = grid

    def run(self, work: Work[T]) -> T:
        return self._grid.run(work())

    def post(self, work: Work[None]) -> None:
        with suppress(Exception):
            Deferred.fromCoroutine(work())


class BlockingCase(GridCase):
    """:ivar blocking: the grid as ordinary programs see it."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = SimulatedRunner(self.grid)
        self.blocking = Grid(self.client, self.runner)
