"""Chunk servers that come, go, drain and fill by chance: no replica too few, and none for good."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.grid.upheaval import endure

SEEDS = (2, 3)


class Upheavals(SynchronousTestCase):
    def test_seeds(self) -> None:
        """Whatever happens, a chunk that was whole never loses a replica on disk that it needs;
        and once all is calm every file is read and every chunk has just the replicas it wants."""
        for seed in SEEDS:
            endure(seed)
