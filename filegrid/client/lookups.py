"""Looking at many paths with one question: what is asked in one turn travels together.

One call costs the head and us several times what one more path in it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from filegrid.client.session import Session
from filegrid.errors import from_fault
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import head_pb2 as wire
from filegrid.protocol.wire.values_pb2 import Node

MOST_TOGETHER = 64
"""The head looks at all of them in one turn, in which it does nothing else."""

_Waiting: TypeAlias = tuple[str, Deferred[Node]]


class Lookups:
    """Of one client. Nobody waits longer for company: one that is alone in its turn goes alone."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: list[_Waiting] = []
        self._tasks = Tasks("looking at paths")

    def find(self, path: str) -> Deferred[Node]:
        """What has this path; fails as :meth:`Session.call` does, and with the head's answer."""
        found: Deferred[Node] = Deferred(lambda _: None)
        if not self._waiting:
            self._session.runtime.clock.callLater(0, self._send)
        self._waiting.append((path, found))
        return found

    async def close(self) -> None:
        await self._tasks.stop()

    def _send(self) -> None:
        waiting = [one for one in self._waiting if not one[1].called]
        self._waiting = []
        for start in range(0, len(waiting), MOST_TOGETHER):
            part = waiting[start : start + MOST_TOGETHER]
            ask = partial(self._ask_one, *part[0]) if len(part) == 1 else partial(self._ask, part)
            self._tasks.begin(ask())

    async def _ask_one(self, path: str, found: Deferred[Node]) -> None:
        try:
            node = await self._session.call(wire.Stat(path=path), Node)
        except BaseException:
            _fail([(path, found)], Failure())
            return
        if not found.called:
            found.callback(node)

    async def _ask(self, part: Sequence[_Waiting]) -> None:
        try:
            request = wire.StatMany(paths=[path for path, _ in part])
            answer = await self._session.call(request, wire.Stats)
            assert len(answer.found) == len(part), (len(answer.found), len(part))
        except BaseException:
            _fail(part, Failure())
            return
        for (_, found), one in zip(part, answer.found, strict=True):
            if found.called:
                continue  # whoever asked has gone
            if one.HasField("fault"):
                found.errback(from_fault(one.fault))
            else:
                found.callback(one.node)


def _fail(part: Sequence[_Waiting], failure: Failure) -> None:
    for _, found in part:
        if not found.called:
            found.errback(failure)
