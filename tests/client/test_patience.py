"""How long a client goes on trying."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.patience import MOST_PAUSE_SECONDS, Patience
from filegrid.model import Identity, Role
from tests.client.head import GRID_ID, World


class PatienceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        runtime = self.world.runtime(Identity(GRID_ID, Role.CLIENT, "client-1"))
        self.patience = Patience(runtime, 10)

    def pause(self, at_least_seconds: float = 0.0) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.patience.pause(at_least_seconds))

    def test_pauses(self) -> None:
        """Pauses grow to a bound, and end with the time."""
        for _ in range(400):
            pause = self.pause()
            self.world.advance(MOST_PAUSE_SECONDS)
            if not self.successResultOf(pause):
                break
        self.assertTrue(9 < self.world.clock.seconds() < 11)

    def test_at_least(self) -> None:
        """A pause is as long as the peer asked for."""
        pause = self.pause(3)
        self.world.advance(2.9)
        self.assertNoResult(pause)
        self.world.advance(0.2)
        self.assertTrue(self.successResultOf(pause))

    def test_renewed(self) -> None:
        """Whatever moves gives the whole time again."""
        self.world.advance(9)
        self.patience.renew()
        self.assertGreater(self.patience.left_seconds, 9.9)
