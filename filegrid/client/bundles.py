"""Changes that are asked for in one turn travel as one call.

One call costs the head and us several times what one more change in it does; and changes that come
to the head together become one group of its log: one sync, and one transaction, for all of them at
every head. Each keeps its own identity and its own answer (S10): only the way is shared. Where that
fails each goes on by itself, as if it had travelled alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from filegrid.errors import from_fault
from filegrid.net.link import Link
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire import values_pb2 as wire
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Runtime

MOST_TOGETHER = 16
"""More saves little, and all who share a call wait for its last change: then head and client take
turns instead of working side by side."""

MOST_CHANGE_BYTES = 4096
"""A longer one travels alone: a call stays far below the limit of a frame."""

_FIELDS = {
    wire.Publish: "publish",
    wire.Rename: "rename",
    wire.Remove: "remove",
    wire.MakeFolder: "make_folder",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    request: Message
    once: wire.Once
    timeout_seconds: float
    answer: Deferred[Message]


class Bundles:
    """Of one client."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiting: dict[Link, list[_Change]] = {}
        self._tasks = Tasks("sending changes")

    def takes(self, request: Message) -> bool:
        return type(request) in _FIELDS and request.ByteSize() <= MOST_CHANGE_BYTES

    def call(
        self, link: Link, request: Message, once: wire.Once, timeout_seconds: float
    ) -> Deferred[Message]:
        """As :meth:`Link.call`, with whatever else is asked for in this turn."""
        answer: Deferred[Message] = Deferred(lambda _: None)
        waiting = self._waiting.get(link)
        if waiting is None:
            waiting = self._waiting[link] = []
            self._runtime.clock.callLater(0, self._send, link)
        waiting.append(_Change(request, once, timeout_seconds, answer))
        return answer

    async def close(self) -> None:
        await self._tasks.stop()

    def _send(self, link: Link) -> None:
        waiting = [one for one in self._waiting.pop(link) if not one.answer.called]
        for start in range(0, len(waiting), MOST_TOGETHER):
            part = waiting[start : start + MOST_TOGETHER]
            self._tasks.begin(self._ask(link, part) if len(part) > 1 else _alone(link, *part))

    async def _ask(self, link: Link, part: Sequence[_Change]) -> None:
        try:
            request = head_pb2.ChangeMany()
            for one in part:
                added = request.changes.add(once=one.once)
                getattr(added, _FIELDS[type(one.request)]).CopyFrom(one.request)
            timeout_seconds = min(one.timeout_seconds for one in part)
            answer = await link.call(request, head_pb2.Changed, timeout_seconds=timeout_seconds)
            assert len(answer.outcomes) == len(part), (len(answer.outcomes), len(part))
        except BaseException:
            _fail(part, Failure())
            return
        for one, outcome in zip(part, answer.outcomes, strict=True):
            if one.answer.called:
                continue  # whoever asked has gone; the change may be made all the same
            if outcome.HasField("fault"):
                one.answer.errback(from_fault(outcome.fault))
            else:
                one.answer.callback(outcome.node if outcome.HasField("node") else Done())


async def _alone(link: Link, one: _Change) -> None:
    try:
        exchange = link.open(one.request, timeout_seconds=one.timeout_seconds, once=one.once)
        answer = await exchange.answer
    except BaseException:
        _fail([one], Failure())
        return
    if not one.answer.called:
        one.answer.callback(answer)


def _fail(part: Sequence[_Change], failure: Failure) -> None:
    for one in part:
        if not one.answer.called:
            one.answer.errback(failure)
