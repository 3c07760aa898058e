"""The real runtime: Twisted's reactor, threads, TLS over TCP and the machine's disks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from filegrid.errors import Unavailable
from filegrid.net.credentials import Credentials
from filegrid.net.lending import DescriptorLending
from filegrid.net.tls import TlsNetwork
from filegrid.runtime import Runtime, Threads

T = TypeVar("T")


def boot_seconds() -> float:
    """Seconds since the machine started, its sleep included; no wall clock moves them (S5)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@implementer(IReactorTime)
class BootClock:
    """The reactor's timers, and time that neither leaps nor stands still while asleep (S5)."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        return boot_seconds()

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        return list(self._reactor.getDelayedCalls())


class ReactorThreads:
    """:class:`filegrid.runtime.Threads`: a pool, and a single thread for every lane.

    Used from the reactor's thread only. Threads are made as they are needed.

    :param most: the pool's threads; calls above that number wait.
    """

    def __init__(self, reactor: Any, most: int) -> None:
        self._reactor = reactor
        self._stopped = False
        self._pool = _pool(most, "filegrid")
        self._lanes: dict[str, _Lane] = {}

    def run(self, work: Callable[..., T], *args: object) -> Deferred[T]:
        return self._run_in(self._pool, work, *args)

    def lane(self, name: str) -> Threads:
        """The lane of this name; the same one at every call."""
        if name not in self._lanes:
            self._lanes[name] = _Lane(self, name)
        return self._lanes[name]

    def stop(self) -> None:
        """Wait for the work that was begun or queued, and let all threads end."""
        if self._stopped:
            return
        self._stopped = True
        for lane in self._lanes.values():
            lane.pool.stop()
        self._pool.stop()

    def _run_in(self, pool: ThreadPool, work: Callable[..., T], *args: object) -> Deferred[T]:
        if self._stopped:  # the pool would drop it without a word
            return fail(Unavailable("this node is stopping"))
        done: Deferred[T] = deferToThreadPool(self._reactor, pool, work, *args)
        return done


class _Lane:
    def __init__(self, threads: ReactorThreads, name: str) -> None:
        self.pool = _pool(1, f"filegrid {name}")
        self._threads = threads

    def run(self, work: Callable[..., T], *args: object) -> Deferred[T]:
        return self._threads._run_in(self.pool, work, *args)

    def lane(self, name: str) -> Threads:
        return self._threads.lane(name)


def _pool(most: int, name: str) -> ThreadPool:
    pool = ThreadPool(minthreads=0, maxthreads=most, name=name)
    pool.start()
    return pool


def make_runtime(reactor: Any, credentials: Credentials, threads: int = 8) -> Runtime:
    """The world as it is. The threads end with the reactor.

    A reactor that nobody uses yet is put on boot time altogether: on the wall clock, as Twisted
    has it, a step of that clock would fire all timers at once, or none for hours.
    """
    from filegrid.disk import RealDisk

    idle = isinstance(reactor, ReactorBase) and not reactor.running
    if idle and not reactor.getDelayedCalls():
        reactor.seconds = boot_seconds
    pool = ReactorThreads(reactor, threads)
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    clock = BootClock(reactor)
    return Runtime(
        clock=clock,
        network=TlsNetwork(reactor, credentials, clock),
        disk=RealDisk(),
        threads=pool,
        random=random.Random(random.SystemRandom().getrandbits(128)),
        wall_seconds=time.time,
        lending=DescriptorLending(reactor),
    )
