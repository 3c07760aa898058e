"""Frames: any split of the bytes gives the same frames, and limits hold before memory is taken."""

from __future__ import annotations

import itertools
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.errors import FrameTooLarge, MalformedFrame
from filegrid.protocol.frames import (
    MOST_BODY_BYTES,
    MOST_CONTROL_BYTES,
    MOST_HEADER_BYTES,
    FrameDecoder,
    Plane,
    encode,
)
from filegrid.protocol.wire.frame_pb2 import Call, Cancel, Data, Frame
from filegrid.protocol.wire.head_pb2 import Stat

BODIES = st.lists(st.binary(max_size=300), max_size=6)
CUTS = st.lists(st.integers(min_value=0, max_value=3000), max_size=12)


def decode(plane: Plane, pieces: list[bytes]) -> list[tuple[Frame, bytes]]:
    """Frames with their whole bodies."""
    decoder = FrameDecoder(plane)
    frames: list[tuple[Frame, bytes]] = []
    for piece in pieces:
        for item in decoder.feed(piece):
            if isinstance(item, Frame):
                frames.append((item, b""))
            else:
                frames[-1] = (frames[-1][0], frames[-1][1] + bytes(item))
    return frames


class AnySplit(SynchronousTestCase):
    @settings(max_examples=50, deadline=None, database=None)
    @given(bodies=BODIES, cuts=CUTS)
    def test_split(self, bodies: list[bytes], cuts: list[int]) -> None:
        """However the bytes are cut, the frames and their bodies are the same."""
        sent = [
            (Frame(data=Data(call_id=number), body_bytes=len(body)), body)
            for number, body in enumerate(bodies, 1)
        ]
        stream = b"".join(encode(frame) + body for frame, body in sent)
        places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
        self.assertEqual(decode(Plane.DATA, pieces), sent)

    def test_byte_by_byte(self) -> None:
        """A frame that comes a byte at a time is whole with its last byte and not before."""
        frame = Frame(call=Call(id=7, stat=Stat(path="/a" * 100)))
        stream = encode(frame)
        decoder = FrameDecoder(Plane.CONTROL)
        for byte in stream[:-1]:
            self.assertEqual(list(decoder.feed(bytes([byte]))), [])
        self.assertEqual(list(decoder.feed(stream[-1:])), [frame])

    def test_body_is_not_copied(self) -> None:
        """Body pieces are views of the very bytes that came from the transport."""
        header = encode(Frame(data=Data(call_id=1), body_bytes=5000))
        received = header + b"x" * 5000
        *_, piece = FrameDecoder(Plane.DATA).feed(received)
        assert isinstance(piece, memoryview)
        self.assertIs(piece.obj, received)


class Limits(SynchronousTestCase):
    def test_four_gib_prefix(self) -> None:
        """A length of 4 GiB is refused at its fourth byte, with the limit that it breaks."""
        decoder = FrameDecoder(Plane.CONTROL)
        error = self.assertRaises(FrameTooLarge, list, decoder.feed(b"\xff\xff\xff\xff"))
        self.assertIn(str(MOST_CONTROL_BYTES), str(error))

    def test_header_of_the_data_plane(self) -> None:
        """A data header above 64 KiB is refused although a control frame may be that long."""
        length = struct.pack(">I", MOST_HEADER_BYTES + 1)
        self.assertEqual(list(FrameDecoder(Plane.CONTROL).feed(length)), [])
        error = self.assertRaises(FrameTooLarge, list, FrameDecoder(Plane.DATA).feed(length))
        self.assertIn("data frame", str(error))

    def test_body_limits(self) -> None:
        """A body is refused on the control plane, and above its limit on the data plane."""
        for plane, size in ((Plane.CONTROL, 1), (Plane.DATA, MOST_BODY_BYTES + 1)):
            stream = encode(Frame(data=Data(call_id=1), body_bytes=size))
            self.assertRaises(FrameTooLarge, list, FrameDecoder(plane).feed(stream))

    def test_incomplete_header_is_all_that_is_kept(self) -> None:
        """What is kept of an incomplete frame never exceeds the bytes that came."""
        decoder = FrameDecoder(Plane.CONTROL)
        list(decoder.feed(struct.pack(">I", MOST_CONTROL_BYTES) + b"x" * 10))
        self.assertLess(len(decoder._partial), 20)


class Garbage(SynchronousTestCase):
    @settings(max_examples=50, deadline=None, database=None)
    @given(st.binary(min_size=1, max_size=200))
    def test_noise(self, noise: bytes) -> None:
        """Noise is refused as malformed or waits for more; nothing else comes of it."""
        decoder = FrameDecoder(Plane.CONTROL)
        try:
            items = list(decoder.feed(struct.pack(">I", len(noise)) + noise))
        except MalformedFrame:
            return
        for item in items:  # some noise is a frame
            self.assertIsInstance(item, Frame)

    def test_empty_frame(self) -> None:
        """A frame of no kind is malformed."""
        self.assertRaises(MalformedFrame, list, FrameDecoder(Plane.CONTROL).feed(b"\0\0\0\0"))

    def test_frames_before_the_broken_one_count(self) -> None:
        """Frames that came whole before the noise are delivered."""
        good = encode(Frame(cancel=Cancel(call_id=3)))
        feed = FrameDecoder(Plane.CONTROL).feed(good + b"\xff" * 8)
        first = next(feed)
        assert isinstance(first, Frame)
        self.assertEqual(first.cancel.call_id, 3)
        self.assertRaises(FrameTooLarge, next, feed)
