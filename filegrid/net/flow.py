"""Push producers for coroutines and for pipelines: who waits for whom."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from filegrid.errors import GridError
from filegrid.runtime import Transport


@implementer(IPushProducer)
class Gate:
    """A producer that a coroutine can wait at.

    :ivar closed: true while the consumer's buffer is full.
    """

    def __init__(self) -> None:
        self.closed = False
        self._error: GridError | None = None
        self._waiting: list[Deferred[None]] = []

    def pauseProducing(self) -> None:
        self.closed = True

    def resumeProducing(self) -> None:
        self.closed = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def stopProducing(self) -> None:
        """The consumer is gone; whoever owns the gate says why with :meth:`fail`."""

    def fail(self, error: GridError) -> None:
        """Wake whoever waits, now and later, with this error."""
        self._error = error
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(error)

    async def passable(self) -> None:
        """Return once the gate is open.

        :raises GridError: the one that :meth:`fail` was given.
        """
        if self._error is not None:
            raise self._error
        if self.closed:
            waiter: Deferred[None] = Deferred(self._forget)
            self._waiting.append(waiter)
            await waiter

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiting.remove(waiter)


class Brake:
    """Pauses one producer while any of several consumers asks for it."""

    def __init__(self, producer: Transport) -> None:
        self._producer = producer
        self._held: dict[int, object] = {}  # by identity

    @property
    def held(self) -> bool:
        return bool(self._held)

    def hold(self, who: object) -> None:
        if not self._held:
            self._producer.pauseProducing()
        self._held[id(who)] = who

    def release(self, who: object) -> None:
        if self._held.pop(id(who), None) is not None and not self._held:
            self._producer.resumeProducing()

    def release_all(self) -> None:
        for who in list(self._held.values()):
            self.release(who)


@implementer(IPushProducer)
class Lever:
    """What one consumer sees of a :class:`Brake`: it pulls on behalf of itself only."""

    def __init__(self, brake: Brake) -> None:
        self._brake = brake

    def pauseProducing(self) -> None:
        self._brake.hold(self)

    def resumeProducing(self) -> None:
        self._brake.release(self)

    def stopProducing(self) -> None:
        self._brake.release(self)
