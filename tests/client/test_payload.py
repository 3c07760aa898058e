"""Chunks that wait to be sent."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.payload import SPOOL_BYTES, BytesPayload, SpooledPayload


class PayloadTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """Bytes in memory are cut without being copied."""
        data = b"0123456789"
        payload = BytesPayload(memoryview(data)[2:])
        self.assertEqual((payload.length, bytes(payload.read(1, 3))), (8, b"345"))
        self.assertIs(payload.read(0, 8).obj, data)

    def test_spooled(self) -> None:
        """What came piece by piece can be read anywhere, again and again, however long it is."""
        payload = SpooledPayload()
        self.addCleanup(payload.release)
        payload.append(b"ab")
        payload.append(memoryview(b"cd"))
        self.assertTrue(payload.in_memory)
        payload.append(bytes(SPOOL_BYTES))
        self.assertFalse(payload.in_memory)
        self.assertEqual(payload.length, SPOOL_BYTES + 4)
        for _ in range(2):
            self.assertEqual(payload.read(1, 4), b"bcd\0")
