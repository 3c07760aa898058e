"""Errors that nobody took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from filegrid.simulation.checkers.checker import Checker

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign


@implementer(ILogObserver)
class Quiet(Checker):
    """No node logs a failure of its own code, and no error is lost in a Deferred."""

    promise = "nothing is swallowed: no error is unexpected"

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self._failures: list[str] = []
        globalLogPublisher.addObserver(self)

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None and event.get("log_level") is LogLevel.critical:
            self._failures.append(f"{formatEvent(event)}\n{failure.getTraceback()}")

    def probe(self) -> None:
        if self._failures:
            raise self.broken(self._failures[0])

    async def finish(self) -> None:
        self.probe()

    def close(self) -> None:
        globalLogPublisher.removeObserver(self)
