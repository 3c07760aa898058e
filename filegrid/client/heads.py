"""The heads of the grid: links to them, and which one to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred, TimeoutError

from filegrid.client.patience import Patience
from filegrid.errors import (
    GridError,
    NotLeader,
    NotPermitted,
    Unavailable,
    UnsupportedVersion,
    WrongGrid,
)
from filegrid.model import Address, Role
from filegrid.net.dial import Dialler
from filegrid.net.link import Link
from filegrid.protocol.wire import frame_pb2
from filegrid.runtime import Runtime

MOST_HEADS = 16
"""Addresses that heads may add to those we were told; a grid has three or five."""

LOOK_SECONDS = 0.25
"""How often we look, while no link is up, whether all heads have turned us away."""

_TURNED_AWAY = (NotPermitted, WrongGrid, UnsupportedVersion)


class Heads:
    """Keeps a link to every head, and remembers which one answered last."""

    def __init__(
        self, runtime: Runtime, addresses: Sequence[Address], hello: Callable[[], frame_pb2.Hello]
    ) -> None:
        self._runtime = runtime
        self._hello = hello
        self._diallers = [self._dialler(address) for address in addresses]  # the best one first
        self._stopped = False

    def start(self) -> None:
        for dialler in self._diallers:
            dialler.start()

    async def stop(self) -> None:
        self._stopped = True
        for dialler in self._diallers:
            await dialler.stop()

    def __str__(self) -> str:
        return ", ".join(str(dialler.address) for dialler in self._diallers)

    def away(self) -> list[str]:
        """The heads that cannot be reached, and why."""
        return [
            f"{dialler.address}: {dialler.trouble.what}"
            for dialler in self._diallers
            if dialler.link is None
        ]

    def best(self) -> tuple[Address, Link] | None:
        """A link that is up, to the head that is the likeliest to lead; None for none."""
        if not self._stopped:
            for dialler in self._diallers:
                if dialler.link is not None:
                    return dialler.address, dialler.link
        return None

    async def link(self, patience: Patience) -> tuple[Address, Link]:
        """As :meth:`best`, waiting for one.

        :raises Unavailable: when none comes up while the patience lasts.
        :raises NotPermitted: where every head turns us away; so WrongGrid, UnsupportedVersion.
        """
        while True:
            if self._stopped:
                raise Unavailable("this client is closed", advice="connect again")
            best = self.best()
            if best is not None:
                return best
            troubles = [dialler.trouble for dialler in self._diallers]
            if all(isinstance(trouble, _TURNED_AWAY) for trouble in troubles):
                raise troubles[0]
            if not patience.left_seconds:
                why = "; ".join(f"{trouble.subject}: {trouble.what}" for trouble in troubles)
                raise Unavailable(f"no head can be reached ({why})", advice="is the grid running?")
            await self._any_up(min(LOOK_SECONDS, patience.left_seconds))

    def learn(self, address: Address, error: GridError) -> None:
        """Asking the head at `address` came to this: ask another one next."""
        best = self.best()  # those before it are down, and dialled again by themselves
        if isinstance(error, NotLeader) and error.leader:
            self._prefer(Address.parse(error.leader))
        elif best is not None and best[0] == address:  # or somebody else came to it first
            self._diallers.sort(key=lambda one: one.address == address)  # it comes last

    def add(self, addresses: Iterable[str]) -> None:
        """Heads that were added to the grid since this client was configured."""
        known = {str(dialler.address) for dialler in self._diallers}
        for address in set(addresses) - known:
            if len(self._diallers) < MOST_HEADS and not self._stopped:
                self._diallers.append(dialler := self._dialler(Address.parse(address)))
                dialler.start()

    def _prefer(self, address: Address) -> None:
        for place, dialler in enumerate(self._diallers):
            if dialler.address == address:
                self._diallers.insert(0, self._diallers.pop(place))
                return
        if len(self._diallers) < MOST_HEADS and not self._stopped:
            dialler = self._dialler(address)
            self._diallers.insert(0, dialler)
            dialler.start()

    def _dialler(self, address: Address) -> Dialler:
        return Dialler(self._runtime, address, role=Role.HEAD, hello=self._hello)

    async def _any_up(self, seconds: float) -> None:
        up: Deferred[None] = Deferred()
        over = False

        def wake(_: object) -> None:
            if not over and not up.called:
                up.callback(None)

        waiters = [dialler.when_up().addBoth(wake) for dialler in self._diallers]
        try:
            await up.addTimeout(seconds, self._runtime.clock)
        except TimeoutError:
            pass
        finally:
            over = True
            for waiter in waiters:
                waiter.cancel()
