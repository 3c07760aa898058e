"""Work in flight: a bounded number of coroutines at a time."""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class Window:
    """Runs coroutines, at most `limit` at a time; the first error ends them all.

    As an asynchronous context manager it waits for all that was begun, and cancels it where the
    body fails: nothing runs on behind the caller's back.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: dict[Deferred[None], None] = {}  # in order: every run is alike
        self._error: BaseException | None = None
        self._waiting: list[Deferred[None]] = []

    async def add(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Begin `work` as soon as there is room for it.

        :raises Exception: the first error of what was begun before.
        """
        try:
            while self._error is None and len(self._running) >= self._limit:
                await self._change()
            if self._error is not None:
                raise self._error
        except BaseException:
            work.close()
            raise
        task = Deferred.fromCoroutine(work)
        self._running[task] = None
        task.addBoth(self._ended, task)

    async def join(self) -> None:
        """Return once all that was begun has ended.

        :raises Exception: its first error.
        """
        while self._running:
            await self._change()
        if self._error is not None:
            raise self._error

    async def cancel(self) -> None:
        """Cancel what runs, and return once it has ended."""
        self._cancel_running()
        while self._running:
            await self._change()

    async def __aenter__(self) -> Window:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                await self.join()
            except Exception:
                await self.cancel()
                raise
        elif isinstance(error, Exception):  # not where the coroutine is only being forgotten
            await self.cancel()

    def _ended(self, result: Failure | None, task: Deferred[None]) -> None:
        self._running.pop(task, None)
        if isinstance(result, Failure) and self._error is None:
            self._error = result.value
            self._cancel_running()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def _cancel_running(self) -> None:
        for task in list(self._running):
            task.cancel()

    async def _change(self) -> None:
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        await waiter
