"""Latencies: who is slow, compared with whom."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.latencies import Latencies


class Slow(SynchronousTestCase):
    def setUp(self) -> None:
        self.latencies = Latencies()

    def test_much_slower(self) -> None:
        """A server is slow once its mean is far above that of the others, and says by how much."""
        for name in ("a", "b", "c"):
            self.assertEqual(self.latencies.note(name, 0.02), "")
        reasons = [self.latencies.note("c", 4.0) for _ in range(3)]
        self.assertIn("elsewhere", reasons[-1])
        self.assertEqual(self.latencies.note("a", 0.03), "")

    def test_all_slow(self) -> None:
        """Where all are slow, none is."""
        for _ in range(5):
            for name in ("a", "b", "c"):
                self.assertEqual(self.latencies.note(name, 6.0), "")

    def test_nothing_to_compare_with(self) -> None:
        """Two servers do not tell which of them is right."""
        self.latencies.note("a", 0.01)
        self.assertEqual(self.latencies.note("b", 9.0), "")
