"""What a head makes of the health nodes: whose word counts, and what it does on a verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.events import Suspect
from filegrid.election.opinion import FRESH_SECONDS
from filegrid.election.quorum import Member
from filegrid.errors import NotPermitted
from filegrid.head.jury import MOST_VERDICTS, Jury
from filegrid.model import Address, Identity, Peer, Role
from filegrid.protocol.wire import health_pb2 as wire

PEERS = [Peer(f"health-{number}", Address(f"h{number}", 7000)) for number in (1, 2, 3)]
A, B = Member("head-1", b"i"), Member("head-2", b"i")


class JuryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.suspected: list[Suspect] = []
        self.council = SimpleNamespace(leader=A, leader_epoch=5, handle=self.suspected.append)
        self.jury = Jury(
            cast(Any, SimpleNamespace(clock=self.clock)),
            cast(Any, self.council),
            PEERS,
            lambda: wire.Probed(leader=A.name, epoch=5),
        )
        self.links: dict[str, Any] = {}

    def probe(
        self,
        number: int,
        evidence: str = "",
        *,
        leader: Member = A,
        epoch: int = 5,
        verdict: wire.Event | None = None,
        stands: bool = True,
        coordinates: bool = False,
    ) -> None:
        """What health node `number` says, a moment later."""
        self.clock.advance(0.01)
        name = f"health-{number}"
        peer = Identity("grid", Role.HEALTH, name)
        link = self.links.setdefault(name, SimpleNamespace(peer=peer, alive=True))
        opinion = wire.Opinion(
            leader=leader.name, incarnation=leader.incarnation, epoch=epoch, evidence=evidence
        )
        request = wire.Probe(
            opinion=opinion, verdict=verdict, verdict_stands=stands, coordinates=coordinates
        )
        caller = cast(Any, SimpleNamespace(peer=peer, link=link))
        answer = self.successResultOf(Deferred.fromCoroutine(self.jury.probe(caller, request)))
        self.assertEqual(answer.epoch, 5)

    def roles(self) -> list[str]:
        return [member.role for member in self.jury.members()]


def verdict_on(leader: Member = A, epoch: int = 5, at_ms: int = 1) -> wire.Event:
    return wire.Event(
        kind=wire.Event.KIND_VERDICT,
        node=leader.name,
        incarnation=leader.incarnation,
        epoch=epoch,
        at_ms=at_ms,
    )


class Verdicts(JuryCase):
    def test_heeded(self) -> None:
        """A verdict with the opinions of a majority makes the leader suspect, once."""
        self.probe(1, "silent")
        self.probe(2, "silent", verdict=verdict_on())
        self.assertEqual(self.suspected, [Suspect(A, 5)])
        self.probe(3, "silent", verdict=verdict_on())
        self.assertEqual(len(self.suspected), 1)

    def test_given_again(self) -> None:
        """Where the leader outlived a verdict, a later one is heeded as well."""
        self.probe(1, "silent")
        self.probe(2, "silent", verdict=verdict_on())
        self.probe(2, "silent", verdict=verdict_on(at_ms=2))
        self.assertEqual(self.suspected, [Suspect(A, 5)] * 2)

    def test_verdict_came_first(self) -> None:
        """It is repeated, and heeded once the opinions have come."""
        self.probe(1, "silent", verdict=verdict_on())
        self.assertEqual(self.suspected, [])
        self.probe(2, "silent")
        self.assertEqual(self.suspected, [])
        self.probe(1, "silent", verdict=verdict_on())
        self.assertEqual(self.suspected, [Suspect(A, 5)])

    def test_opinions_alone(self) -> None:
        """Opinions without a verdict move nobody: the coordinator damps flapping."""
        for number in (1, 2, 3):
            self.probe(number, "silent")
        self.assertEqual(self.suspected, [])

    def test_forged(self) -> None:
        """A verdict that only its giver agrees with is nothing, whatever it says of others."""
        forged = verdict_on()
        for number in (1, 2, 3):
            forged.evidence.add(health_node=f"health-{number}", text="silent")
        self.probe(2)
        self.probe(3)
        for _ in range(10):
            self.probe(1, "silent", verdict=forged)
        self.assertEqual(self.suspected, [])

    def test_other_reign(self) -> None:
        """A verdict about an older epoch, another head or another incarnation is stale."""
        for leader, epoch in ((A, 4), (B, 5), (Member("head-1", b"j"), 5)):
            for number in (1, 2, 3):
                verdict = verdict_on(leader, epoch)
                self.probe(number, "silent", leader=leader, epoch=epoch, verdict=verdict)
        self.assertEqual(self.suspected, [])

    def test_over(self) -> None:
        """A verdict that does not stand any more is shown and not heeded."""
        for number in (1, 2, 3):
            self.probe(number, "silent", verdict=verdict_on(), stands=False)
        self.assertEqual((self.suspected, self.jury.verdicts), ([], [verdict_on()]))

    def test_stale_opinions(self) -> None:
        """What a health node said long ago, or before its link was lost, does not count."""
        self.probe(1, "silent")
        self.clock.advance(FRESH_SECONDS + 0.1)
        self.probe(2, "silent", verdict=verdict_on())
        self.jury.link_down(self.links["health-2"])
        self.probe(3, "silent", verdict=verdict_on())
        self.assertEqual(self.suspected, [])

    def test_stranger(self) -> None:
        """A certificate of a health node that is not configured opens nothing."""
        peer = Identity("grid", Role.HEALTH, "health-4")
        caller = cast(Any, SimpleNamespace(peer=peer, link=None))
        refused = Deferred.fromCoroutine(self.jury.probe(caller, wire.Probe()))
        self.failureResultOf(refused, NotPermitted)
        self.assertEqual(self.roles(), ["down"] * 3)

    def test_last_ones(self) -> None:
        """The last verdicts are shown, the newest last."""
        for number in range(10):
            self.probe(1, verdict=verdict_on(epoch=number, at_ms=number))
        shown = [verdict.epoch for verdict in self.jury.verdicts]
        self.assertEqual(shown, list(range(10))[-MOST_VERDICTS:])


class Members(JuryCase):
    def test_roles(self) -> None:
        """Each is shown with its part; one that is silent, or whose link is lost, as down."""
        self.assertEqual(self.roles(), ["down"] * 3)
        self.probe(1)
        self.probe(3, coordinates=True)
        self.assertEqual(self.roles(), ["member", "down", "coordinator"])
        self.assertEqual(self.jury.members()[1].address, "h2:7000")
        self.jury.link_down(self.links["health-1"])
        self.clock.advance(FRESH_SECONDS)
        self.assertEqual(self.roles(), ["down", "down", "coordinator"])
        self.clock.advance(0.1)
        self.assertEqual(self.roles(), ["down"] * 3)

    def test_one_coordinator(self) -> None:
        """One that was paused as coordinator is shown as such no longer."""
        self.probe(1, coordinates=True)
        self.probe(2, coordinates=True)
        self.assertEqual(self.roles(), ["member", "coordinator", "down"])
