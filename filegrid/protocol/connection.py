"""One end of one connection: bytes in, events out; and what to send, as bytes.

A connection says HELLO in both directions, then carries calls, replies and cancellations, and on
the data plane the raw bytes of transfers. It knows the rules and the limits, and nothing of
sockets, clocks or services: :mod:`filegrid.net.link` drives it.

=============== ======================= =============================================
state           frame                   what it means
=============== ======================= =============================================
AWAITING_HELLO  hello                   judged; then OPEN, and :class:`HelloReceived`
AWAITING_HELLO  fault                   CLOSED, and :class:`PeerGaveUp`
OPEN            call                    :class:`CallReceived`, or answered "busy"
OPEN            reply                   :class:`ReplyReceived`
OPEN            cancel                  :class:`CancelReceived`
OPEN            data (data plane only)  :class:`DataReceived` for each piece
OPEN            fault                   CLOSED, and :class:`PeerGaveUp`
=============== ======================= =============================================

Every other pair is a :class:`~filegrid.errors.MalformedFrame`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from google.protobuf.descriptor import OneofDescriptor
from google.protobuf.message import Message

from filegrid.errors import (
    Busy,
    GridError,
    MalformedFrame,
    NotPermitted,
    UnsupportedVersion,
    WrongGrid,
    from_fault,
    to_fault,
)
from filegrid.model import Identity, Role
from filegrid.protocol.frames import FrameDecoder, Plane, embed, encode, encode_bytes, tag
from filegrid.protocol.wire import frame_pb2 as wire
from filegrid.protocol.wire.values_pb2 import Once

PROTOCOL_VERSION = 1

MOST_CALLS_IN_FLIGHT = 1024
"""Calls of one peer being worked on; the next is answered "busy", so a burst costs no memory."""

BUSY_SECONDS = 0.1
"""When a caller that was told "busy" should try again."""

_ROLES = {
    wire.ROLE_HEAD: Role.HEAD,
    wire.ROLE_CHUNK: Role.CHUNK,
    wire.ROLE_HEALTH: Role.HEALTH,
    wire.ROLE_CLIENT: Role.CLIENT,
    wire.ROLE_OPERATOR: Role.OPERATOR,
}
ROLE_ON_WIRE = {role: number for number, role in _ROLES.items()}


def _tags_by_type(oneof: OneofDescriptor) -> dict[str, bytes]:
    return {
        field.message_type.full_name: tag(field.number)
        for field in oneof.fields
        if field.message_type is not None
    }


_REQUEST_TAG = _tags_by_type(wire.Call.DESCRIPTOR.oneofs_by_name["request"])
_ANSWER_TAG = _tags_by_type(wire.Reply.DESCRIPTOR.oneofs_by_name["outcome"])
_CALL_TAG = tag(wire.Frame.CALL_FIELD_NUMBER)
_REPLY_TAG = tag(wire.Frame.REPLY_FIELD_NUMBER)


class HelloReceived(NamedTuple):
    hello: wire.Hello


class CallReceived(NamedTuple):
    call: wire.Call
    method: str
    request: Message


class ReplyReceived(NamedTuple):
    call_id: int
    outcome: Message | GridError


class CancelReceived(NamedTuple):
    call_id: int


class DataReceived(NamedTuple):
    """A piece of a transfer's bytes, or with `last` the end of it; `piece` may be empty."""

    call_id: int
    section: wire.Data.Section.ValueType
    piece: memoryview
    last: bool
    digest: bytes


class PeerGaveUp(NamedTuple):
    """The peer says why it closes the connection."""

    error: GridError


Event: TypeAlias = (
    HelloReceived | CallReceived | ReplyReceived | CancelReceived | DataReceived | PeerGaveUp
)

_NOTHING = memoryview(b"")


class _State(Enum):
    AWAITING_HELLO = "before the HELLO"
    OPEN = "open"
    CLOSED = "closed"


class Connection:
    """The protocol's state at one end.

    :param plane: which limits hold, and whether data frames are allowed.
    :param hello: what this end says of itself.
    :param peer: who the other end is by its certificate; its HELLO must say the same.
    """

    def __init__(self, plane: Plane, hello: wire.Hello, peer: Identity) -> None:
        self._plane = plane
        self._hello = hello
        self._peer = peer
        self._decoder = FrameDecoder(plane)
        self._state = _State.AWAITING_HELLO
        self._outgoing: list[bytes | memoryview] = []
        self._next_call_id = 1
        self._theirs: set[int] = set()
        self._transfer: wire.Data | None = None
        self._transfer_left = 0

    def bytes_to_send(self) -> list[bytes | memoryview]:
        """All that was queued since it was last asked for, in order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive(self, data: bytes) -> Iterator[Event]:
        """The events in `data`. Events before a broken frame come before the error.

        :raises GridError: when the connection must be closed; :meth:`fail` then tells the peer why.
        """
        for item in self._decoder.feed(data):
            if isinstance(item, memoryview):
                yield self._body(item)
                continue
            kind = item.WhichOneof("kind")
            react = _REACTIONS[self._state].get(kind or "")
            if react is None or (kind == "data" and self._plane is not Plane.DATA):
                raise MalformedFrame(f"a {kind} frame on a {self._plane.value} connection"
                                     f" {self._state.value}")  # fmt: skip
            if item.body_bytes and kind != "data":
                raise MalformedFrame(f"a {kind} frame with a body")
            event = react(self, item)
            if event is not None:
                yield event

    # What this end says.

    def say_hello(self) -> None:
        self._send(wire.Frame(hello=self._hello))

    def call(
        self, request: Message, *, timeout_ms: int, trace_id: int = 0, once: Once | None = None
    ) -> int:
        """Queue a request; returns the id that its reply will carry."""
        call_id = self._next_call_id
        self._next_call_id += 1
        call = wire.Call(id=call_id, timeout_ms=timeout_ms, trace_id=trace_id, once=once)
        self._send_in(_CALL_TAG, call, _REQUEST_TAG, request)
        return call_id

    def reply(self, call_id: int, outcome: Message | GridError) -> None:
        """Answer a call of the peer; nothing is sent where it was answered or cancelled before."""
        if call_id not in self._theirs:
            return
        self._theirs.remove(call_id)
        answer = to_fault(outcome) if isinstance(outcome, GridError) else outcome
        self._send_in(_REPLY_TAG, wire.Reply(call_id=call_id), _ANSWER_TAG, answer)

    def cancel(self, call_id: int) -> None:
        self._send(wire.Frame(cancel=wire.Cancel(call_id=call_id)))

    def data(
        self,
        call_id: int,
        body: bytes | memoryview | Sequence[memoryview] = b"",
        *,
        section: wire.Data.Section.ValueType = wire.Data.SECTION_CONTENT,
        last: bool = False,
        digest: bytes = b"",
    ) -> None:
        """Queue a piece of a transfer, or several as one frame.

        `body` is not copied and must not change before it is sent.
        """
        pieces = [body] if isinstance(body, (bytes, memoryview)) else body
        header = wire.Data(call_id=call_id, section=section, last=last, digest=digest)
        self._send(wire.Frame(data=header, body_bytes=sum(len(piece) for piece in pieces)))
        self._outgoing.extend(piece for piece in pieces if piece)

    def fail(self, error: GridError) -> None:
        """Queue the reason for which this end closes the connection."""
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSED
            self._send(wire.Frame(fault=to_fault(error)))

    def _send(self, frame: wire.Frame) -> None:
        self._outgoing.append(encode(frame))

    def _send_in(
        self, kind: bytes, envelope: Message, tags: dict[str, bytes], content: Message
    ) -> None:
        """Send a frame of this kind. The content is the last field of the envelope, and was never
        copied into it: a request may carry megabytes."""
        inner = embed(tags[content.DESCRIPTOR.full_name], content.SerializeToString())
        self._outgoing.append(encode_bytes(embed(kind, envelope.SerializeToString() + inner)))

    # What the other end says.

    def _on_hello(self, frame: wire.Frame) -> Event:
        hello = frame.hello
        if hello.protocol_version != PROTOCOL_VERSION:
            raise UnsupportedVersion(
                f"the peer speaks protocol version {hello.protocol_version}, this node version"
                f" {PROTOCOL_VERSION}",
                str(self._peer),
                advice="run the same release on both",
            )
        if hello.grid_id != self._hello.grid_id:
            raise WrongGrid(
                f"the peer belongs to grid {hello.grid_id or '?'}, this node to"
                f" {self._hello.grid_id}",
                str(self._peer),
            )
        if (_ROLES.get(hello.role), hello.name) != (self._peer.role, self._peer.name):
            raise NotPermitted(
                f"the HELLO says {hello.name!r}, the certificate another name or role",
                str(self._peer),
            )
        self._state = _State.OPEN
        return HelloReceived(hello)

    def _on_call(self, frame: wire.Frame) -> Event | None:
        call = frame.call
        method = call.WhichOneof("request")
        if call.id in self._theirs:
            raise MalformedFrame(f"call id {call.id} is in use")
        self._theirs.add(call.id)
        if len(self._theirs) > MOST_CALLS_IN_FLIGHT:
            busy = Busy(
                f"more than {MOST_CALLS_IN_FLIGHT} calls in flight on one connection",
                retry_after_seconds=BUSY_SECONDS,
            )
            self.reply(call.id, busy)
            return None
        if method is None:
            unknown = UnsupportedVersion("a request that this release does not know")
            self.reply(call.id, unknown)
            return None
        return CallReceived(call, method, getattr(call, method))

    def _on_reply(self, frame: wire.Frame) -> Event:
        reply = frame.reply
        which = reply.WhichOneof("outcome")
        outcome: Message | GridError
        if which is None:
            outcome = UnsupportedVersion("an answer that this release does not know")
        elif which == "fault":
            outcome = from_fault(reply.fault)
        else:
            outcome = getattr(reply, which)
        return ReplyReceived(reply.call_id, outcome)

    def _on_cancel(self, frame: wire.Frame) -> Event | None:
        call_id = frame.cancel.call_id
        if call_id not in self._theirs:
            return None  # it crossed our reply
        self._theirs.remove(call_id)
        return CancelReceived(call_id)

    def _on_data(self, frame: wire.Frame) -> Event | None:
        self._transfer, self._transfer_left = frame.data, frame.body_bytes
        return None if frame.body_bytes else self._body(_NOTHING)

    def _on_fault(self, frame: wire.Frame) -> Event:
        self._state = _State.CLOSED
        return PeerGaveUp(from_fault(frame.fault))

    def _body(self, piece: memoryview) -> DataReceived:
        transfer = self._transfer
        assert transfer is not None, "the decoder yields a body only after its header"
        self._transfer_left -= len(piece)
        last = transfer.last and not self._transfer_left
        return DataReceived(
            transfer.call_id, transfer.section, piece, last, transfer.digest if last else b""
        )


_Reaction: TypeAlias = Callable[[Connection, wire.Frame], Event | None]

_REACTIONS: dict[_State, dict[str, _Reaction]] = {
    _State.AWAITING_HELLO: {"hello": Connection._on_hello, "fault": Connection._on_fault},
    _State.OPEN: {
        "call": Connection._on_call,
        "reply": Connection._on_reply,
        "cancel": Connection._on_cancel,
        "data": Connection._on_data,
        "fault": Connection._on_fault,
    },
    _State.CLOSED: {},
}
