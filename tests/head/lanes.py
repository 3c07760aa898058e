"""Threads whose work is done when a test says so, and a runtime without a network."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime

from filegrid.model import Address
from filegrid.runtime import Disk, Runtime, Threads

T = TypeVar("T")


class SteppedThreads:
    """Lanes whose work is done when the test says so; until then at once."""

    def __init__(self) -> None:
        self.stepped = False
        self.lanes: dict[str, deque[Callable[[], None]]] = {}

    def run(self, work: Callable[..., T], *args: object) -> Deferred[T]:
        raise AssertionError("heads work in lanes alone")

    def lane(self, name: str) -> Threads:
        return _Lane(self, self.lanes.setdefault(name, deque()))

    def step(self, name: str) -> None:
        self.lanes[name].popleft()()

    def waiting(self, name: str) -> int:
        return len(self.lanes[name])


class _Lane:
    def __init__(self, threads: SteppedThreads, queue: deque[Callable[[], None]]) -> None:
        self._threads = threads
        self._queue = queue

    def run(self, work: Callable[..., T], *args: object) -> Deferred[T]:
        if not self._threads.stepped:
            return execute(work, *args)
        done: Deferred[T] = Deferred()

        def step() -> None:
            def tell(outcome: object) -> None:
                if not done.called:  # by being cancelled
                    done.callback(outcome)  # type: ignore[arg-type]

            execute(work, *args).addBoth(tell)

        self._queue.append(step)
        return done

    def lane(self, name: str) -> Threads:
        raise AssertionError("a lane has no lanes")


class NoNetwork:
    def listen(self, address: Address, build: object) -> Deferred[object]:
        raise AssertionError

    connect = listen


def runtime_of(clock: IReactorTime, disk: Disk, threads: Threads) -> Runtime:
    return Runtime(
        clock=clock,
        network=NoNetwork(),  # type: ignore[arg-type]  # never touched
        disk=disk,
        threads=threads,
        random=random.Random(2),
        wall_seconds=lambda: 1e9,
    )
