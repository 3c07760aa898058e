"""A test case with a grid of several heads."""

from __future__ import annotations

from collections.abc import Callable

from filegrid.head.service import Head
from filegrid.simulation.grid import Machine
from tests.grid.case import GridCase


class HeadsCase(GridCase):
    heads = 3
    chunk_servers = 4

    def leader(self) -> Machine:
        leader = self.grid.leader()
        assert leader is not None
        return leader

    def standbys(self) -> list[Machine]:
        leader = self.leader()
        return [one for one in self.grid.heads if one is not leader]

    def node(self, machine: Machine) -> Head:
        assert isinstance(machine.node, Head)
        return machine.node

    def cut_from_heads(self, machine: Machine) -> None:
        for other in self.grid.heads:
            if other is not machine:
                self.grid.network.cut(machine.name, other.name)

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        end = self.grid.clock.seconds() + seconds
        while not condition():
            self.assertLess(self.grid.clock.seconds(), end)
            self.grid.advance(0.05)

    def until_another_leads(self, old: Machine) -> Machine:
        self.until(lambda: self.grid.leader() not in (None, old))
        return self.leader()

    def names(self, machine: Machine) -> list[str]:
        """What this very head knows."""
        found, more = self.node(machine)._namespace.list_folder("/", "", 10_000)
        assert not more
        return [one.path for one in found]
