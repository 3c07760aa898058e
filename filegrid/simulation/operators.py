"""The people who tend a simulated grid: machines come and go for good, and orders are given.

What they ask for may be refused, or be overtaken by something worse; they ask again, or give up
until another time. A machine is switched off for good only when the grid says that it may be.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from filegrid.client.grid import GridClient
from filegrid.errors import GridError
from filegrid.head.service import Head
from filegrid.model import Role
from filegrid.simulation.grid import Machine, SimulatedGrid
from filegrid.simulation.scenario import Strike, pick

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign

NAME = "operator"

MOST_ADDED = 2
"""Chunk servers, and heads, in one run."""

DRAIN_SECONDS = 30.0
"""That a server stays drained, at least."""

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""For a machine that is to leave; after that it stays."""


class Operators:
    """What they do; each kind returns whether there was something to do.

    :ivar client: which may also give orders.
    """

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._grid: SimulatedGrid = campaign.grid
        self._draining: set[str] = set()
        self._joining: set[str] = set()
        self._leaving = 0
        runtime, identity = self._grid.client_runtime(NAME, Role.OPERATOR)
        self.client = GridClient(
            runtime, identity, [*self._grid.head_addresses], timeout_seconds=5.0
        )
        self.kinds: dict[str, Callable[[Strike], bool]] = {
            "hand-over": self._hand_over,
            "add-head": self._add_head,
            "remove-head": self._remove_head,
            "add-chunk": self._add_chunk_server,
            "remove-chunk": self._remove_chunk_server,
            "drain": self._drain,
            "balance": lambda _: self._ask("balance", self.client.balance()),
            "repair-now": lambda _: self._ask("repair --now", self.client.repair_now()),
        }

    async def settle(self) -> None:
        """End what was begun; with everything mended the grid must take it.

        :raises Broken: where it does not.
        """
        await self._campaign.becomes("a machine is still to leave", lambda: not self._leaving)
        for machine in self._grid.heads:
            await self.client.add_head(machine.name, str(machine.settings.address))
        here = {machine.name for machine in self._grid.chunk_servers}
        for server in (await self.client.status())["chunk_servers"]:
            # One that is not back yet may be to leave as well; of those status tells that first.
            if server["name"] in here and server["state"] != "live":
                await self.client.drain(server["name"], undo=True)

    # Heads.

    def _hand_over(self, strike: Strike) -> bool:
        leader, machine = self._grid.leader(), pick(self._grid.heads, strike.whom)
        if leader is None or machine is None or machine is leader:
            return False
        return self._ask(f"hand over to {machine.name}", self.client.hand_over(machine.name))

    def _add_head(self, strike: Strike) -> bool:
        if self._added(Role.HEAD) >= MOST_ADDED or not self._campaign.all_heads_vote():
            return False  # one more would need a majority with those that lost their disks
        if len(self._grid.heads) > self._usual(Role.HEAD):
            return False
        machine = self._grid.add_head()
        machine.start().addErrback(self._campaign.failed)
        return self._ask(f"add {machine.name}", self._join(machine))

    async def _join(self, machine: Machine) -> None:
        self._joining.add(machine.name)
        try:
            await self.client.add_head(machine.name, str(machine.settings.address))
        finally:
            self._joining.discard(machine.name)

    def _remove_head(self, strike: Strike) -> bool:
        """Where one was added before: there are as many as in the beginning, or one more. One of
        the first stays: clients and nodes are configured with those."""
        machine = pick(self._grid.heads, strike.whom)
        if machine is None or len(self._grid.heads) <= self._usual(Role.HEAD) or self._leaving:
            return False
        if machine.name in self._joining:
            return False  # of two orders at once either may come last
        left = {one.settings.address for one in self._grid.heads if one is not machine}
        if left.isdisjoint(self._grid.head_addresses):
            return False
        return self._begin(f"remove {machine.name}", self._retire_head(machine))

    async def _retire_head(self, machine: Machine) -> None:
        await self.client.remove_head(machine.name)
        # From here on it leaves, sooner or later, whatever we do.
        while not self._has_left(machine):
            await self._campaign.sleep(LOOK_SECONDS)
        self._switch_off(machine)

    def _has_left(self, machine: Machine) -> bool:
        """Whether that it has no vote is committed."""
        leader = self._grid.leader()
        if leader is None or leader is machine or not isinstance(leader.node, Head):
            return False
        log = leader.node._log
        voting = machine.name in {member.name for member in log.voters}
        return not voting and log.configuration_index <= log.commit_index

    # Chunk servers.

    def _add_chunk_server(self, strike: Strike) -> bool:
        if self._added(Role.CHUNK) >= MOST_ADDED:
            return False
        racks = self._campaign.scenario.racks
        machine = self._grid.add_chunk_server(f"dc1/r{int(strike.whom * racks) + 1}")
        self._campaign.furnish(machine)
        machine.start().addErrback(self._campaign.failed)
        return self._campaign.note(f"add {machine.name}")

    def _remove_chunk_server(self, strike: Strike) -> bool:
        """Where one was added before: drained, and switched off when that is said to be safe."""
        machine = pick(self._grid.chunk_servers, strike.whom)
        if (
            machine is None
            or len(self._grid.chunk_servers) <= self._usual(Role.CHUNK)
            or self._leaving
        ):
            return False
        if machine.name in self._draining:
            return False
        return self._begin(f"remove {machine.name}", self._retire_chunk_server(machine))

    async def _retire_chunk_server(self, machine: Machine) -> None:
        self._draining.add(machine.name)
        try:
            await self.client.drain(machine.name)
            until = self._campaign.seconds + PATIENCE_SECONDS
            while not await self._is_drained(machine):
                if self._campaign.calm or self._campaign.seconds > until:
                    await self.client.drain(machine.name, undo=True)
                    return
                await self._campaign.sleep(LOOK_SECONDS)
            self._switch_off(machine)
        finally:
            self._draining.discard(machine.name)

    async def _is_drained(self, machine: Machine) -> bool:
        try:
            servers = (await self.client.status())["chunk_servers"]
        except GridError:
            return False
        states = {one["name"]: one["state"] for one in servers}  # none while nobody leads
        return machine.node is not None and states.get(machine.name) == "drained"

    def _drain(self, strike: Strike) -> bool:
        machine = pick(self._grid.chunk_servers, strike.whom)
        if machine is None or self._draining:
            return False
        name = machine.name
        self._draining.add(name)

        def undo() -> None:
            self._draining.discard(name)
            if not self._campaign.calm:
                self._ask(f"undrain {name}", self.client.drain(name, undo=True))

        self._grid.clock.callLater(DRAIN_SECONDS + strike.seconds, undo)
        return self._ask(f"drain {name}", self.client.drain(name))

    # Any.

    def _usual(self, role: Role) -> int:
        """How many machines of a role there are in the beginning."""
        scenario = self._campaign.scenario
        return scenario.heads if role is Role.HEAD else scenario.chunk_servers

    def _added(self, role: Role) -> int:
        """Since then, with those that are gone again."""
        return self._grid.made[role] - self._usual(role)

    def _switch_off(self, machine: Machine) -> None:
        """For good: its disks are of no use to anybody any more."""
        self._campaign.note(f"switch {machine.name} off for good")
        self._grid.retire(machine)
        machine.kill()

    def _begin(self, what: str, work: Coroutine[Deferred[Any], Any, object]) -> bool:
        self._leaving += 1
        self._campaign.note(what)

        def ended(result: object) -> object:
            self._leaving -= 1
            return result

        begun = Deferred.fromCoroutine(work).addBoth(ended)
        begun.addErrback(self._refused, what).addErrback(self._campaign.failed)
        return True

    def _ask(self, what: str, work: Coroutine[Deferred[Any], Any, object]) -> bool:
        """What the grid cannot do just now, it refuses."""
        self._campaign.note(what)
        Deferred.fromCoroutine(work).addErrback(self._refused, what)
        return True

    def _refused(self, failure: Failure, what: str) -> None:
        failure.trap(GridError)
        self._campaign.note(f"{what}: {failure.value}")
