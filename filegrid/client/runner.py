"""Where blocking callers meet the reactor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, TypeVar

import crochet
from twisted.internet.defer import Deferred

from filegrid.errors import Unavailable

T = TypeVar("T")

Work: TypeAlias = Callable[[], Coroutine[Deferred[Any], Any, T]]

CANCEL_SECONDS = 5.0
"""What Ctrl-C waits for at most, so that a cancelled operation can leave nothing behind."""


_SILENT = logging.NullHandler()


class Runner(Protocol):
    """Runs coroutines on the reactor, for callers that are not on it."""

    def run(self, work: Work[T]) -> T:
        """The coroutine's result, or its error. An interrupted caller cancels it first."""

    def post(self, work: Work[None]) -> None:
        """Run it some time; nobody waits, and errors are not told."""


class ReactorThread:
    """The reactor in a thread of its own, which ends with the main thread."""

    def __init__(self) -> None:
        # Twisted's log goes to `logging`; who sets up nothing there shall not see it on stderr.
        logging.getLogger("twisted").addHandler(_SILENT)
        crochet.setup()

    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    def run(self, work: Work[T]) -> T:
        try:
            # Its annotations know neither Deferreds nor waiting without a limit.
            running: Any = crochet.run_in_reactor(lambda: Deferred.fromCoroutine(work()))()
            result: T = self._wait(running)
        except crochet.ReactorStopped:
            raise Unavailable("this process is ending") from None
        return result

    def _wait(self, running: Any) -> Any:
        try:
            return running.wait(None)
        except (KeyboardInterrupt, SystemExit):
            running.cancel()
            with suppress(Exception):
                running.wait(CANCEL_SECONDS)
            raise

    def post(self, work: Work[None]) -> None:
        async def quietly() -> None:
            with suppress(Exception):
                await work()

        self.reactor.callFromThread(lambda: Deferred.fromCoroutine(quietly()))
