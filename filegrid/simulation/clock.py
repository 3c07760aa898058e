"""The clock of a simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

_FEW = 256
"""Cancelled calls that are not worth looking for, however few others there are."""


@implementer(IReactorTime)
class SimulatedClock:
    """As Twisted's own for tests, which sorts all calls at each event, for thousands of events.

    Calls run in the order of their times, those of the same time in the order in which they came.
    A call that is put off stays where it is until its old time comes; one that is brought forward
    has a second entry; a cancelled one is dropped when its time comes, or they are half of all.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._entries: list[tuple[float, int, DelayedCall]] = []  # a heap
        self._number = 0
        self._cancelled = 0

    def seconds(self) -> float:
        return self._now

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        assert delay >= 0, delay
        at = self._now + delay
        call = DelayedCall(at, callable, args, kw, self._drop, self._push, self.seconds)
        self._push(call)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        return [*{call: None for _, _, call in self._entries if call.active()}]

    @property
    def next_at(self) -> float:
        """When the next call is due; infinity where there is none."""
        entries = self._entries
        while entries:
            at, number, call = entries[0]
            if call.called or call.cancelled:
                heappop(entries)
            elif call.getTime() > at:
                call.activate_delay()  # or it would not say so when it is brought forward again
                heapreplace(entries, (call.getTime(), number, call))
            else:
                return at
        return math.inf

    def advance(self, amount: float) -> None:
        """Let time pass, and run what becomes due, also what is begun meanwhile."""
        self.advance_to(self._now + amount)

    def advance_to(self, at: float) -> None:
        """As :meth:`advance`, to a time; never backwards."""
        self._now = max(self._now, at)
        while self.next_at <= self._now:
            _, _, call = heappop(self._entries)
            call.called = 1
            call.func(*call.args, **call.kw)

    def _push(self, call: DelayedCall) -> None:
        self._number += 1
        heappush(self._entries, (call.getTime(), self._number, call))

    def _drop(self, call: DelayedCall) -> None:
        self._cancelled += 1
        if self._cancelled > _FEW and self._cancelled * 2 > len(self._entries):
            self._cancelled = 0
            self._entries = [one for one in self._entries if one[2].active()]
            heapify(self._entries)
