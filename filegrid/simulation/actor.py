"""Somebody at work with a grid who remembers what it said: the parts that all of them share."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from twisted.internet.defer import Deferred

from filegrid.client.grid import GridClient
from filegrid.errors import (
    ContentCollected,
    DeadlineExceeded,
    GridError,
    NoSpace,
    NoSuchPath,
    OutcomeUnknown,
    Unavailable,
)
from filegrid.simulation.promises import ERRORS_PROMISE, Broken

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign

T = TypeVar("T")
Act: TypeAlias = Callable[[], Awaitable[object]]

TIMEOUTS_SECONDS = (0.7, 3.0, 10.0)
"""Of one client or another: who waits for less often does not learn what came of a change."""

NOT_DONE = (Unavailable, DeadlineExceeded, NoSpace)
"""What says of a change that it was not applied, and never will be."""

PAUSES_SECONDS = (0.0, 0.1, 0.8, 2.0)
"""Between two operations of a client: some five in six simulated seconds, of four together."""


class Actor:
    """One client at work, one operation after the other.

    :ivar operations: that it began; :ivar unknown: that ended so; :ivar refused: that the grid
        could not serve; :ivar longest_pause_seconds: until one of them ended.
    """

    def __init__(self, campaign: Campaign, name: str, rng: random.Random) -> None:
        self.name = name
        self.stopping = False
        self.operations = self.unknown = self.refused = 0
        self.longest_pause_seconds = 0.0
        self._rested_seconds = 0.0
        self._campaign = campaign
        self._random = rng
        self._count = 0
        runtime, identity = campaign.grid.client_runtime(name)
        self._runtime = runtime
        self.client = GridClient(
            runtime,
            identity,
            [*campaign.grid.head_addresses],
            timeout_seconds=rng.choice(TIMEOUTS_SECONDS),
        )

    @property
    def folder(self) -> str:
        """In which nobody else changes anything."""
        return f"/{self.name}"

    def choose(self) -> Act:
        """What to do next."""
        raise NotImplementedError

    async def check(self) -> None:
        """In the end all that was acknowledged is there, whole; what surely failed is not.

        :raises Broken: where it is not so, or where the grid does not answer.
        """
        raise NotImplementedError

    async def work(self) -> None:
        """One operation after the other until :attr:`stopping`.

        :raises Broken: where an answer is not one that a correct grid gives.
        """
        while not self.stopping and not await self._done("mkdir", self._mkdir(self.folder)):
            await self._runtime.sleep(0.2)
        while not self.stopping:
            began, rested = self._campaign.seconds, self._rested_seconds
            await self.choose()()
            self.operations += 1
            took = self._campaign.seconds - began - (self._rested_seconds - rested)
            self.longest_pause_seconds = max(self.longest_pause_seconds, took)
            await self._runtime.sleep(self._random.choice(PAUSES_SECONDS))

    async def _rest(self, seconds: float) -> None:
        """In the middle of an operation: the grid keeps nobody waiting meanwhile."""
        self._rested_seconds += seconds
        await self._runtime.sleep(seconds)

    async def _mkdir(self, path: str) -> object:
        return await self.client.mkdir(path, parents=True)

    async def _done(self, what: str, change: Coroutine[Deferred[Any], Any, object]) -> bool | None:
        """Whether it was done; None where nobody knows.

        Any other error is not what the caller deserves: all these have to succeed.
        """
        try:
            await change
        except OutcomeUnknown:
            self.unknown += 1
            outcome: bool | None = None
        except NOT_DONE:
            self.refused += 1
            outcome = False
        except GridError as error:
            raise self._unfair(what, error) from error
        else:
            outcome = True
        word = {True: "done", False: "not done", None: "unknown"}[outcome]
        self._campaign.trace.note(f"{self.name} {what}: {word}")
        return outcome

    async def _ask(self, what: str, question: Coroutine[Deferred[Any], Any, T]) -> T | None:
        """None where there was no answer."""
        try:
            return await question
        except NoSuchPath:
            raise
        except (*NOT_DONE, ContentCollected):
            self.refused += 1
            return None
        except GridError as error:
            raise self._unfair(what, error) from error

    def _unfair(self, what: str, error: GridError) -> Broken:
        return Broken(ERRORS_PROMISE, f"{self.name} {what}: {type(error).__name__}: {error}")

    def _new_content(self, length: int) -> bytes:
        """Bytes that nobody wrote before, a few more than `length`."""
        self._count += 1
        return f"{self.name}:{self._count}:".encode() + self._random.randbytes(length)
