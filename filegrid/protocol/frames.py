"""Frames: bytes in, messages and body pieces out.

====== ======= =====================================================================
offset bytes   what
====== ======= =====================================================================
0      4       length L of the header, big-endian
4      L       the header: a protobuf :class:`Frame`
4 + L  B       raw bytes, where the header's ``body_bytes`` is B (data plane only)
====== ======= =====================================================================

The decoder owns at most one incomplete header; body bytes pass through as views of what came from
the transport, never copied and never collected.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum

from google.protobuf.message import DecodeError

from filegrid.errors import FrameTooLarge, MalformedFrame
from filegrid.protocol.wire.frame_pb2 import Frame

MOST_CONTROL_BYTES = 4 * 1024 * 1024
"""A control frame holds a page of a listing or a manifest; above this a heartbeat would wait."""

MOST_HEADER_BYTES = 64 * 1024
"""A data frame's header names a chunk and a pipeline; its bytes follow it and do not count."""

MOST_BODY_BYTES = 16 * 1024 * 1024
"""One frame's raw bytes: the receiver can say no only between frames."""

_LENGTH = struct.Struct(">I")


class Plane(Enum):
    """What a connection is for, and so how large its headers may be and whether bodies follow."""

    CONTROL = "control"
    DATA = "data"

    @property
    def most_header_bytes(self) -> int:
        return MOST_CONTROL_BYTES if self is Plane.CONTROL else MOST_HEADER_BYTES

    @property
    def most_body_bytes(self) -> int:
        return 0 if self is Plane.CONTROL else MOST_BODY_BYTES


def encode(frame: Frame) -> bytes:
    """The frame's header with its length before it; the caller sends the body after it."""
    return encode_bytes(frame.SerializeToString())


def encode_bytes(header: bytes) -> bytes:
    """As :func:`encode`, of a frame that is serialised already."""
    return _LENGTH.pack(len(header)) + header


def tag(field_number: int) -> bytes:
    """What stands before a field that is a message."""
    return _varint(field_number << 3 | 2)


def embed(tag: bytes, content: bytes) -> bytes:
    """A serialised message as a field of another, whose other fields may stand before it.

    Source: https://protobuf.dev/programming-guides/encoding/, "Length-Delimited Records".
    """
    return tag + _varint(len(content)) + content


_SHORT = tuple(bytes([number]) for number in range(128))


def _varint(number: int) -> bytes:
    if number < len(_SHORT):
        return _SHORT[number]
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


class FrameDecoder:
    """Cuts a stream of bytes into frames, however the bytes are split."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._most_header_bytes = plane.most_header_bytes
        self._most_body_bytes = plane.most_body_bytes
        self._partial = bytearray()
        self._body_left = 0

    def feed(self, data: bytes) -> Iterator[Frame | memoryview]:
        """Headers, and after each the pieces of its body as they come.

        :raises FrameTooLarge: for a header or a body above the plane's limit.
        :raises MalformedFrame: for a header that is no protobuf, or of no known kind.
        """
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if self._body_left:
                piece = view[at : at + self._body_left]
                self._body_left -= len(piece)
                at += len(piece)
                yield piece
                continue
            header, at = self._take_header(view, at)
            if header is None:
                return
            frame = self._parse(header)
            self._body_left = frame.body_bytes
            yield frame

    def _take_header(self, view: memoryview, at: int) -> tuple[bytes | memoryview | None, int]:
        """A whole header and where it ends, or None once all bytes are kept for later."""
        if not self._partial and len(view) - at >= _LENGTH.size:
            start = at + _LENGTH.size
            end = start + self._header_bytes(view, at)
            if end <= len(view):
                return view[start:end], end
        at = self._keep(view, at, _LENGTH.size)
        if len(self._partial) < _LENGTH.size:
            return None, at
        whole = _LENGTH.size + self._header_bytes(self._partial)
        at = self._keep(view, at, whole)
        if len(self._partial) < whole:
            return None, at
        header = bytes(memoryview(self._partial)[_LENGTH.size :])
        self._partial = bytearray()
        return header, at

    def _keep(self, view: memoryview, at: int, wanted: int) -> int:
        end = min(len(view), at + max(0, wanted - len(self._partial)))
        self._partial += view[at:end]
        return end

    def _header_bytes(self, data: bytearray | memoryview, at: int = 0) -> int:
        length: int = _LENGTH.unpack_from(data, at)[0]
        limit = self._most_header_bytes
        if length > limit:
            raise FrameTooLarge(
                f"a {self._plane.value} frame of {length} bytes is above the limit of {limit}"
            )
        return length

    def _parse(self, header: bytes | memoryview) -> Frame:
        try:
            frame = Frame.FromString(bytes(header))
        except DecodeError as error:
            raise MalformedFrame("a frame is not the protobuf message it should be") from error
        if frame.WhichOneof("kind") is None:
            raise MalformedFrame("a frame of no known kind")
        limit = self._most_body_bytes
        if frame.body_bytes > limit:
            raise FrameTooLarge(
                f"a body of {frame.body_bytes} bytes is above the {self._plane.value} plane's"
                f" limit of {limit}"
            )
        return frame
