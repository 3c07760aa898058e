"""The floor of calls: length-prefixed protobuf echoed over mutual TLS, and nothing else.

One reactor echoes, one asks, many calls in flight. Both ends parse and serialise every message;
what came in one read is answered in one write. No deadlines, no dispatch, no log, no state.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from filegrid.protocol.wire import frame_pb2, head_pb2
from filegrid.runtime import Transport

_LENGTH = struct.Struct(">I")


class _Framed(Protocol):
    transport: Transport  # type: ignore[assignment]

    def __init__(self) -> None:
        self._partial = b""

    def dataReceived(self, data: bytes) -> None:
        data, at = self._partial + bytes(data), 0
        replies = []
        while len(data) - at >= _LENGTH.size:
            end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
            if end > len(data):
                break
            frame = frame_pb2.Frame.FromString(data[at + _LENGTH.size : end])
            answer = self.received(frame)
            if answer is not None:
                body = answer.SerializeToString()
                replies += [_LENGTH.pack(len(body)), body]
            at = end
        self._partial = data[at:]
        if replies:
            self.transport.write(b"".join(replies))

    def received(self, frame: frame_pb2.Frame) -> frame_pb2.Frame | None:
        raise NotImplementedError


class Echo(_Framed):
    def received(self, frame: frame_pb2.Frame) -> frame_pb2.Frame:
        return frame


class Asker(_Framed):
    """Asks `count` times, `in_flight` at once; `done` fires with the seconds that it took."""

    def __init__(self, in_flight: int, count: int) -> None:
        super().__init__()
        self.done: Deferred[float] = Deferred()
        self._in_flight = in_flight
        self._left = count - in_flight
        self._answered = 0
        self._count = count

    def connectionMade(self) -> None:
        self._begun = time.monotonic()
        for _ in range(self._in_flight):
            body = self._ask().SerializeToString()
            self.transport.write(_LENGTH.pack(len(body)) + body)

    def _ask(self) -> frame_pb2.Frame:
        call = frame_pb2.Call(id=self._answered + 1, stat=head_pb2.Stat(path="/run-0/file-000001"))
        return frame_pb2.Frame(call=call)

    def received(self, frame: frame_pb2.Frame) -> frame_pb2.Frame | None:
        self._answered += 1
        if self._answered == self._count:
            self.done.callback(time.monotonic() - self._begun)
        if self._left > 0:
            self._left -= 1
            return self._ask()
        return None


def builder(protocol: Callable[[], Protocol]) -> Callable[[Any], Protocol]:
    return lambda peer: protocol()
