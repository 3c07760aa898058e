"""Coroutines beside each other, and those that nobody awaits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from filegrid.errors import GridError

T = TypeVar("T")

_log = Logger()


async def gather(works: Iterable[Coroutine[Deferred[Any], Any, T]]) -> list[T]:
    """Run all at the same time; the first error cancels the others and is raised."""
    running = [Deferred.fromCoroutine(work) for work in works]
    try:
        return await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        for work in running:
            work.cancel()
        await DeferredList(running, consumeErrors=True)
        reason = error.subFailure.value
        assert reason is not None
        raise reason from error
    except CancelledError:
        for work in running:
            work.cancel()
        raise


def begun(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T] | None:
    """Run a coroutine up to where it first waits: what goes on from there, or None where it ended
    before. Most answers to calls do, and a Deferred would cost more than they.
    """
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return Deferred.fromCoroutine(_rest(work, awaited))


def _rest(
    work: Coroutine[Deferred[Any], Any, T], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, T]:
    while True:
        step: Callable[[], Deferred[Any]]
        try:
            step = partial(work.send, (yield awaited))
        except GeneratorExit:
            work.close()  # nobody waits for it any more
            raise
        except BaseException as error:
            step = partial(work.throw, error)
        try:
            awaited = step()
        except StopIteration as end:
            result: T = end.value
            return result


def shielded(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Run to the end what must not be left half done, also when nobody waits for it any more."""
    return claimed(Deferred.fromCoroutine(work), lambda _: None)


def claimed(opening: Deferred[T], release: Callable[[T], object]) -> Deferred[T]:
    """What a thread opens, or begins: released where nobody waits for it any more when it comes."""
    waiting: Deferred[T] = Deferred()

    def tell(outcome: T | Failure) -> None:
        if not waiting.called:
            waiting.callback(outcome)
        elif isinstance(outcome, Failure):
            _tell_of(outcome)
        else:
            release(outcome)

    opening.addBoth(tell)
    return waiting


def _tell_of(failure: Failure) -> None:
    """Nobody waited for it: a disk that failed is no surprise, anything else is a bug."""
    if failure.check(GridError):
        _log.warn("what nobody waited for failed: {error}", error=failure.value)
    else:
        _log.failure("what nobody waited for failed", failure=failure)


class Loop:
    """Something done again and again.

    A turn that fails is logged as the bug that it is, and the next one comes all the same: a leader
    that looks after nothing any more would be worse.

    :param what: for the log.
    """

    def __init__(
        self, clock: IReactorTime, turn: Callable[[], object], *, seconds: float, what: str
    ) -> None:
        self._turn = turn
        self._seconds = seconds
        self._what = what
        self._loop = LoopingCall(self._turn_once)
        self._loop.clock = clock

    def start(self) -> None:
        """The first turn is now."""
        self._loop.start(self._seconds)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def _turn_once(self) -> None:
        try:
            self._turn()
        except Exception:
            _log.failure("{what} failed", what=self._what)


class Tasks:
    """Work that goes on by itself: it is kept here until it ends, and its failure is logged."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._running: dict[Deferred[None], None] = {}  # in order: every run is alike

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        task = Deferred.fromCoroutine(work)
        if task.called and not isinstance(task.result, Failure):
            return
        self._running[task] = None
        task.addErrback(self._failed)
        task.addBoth(lambda _: self._running.pop(task, None))

    async def finish(self) -> None:
        """Return once all that runs has ended by itself."""
        await DeferredList(list(self._running))

    async def stop(self) -> None:
        """Cancel what runs, and return once it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await DeferredList(running)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("{what} failed", failure=failure, what=self._what)
