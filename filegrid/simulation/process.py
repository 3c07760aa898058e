"""A simulated process: a clock and threads that stop with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from filegrid.runtime import Threads
from filegrid.simulation.clock import SimulatedClock

T = TypeVar("T")

WORK_SECONDS = 0.0001
"""What a piece of blocking work takes; the disk's own slowness comes on top."""

_FAR_SECONDS = 1e9

_ROUNDING_SECONDS = 1e-7

_buried: list[object] = []
"""What processes that were killed were waiting for. A coroutine that the garbage collector finds
runs its `finally` blocks, and what waited for those goes on: the dead would walk."""


@implementer(IReactorTime)
class ProcessClock:
    """The grid's clock as one process sees it; when the process ends, its timers are gone.

    :param rate: how fast it runs; the grid's own with 1.
    """

    def __init__(self, clock: SimulatedClock, rate: float = 1.0) -> None:
        self._clock = clock
        self._rate = rate
        self._calls: dict[IDelayedCall, None] = {}  # in order, so that every run is alike
        self._held: list[tuple[float, IDelayedCall]] = []
        self.paused = False
        self._ended = False

    def seconds(self) -> float:
        return self._clock.seconds() * self._rate

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        call: IDelayedCall

        def run() -> None:
            self._calls.pop(call, None)
            callable(*args, **kwargs)

        if self._rate != 1.0 and delay:
            # Rounded down it would come a moment before its time, and again without end.
            delay = delay / self._rate + _ROUNDING_SECONDS
        call = self._clock.callLater(delay, run)
        if self._ended:
            _buried.append(run)
            call.cancel()
        else:
            self._calls[call] = None
            if len(self._calls) > 64 and len(self._calls) % 64 == 0:
                self._calls = {one: None for one in self._calls if one.active()}
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        return [call for call in self._calls if call.active()]

    def pause(self) -> None:
        """As SIGSTOP: no timer runs, and time goes on."""
        if self.paused:
            return
        self.paused = True
        self._held = sorted(
            ((call.getTime(), call) for call in self._calls if call.active()),
            key=lambda one: one[0],
        )
        for _, call in self._held:
            call.delay(_FAR_SECONDS)

    def resume(self) -> None:
        """As SIGCONT: what came due meanwhile runs at once, in the order of its times."""
        now, held = self._clock.seconds(), self._held
        self.paused, self._held = False, []
        if self._ended:
            return
        for place, (due_at, call) in enumerate(held):
            if call.active():
                call.reset(max(due_at - now, place * 1e-9))

    def end(self) -> None:
        """As when the process is killed: nothing of it runs any more."""
        self._ended = True
        self._held = []
        for call in self._calls:
            if call.active():
                _buried.append(getattr(call, "func", None))
                call.cancel()
        self._calls.clear()


class SimulatedThreads:
    """Blocking work, done a little later on the simulated clock; lanes keep their order."""

    def __init__(
        self, clock: IReactorTime, work_seconds: Callable[[], float] = lambda: WORK_SECONDS
    ) -> None:
        self._clock = clock
        self._work_seconds = work_seconds
        self._lanes: dict[str, _Lane] = {}
        self._hanging: list[tuple[Any, ...]] | None = None

    def run(self, work: Callable[..., T], *args: object) -> Deferred[T]:
        done: Deferred[T] = Deferred()
        self._clock.callLater(self._work_seconds(), self._do, done, work, args)
        return done

    def lane(self, name: str) -> Threads:
        return self._lanes.setdefault(name, _Lane(self))

    def hang(self) -> None:
        """As a disk that does not answer: work that is begun does not end, nor fail."""
        self._hanging = self._hanging or []

    def go_on(self) -> None:
        """What hung ends now."""
        hanging, self._hanging = self._hanging or [], None
        for one in hanging:
            self._do(*one)

    def _do(self, done: Deferred[T], work: Callable[..., T], args: tuple[object, ...]) -> None:
        if self._hanging is not None:
            self._hanging.append((done, work, args))
            return
        try:
            result = work(*args)
        except Exception:
            outcome: T | Failure = Failure()
        else:
            outcome = result
        if not done.called:  # cancelled: as with a real thread, the work was done all the same
            done.callback(outcome)


class _Lane:
    """One piece of work at a time."""

    def __init__(self, threads: SimulatedThreads) -> None:
        self._threads = threads
        self._queue: deque[Callable[[], Deferred[None]]] = deque()
        self._busy = False

    def run(self, work: Callable[..., T], *args: object) -> Deferred[T]:
        done: Deferred[T] = Deferred()

        def begin() -> Deferred[None]:
            running = self._threads.run(work, *args)
            return running.addBoth(lambda outcome: None if done.called else done.callback(outcome))

        self._queue.append(begin)
        self._next()
        return done

    def lane(self, name: str) -> Threads:
        return self._threads.lane(name)

    def _next(self) -> None:
        if self._busy or not self._queue:
            return
        self._busy = True
        self._queue.popleft()().addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._busy = False
        self._next()
