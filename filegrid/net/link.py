"""A live connection between two nodes: calls in both directions, and transfers.

The protocol's rules are :mod:`filegrid.protocol.connection`'s; here are the transport, the clock
and the coroutines that answer calls.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from filegrid.errors import (
    Cancelled,
    DeadlineExceeded,
    GridError,
    InternalError,
    MalformedFrame,
    NotPermitted,
    Unavailable,
)
from filegrid.model import Identity, Role
from filegrid.net.flow import Gate
from filegrid.net.tasks import begun
from filegrid.protocol.connection import (
    CallReceived,
    CancelReceived,
    Connection,
    DataReceived,
    Event,
    HelloReceived,
    PeerGaveUp,
    ReplyReceived,
)
from filegrid.protocol.frames import Plane
from filegrid.protocol.wire import frame_pb2 as wire
from filegrid.protocol.wire.values_pb2 import Once
from filegrid.runtime import Transport

HELLO_SECONDS = 10.0
"""A peer that has proved who it is has this long to say HELLO."""

CLOSE_SECONDS = 5.0
"""A clean close needs the peer's word; without it the connection is dropped after so long."""

STALL_SECONDS = 30.0
"""A peer that reads nothing of a transfer for so long is dropped."""

Answer = TypeVar("Answer", bound=Message)

_log = Logger()


class Sink(Protocol):
    """Takes the bytes of one transfer as they come."""

    def data_received(self, data: DataReceived) -> None: ...

    def data_lost(self, error: GridError) -> None:
        """The transfer ends before its last frame."""


class Caller(NamedTuple):
    """Who calls, over which link, and the envelope of the call."""

    link: Link
    peer: Identity
    call: wire.Call

    def receive_into(self, sink: Sink) -> None:
        """Direct the call's data frames; to be said before the handler first awaits anything."""
        self.link.receive_into(self.call.id, sink)

    def attach(self, pieces: Sequence[memoryview]) -> None:
        """Send these bytes together with the answer, which is to follow at once."""
        self.link.attach(self.call.id, pieces)

    async def send(
        self,
        body: bytes | memoryview,
        section: wire.Data.Section.ValueType = wire.Data.SECTION_CONTENT,
    ) -> None:
        """Send a piece of the transfer back, then wait until the transport takes more."""
        self.link.send_data(self.call.id, body, section=section)
        await self.link.drained()


Handler: TypeAlias = Callable[[Caller, Message], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    """What answers a request, and for whom."""

    roles: frozenset[Role]
    handle: Handler


class Service(Protocol):
    """What a node answers on its links."""

    @property
    def methods(self) -> Mapping[str, Method]:
        """By the name of the request's field in :class:`Call`."""

    def link_up(self, link: Link) -> None:
        """The HELLOs are exchanged.

        :raises GridError: to refuse the link.
        """

    def link_down(self, link: Link, error: GridError) -> None:
        """A link that was up is gone."""


class NoService:
    """What a pure caller answers: nothing."""

    methods: Mapping[str, Method] = {}

    def link_up(self, link: Link) -> None:
        pass

    def link_down(self, link: Link, error: GridError) -> None:
        pass


class Exchange:
    """One call of ours that is under way.

    :ivar answer: fires with the peer's answer or the error, at the latest after the timeout; on a
        transfer the timeout is of silence: every piece that moves puts it off.
    :ivar deadline_at: when the link ends it.
    """

    __slots__ = ("_link", "answer", "call_id", "deadline_at", "sink", "timeout_seconds")

    def __init__(self, link: Link, call_id: int, timeout_seconds: float, sink: Sink | None) -> None:
        self._link = link
        self.timeout_seconds = timeout_seconds
        self.deadline_at = link.clock.seconds() + timeout_seconds
        self.call_id = call_id
        self.sink = sink
        self.answer: Deferred[Message] = Deferred(self._cancelled)

    async def send(
        self,
        body: bytes | memoryview = b"",
        *,
        section: wire.Data.Section.ValueType = wire.Data.SECTION_CONTENT,
        last: bool = False,
        digest: bytes = b"",
    ) -> None:
        """Send a piece of the transfer, then wait until the transport takes more."""
        self.write(body, section=section, last=last, digest=digest)
        await self._link.drained()
        self.touch()

    def write(
        self,
        body: bytes | memoryview | Sequence[memoryview] = b"",
        *,
        section: wire.Data.Section.ValueType = wire.Data.SECTION_CONTENT,
        last: bool = False,
        digest: bytes = b"",
    ) -> None:
        """Send a piece without waiting; the caller minds the transport's flow."""
        self._link.send_data(self.call_id, body, section=section, last=last, digest=digest)
        self.touch()

    def touch(self) -> None:
        self.deadline_at = self._link.clock.seconds() + self.timeout_seconds

    def finish(self, outcome: Message | GridError) -> None:
        if self.answer.called:
            return
        if isinstance(outcome, GridError):
            if self.sink is not None:
                self.sink.data_lost(outcome)
            self.answer.errback(Failure(outcome))
        else:
            self.answer.callback(outcome)

    def _cancelled(self, answer: Deferred[Message]) -> None:
        self._link.forget(self)
        self.finish(Cancelled("the caller took the request back", str(self._link.peer)))


class Link(TwistedProtocol):
    """A connection as both ends use it, from its first byte to its last.

    :param hello: what this end says of itself; asked for when the connection is made.
    :param peer: who the other end is, by its certificate.
    :param service: what answers the peer's calls.
    :ivar up: fires with the peer's HELLO, or with the reason why it never came.
    :ivar gate: closed while the transport's buffer is full.
    """

    transport: Transport | None  # type: ignore[assignment]  # what our networks give is more

    def __init__(
        self,
        plane: Plane,
        *,
        clock: IReactorTime,
        hello: wire.Hello,
        peer: Identity,
        service: Service,
    ) -> None:
        self.clock = clock
        self.peer = peer
        self.peer_hello: wire.Hello | None = None
        self.up: Deferred[wire.Hello] = Deferred()
        self.gate = Gate()
        self._service = service
        self._protocol = Connection(plane, hello, peer)
        self._exchanges: dict[int, Exchange] = {}
        self._handling: dict[int, Deferred[None]] = {}
        self._sinks: dict[int, Sink] = {}
        self._flush: IDelayedCall | None = None
        self._receiving = False
        self._deadline_timer: IDelayedCall | None = None
        self._deadlines_at = math.inf  # when it goes off
        self._hello_timer: IDelayedCall | None = None
        self._abort_timer: IDelayedCall | None = None
        self._closing: GridError | None = None

    @property
    def alive(self) -> bool:
        """Whether calls can still be made on it."""
        return self._closing is None

    @property
    def is_local(self) -> bool:
        """Whether the peer is on this machine: a connection to oneself has one address twice."""
        ends: Any = self.transport  # of Twisted's kind, or of the simulator's, which has no ends
        try:
            return bool(ends.getHost().host == ends.getPeer().host)
        except AttributeError:
            return False

    # Calls of ours.

    def open(
        self,
        request: Message,
        *,
        timeout_seconds: float,
        once: Once | None = None,
        trace_id: int = 0,
        sink: Sink | None = None,
    ) -> Exchange:
        """Begin a call; what it transfers goes through the exchange and the sink.

        :raises Unavailable: where the link is down.
        """
        if self._closing is not None:
            raise self._closing
        call_id = self._protocol.call(
            request, timeout_ms=round(timeout_seconds * 1000), once=once, trace_id=trace_id
        )
        exchange = self._exchanges[call_id] = Exchange(self, call_id, timeout_seconds, sink)
        if exchange.deadline_at < self._deadlines_at:
            self._watch(exchange.deadline_at)
        self._flush_soon()
        return exchange

    async def call(
        self,
        request: Message,
        answer: type[Answer],
        *,
        timeout_seconds: float,
        once: Once | None = None,
        trace_id: int = 0,
    ) -> Answer:
        """Ask the peer, and return its answer.

        :raises DeadlineExceeded: when none comes in time.
        :raises Unavailable: when the link is lost first.
        :raises GridError: what the peer answered.
        """
        exchange = self.open(request, timeout_seconds=timeout_seconds, once=once, trace_id=trace_id)
        return expect(answer, await exchange.answer, self.peer)

    def send_data(
        self,
        call_id: int,
        body: bytes | memoryview | Sequence[memoryview] = b"",
        *,
        section: wire.Data.Section.ValueType = wire.Data.SECTION_CONTENT,
        last: bool = False,
        digest: bytes = b"",
    ) -> None:
        self._protocol.data(call_id, body, section=section, last=last, digest=digest)
        self._flush_now()

    def attach(self, call_id: int, pieces: Sequence[memoryview]) -> None:
        if self._closing is None:
            self._protocol.data(call_id, pieces)
            self._flush_soon()

    async def drained(self) -> None:
        """Return once the transport takes more; a peer that reads nothing for long is dropped.

        :raises GridError: where the link is lost first.
        """
        if not self.gate.closed:
            return
        stalled = DeadlineExceeded(f"nothing was read for {STALL_SECONDS:g} s", str(self.peer))
        timer = self.clock.callLater(STALL_SECONDS, self.abort, stalled)
        try:
            await self.gate.passable()
        finally:
            if timer.active():
                timer.cancel()

    def receive_into(self, call_id: int, sink: Sink) -> None:
        self._sinks[call_id] = sink

    def forget(self, exchange: Exchange) -> None:
        """The caller waits no more: tell the peer, and drop what still comes."""
        if self._exchanges.pop(exchange.call_id, None) is not None and self._closing is None:
            self._protocol.cancel(exchange.call_id)
            self._flush_soon()

    def carry(self, producer: IPushProducer | None) -> None:
        """Let `producer`, instead of the link's own gate, feel the transport's flow; None: back."""
        assert self.transport is not None
        self.transport.unregisterProducer()
        self.gate.resumeProducing()  # whoever carries the flow from now on is told of it anew
        self.transport.registerProducer(producer if producer is not None else self.gate, True)

    def close(self, error: GridError | None = None) -> None:
        """Close the connection, telling the peer why where there is something to tell."""
        if self._closing is None:
            if error is not None:
                self._protocol.fail(error)
            self._flush_now()
            self._end(error or Unavailable("the connection was closed", str(self.peer)))
        if self.transport is not None:
            # A producer keeps Twisted's transports from closing; the gate has said its last.
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            if self._abort_timer is None:
                self._abort_timer = self.clock.callLater(CLOSE_SECONDS, self._abort_close)

    def abort(self, error: GridError) -> None:
        """Drop the connection at once; for a peer that does not read either."""
        self._end(error)
        if self.transport is not None:
            self.transport.abortConnection()

    def _abort_close(self) -> None:
        self._abort_timer = None
        if self.transport is not None:
            self.transport.abortConnection()

    # What Twisted calls.

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.registerProducer(self.gate, True)
        self._hello_timer = self.clock.callLater(
            HELLO_SECONDS, self.close, DeadlineExceeded("no HELLO came in time", str(self.peer))
        )
        self._protocol.say_hello()
        self._flush_now()

    def dataReceived(self, data: bytes) -> None:  # or a memoryview
        if self._closing is not None:
            return
        self._receiving = True  # what is answered meanwhile leaves in one write
        try:
            for event in self._protocol.receive(data):
                _EVENTS[type(event)](self, event)
                if self._closing is not None:
                    return
        except GridError as error:
            _log.warn("{peer} is cut off: {error}", peer=self.peer, error=error)
            self.close(error)
            return
        finally:
            self._receiving = False
        self._flush_now()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
        if isinstance(reason.value, GridError):
            self._end(reason.value)
            return
        why = reason.getErrorMessage()
        self._end(Unavailable(f"the connection was lost ({why})", str(self.peer)))

    # Events.

    def _on_hello(self, event: HelloReceived) -> None:
        self.peer_hello = event.hello
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None
        self._service.link_up(self)
        self.up.callback(event.hello)

    def _on_call(self, event: CallReceived) -> None:
        work = begun(self._answer(event))
        if work is not None and not work.called:
            self._handling[event.call.id] = work
            work.addBoth(self._handled, event.call.id)

    def _handled(self, _: object, call_id: int) -> None:
        self._handling.pop(call_id, None)

    async def _answer(self, event: CallReceived) -> None:
        outcome: Message | GridError
        try:
            method = self._service.methods.get(event.method)
            if method is None or self.peer.role not in method.roles:
                raise NotPermitted(
                    f"the certificate of {self.peer} does not open {event.method}",
                    advice="use one whose role does",
                )
            outcome = await method.handle(Caller(self, self.peer, event.call), event.request)
        except GridError as error:
            outcome = error
        except CancelledError:
            outcome = Cancelled("the call was cancelled", str(self.peer))
        except Exception:
            _log.failure("{method} of {peer} failed", method=event.method, peer=self.peer)
            outcome = InternalError(f"{event.method} failed", advice="the node's log tells why")
        self._sinks.pop(event.call.id, None)
        if self._closing is None:
            self._protocol.reply(event.call.id, outcome)
            self._flush_soon()

    def _on_reply(self, event: ReplyReceived) -> None:
        exchange = self._exchanges.pop(event.call_id, None)
        if exchange is not None:
            exchange.finish(event.outcome)

    def _on_cancel(self, event: CancelReceived) -> None:
        self._lose_sink(event.call_id, Cancelled("the caller took the request back"))
        work = self._handling.get(event.call_id)
        if work is not None:
            work.cancel()

    def _on_data(self, event: DataReceived) -> None:
        exchange = self._exchanges.get(event.call_id)
        if exchange is not None and exchange.sink is not None:
            exchange.touch()
            exchange.sink.data_received(event)
            return
        sink = self._sinks.get(event.call_id)
        if sink is not None:
            sink.data_received(event)
        # Otherwise the transfer was cancelled or has failed, and its last pieces crossed the news.

    def _on_give_up(self, event: PeerGaveUp) -> None:
        self._end(event.error)
        self.close()

    # The rest.

    def _watch(self, deadline_at: float) -> None:
        """One timer serves all calls: most are answered long before it goes off."""
        self._deadlines_at = deadline_at
        left = max(0.0, deadline_at - self.clock.seconds())
        if self._deadline_timer is not None:
            self._deadline_timer.reset(left)
        else:
            self._deadline_timer = self.clock.callLater(left, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        self._deadline_timer, self._deadlines_at = None, math.inf
        now = self.clock.seconds()
        for exchange in list(self._exchanges.values()):
            if exchange.deadline_at <= now:
                self.forget(exchange)
                late = f"no answer in {exchange.timeout_seconds:g} s"
                exchange.finish(DeadlineExceeded(late, str(self.peer)))
        first_at = min((one.deadline_at for one in self._exchanges.values()), default=math.inf)
        if first_at < self._deadlines_at:
            self._watch(first_at)

    def _lose_sink(self, call_id: int, error: GridError) -> None:
        sink = self._sinks.pop(call_id, None)
        if sink is not None:
            sink.data_lost(error)

    def _flush_soon(self) -> None:
        """Small frames of one turn of the reactor leave in one write."""
        if self._flush is None and not self._receiving and self.transport is not None:
            self._flush = self.clock.callLater(0, self._flush_now)

    def _flush_now(self) -> None:
        if self._flush is not None:
            if self._flush.active():
                self._flush.cancel()
            self._flush = None
        pieces = self._protocol.bytes_to_send()
        if not pieces or self.transport is None:
            return
        self.transport.writeSequence(_joined(pieces))

    def _end(self, error: GridError) -> None:
        """Whatever waits on this link fails with the reason; said once."""
        if self._closing is not None:
            return
        self._closing = error
        for timer in (self._flush, self._hello_timer, self._deadline_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._flush = self._hello_timer = self._deadline_timer = None
        self.gate.fail(error)
        exchanges, self._exchanges = self._exchanges, {}
        for exchange in exchanges.values():
            exchange.finish(error)
        for call_id in list(self._sinks):
            self._lose_sink(call_id, error)
        for work in list(self._handling.values()):
            work.cancel()
        if self.up.called:
            self._service.link_down(self, error)
        else:
            self.up.errback(Failure(error))


_JOIN_BYTES = 4096
"""Copying less than this into one write is cheaper than a TLS record of its own."""


def _joined(pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """The same bytes, small pieces together; bodies go out uncopied."""
    joined: list[bytes | memoryview] = []
    small: list[bytes | memoryview] = []
    for piece in pieces:
        if len(piece) < _JOIN_BYTES:
            small.append(piece)
            continue
        if small:
            joined.append(b"".join(small))
            small = []
        joined.append(piece)
    if small:
        joined.append(b"".join(small))
    return joined


_EVENTS: dict[type[Event], Callable[[Link, Any], None]] = {
    HelloReceived: Link._on_hello,
    CallReceived: Link._on_call,
    ReplyReceived: Link._on_reply,
    CancelReceived: Link._on_cancel,
    DataReceived: Link._on_data,
    PeerGaveUp: Link._on_give_up,
}


def expect(kind: type[Answer], message: Message, peer: object) -> Answer:
    """The answer as the type that the request calls for.

    :raises MalformedFrame: where the peer answered something else.
    """
    if not isinstance(message, kind):
        raise MalformedFrame(
            f"answered {type(message).__name__} where {kind.__name__} was due", str(peer)
        )
    return message
