"""How a range of a file is cut for reading ahead."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.reader import SEGMENT_BYTES, segments
from filegrid.model import BLOCK_BYTES

MIB = 1024 * 1024


class SegmentTests(SynchronousTestCase):
    @given(
        chunk_blocks=st.integers(1, 200),
        offset=st.integers(0, 40 * MIB),
        length=st.integers(0, 40 * MIB),
    )
    @settings(max_examples=50, deadline=None, database=None)
    def test_covers(self, chunk_blocks: int, offset: int, length: int) -> None:
        """Any range is covered once, in order, by short pieces that stay in one chunk."""
        chunk_bytes = chunk_blocks * BLOCK_BYTES
        at = offset
        for index, start, end in segments(chunk_bytes, offset, offset + length):
            self.assertEqual(index * chunk_bytes + start, at)
            self.assertTrue(0 <= start < end <= chunk_bytes)
            self.assertLessEqual(end - start, SEGMENT_BYTES)
            at = index * chunk_bytes + end
            # What follows begins at a block, so that no block is fetched twice.
            self.assertTrue(at == offset + length or end % BLOCK_BYTES == 0)
        self.assertEqual(at, offset + length)
