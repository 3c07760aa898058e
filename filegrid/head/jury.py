"""The health nodes, as this head hears them: what they hold of the leader, and their verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from twisted.logger import Logger

from filegrid.election.chronicle import Chronicle
from filegrid.election.events import Suspect
from filegrid.election.opinion import FRESH_SECONDS, Opinion, Opinions
from filegrid.election.quorum import Member
from filegrid.errors import GridError, NotPermitted
from filegrid.model import Peer
from filegrid.net.council import Council
from filegrid.net.link import Caller, Link
from filegrid.net.tasks import gather
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire import health_pb2 as wire
from filegrid.runtime import Runtime

MOST_VERDICTS = 5
"""Shown in the status; the health nodes keep more."""

MOST_EVENTS = 1000

EVENTS_SECONDS = 2.0
"""A health node that does not tell its events in this time is left out."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class _Juror:
    link: Link
    heard_at: float
    probe: wire.Probe


class Jury:
    """A verdict is heeded only where the opinions that came here are a majority's too.

    :param peers: the health nodes, as configured.
    :param probed: what this head says of itself, from memory.
    """

    def __init__(
        self,
        runtime: Runtime,
        council: Council,
        peers: Sequence[Peer],
        probed: Callable[[], wire.Probed],
    ) -> None:
        self._runtime = runtime
        self._council = council
        self._peers = {peer.name: peer for peer in sorted(peers, key=lambda one: one.name)}
        self._probed = probed
        self._opinions = Opinions(self._peers)
        self._jurors: dict[str, _Juror] = {}
        self._verdicts = Chronicle(most=MOST_VERDICTS)
        self._heeded: tuple[Member, int, int] | None = None

    # What the health nodes say and ask.

    async def probe(self, caller: Caller, request: Message) -> wire.Probed:
        assert isinstance(request, wire.Probe)
        name, now = caller.peer.name, self._runtime.clock.seconds()
        if name not in self._peers:
            raise NotPermitted(
                "this health node is not one of those that are configured",
                name,
                advice="name it in node.health of every head and health node",
            )
        self._jurors[name] = _Juror(caller.link, now, request)
        opinion = Opinion.from_wire(request.opinion) if request.HasField("opinion") else None
        self._opinions.hold(name, opinion, now)
        if request.HasField("verdict"):
            self._verdicts.add(request.verdict)
            if request.verdict_stands:
                self._weigh(request.verdict, now)
        return self._probed()

    def link_down(self, link: Link) -> None:
        juror = self._jurors.get(link.peer.name)
        if juror is not None and juror.link is link:
            del self._jurors[link.peer.name]
            self._opinions.hold(link.peer.name, None, self._runtime.clock.seconds())

    def _weigh(self, verdict: wire.Event, now: float) -> None:
        """Act on a verdict about the leader and the epoch of now; once on each."""
        reign = Member(verdict.node, verdict.incarnation), verdict.epoch
        heeded = (*reign, verdict.at_ms)
        if heeded == self._heeded or reign != (self._council.leader, self._council.leader_epoch):
            return
        against = self._opinions.against(*reign, now)
        if not self._opinions.is_majority(against):
            return
        self._heeded = heeded
        _log.warn(
            "{leader} is unfit to lead epoch {epoch}, say the health nodes: {evidence}",
            leader=reign[0],
            epoch=verdict.epoch,
            evidence="; ".join(f"{name}: {text}" for name, text in against.items()),
        )
        self._council.handle(Suspect(*reign))

    # What users ask.

    def members(self) -> list[head_pb2.HealthStatus]:
        """Every configured health node, whether it can be reached or not."""
        now = self._runtime.clock.seconds()
        heard = {
            name: juror
            for name, juror in self._jurors.items()
            if now - juror.heard_at <= FRESH_SECONDS
        }
        # One that was paused may take itself for the coordinator for a while.
        claims = [name for name, juror in heard.items() if juror.probe.coordinates]
        roles = dict.fromkeys(heard, "member")
        if claims:
            roles[max(claims, key=lambda name: heard[name].heard_at)] = "coordinator"
        return [
            head_pb2.HealthStatus(
                name=name, address=str(peer.address), role=roles.get(name, "down")
            )
            for name, peer in self._peers.items()
        ]

    @property
    def verdicts(self) -> list[wire.Event]:
        """The last ones that this head has heard of."""
        return self._verdicts.events

    def certificate_expiries(self) -> list[tuple[str, int]]:
        """When the health nodes' certificates expire, in milliseconds since 1970."""
        return [(name, one.probe.certificate_expires_ms) for name, one in self._jurors.items()]

    async def get_events(self, caller: Caller, request: Message) -> wire.Events:
        """What all health nodes keep together, and this head remembers."""
        assert isinstance(request, wire.GetEvents)
        links = [juror.link for juror in self._jurors.values() if juror.link.alive]
        told = [one for one in await gather(_ask(link, request) for link in links) if one]
        noted = [*self.verdicts, *(event for one in told for event in one.events)]
        # Each noted an election when it saw it: the first note is the nearest to the truth.
        noted.sort(key=lambda one: one.at_ms)
        return wire.Events(
            events=Chronicle(noted, most=MOST_EVENTS).events,
            incomplete=len(told) < len(self._peers),
        )


async def _ask(link: Link, request: wire.GetEvents) -> wire.Events | None:
    try:
        return await link.call(request, wire.Events, timeout_seconds=EVENTS_SECONDS)
    except GridError as error:
        _log.info("{peer} did not tell its events: {error}", peer=link.peer, error=error)
        return None
