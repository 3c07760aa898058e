"""A health node: it probes the heads, and with the others it judges the one that leads.

Every few moments each tells each, and every head, what it holds of the leader. Whichever of them
coordinates gives the verdict, once a majority has been of one opinion for a while. A verdict
alone moves no head: each counts for itself the opinions that reached it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from google.protobuf.message import Message
from twisted.logger import Logger
from twisted.python.failure import Failure

from filegrid.ballot import BallotFile
from filegrid.config import Settings
from filegrid.datafolder import DataFolder
from filegrid.election.chronicle import Chronicle
from filegrid.election.lease import Timing
from filegrid.election.messages import Ballot, LogPosition
from filegrid.election.opinion import FRESH_SECONDS, Opinion, Opinions
from filegrid.election.quorum import Member
from filegrid.errors import GridError, InvalidRequest, NotPermitted
from filegrid.health.chronicle_file import ChronicleFile
from filegrid.health.deliberation import Deliberation, Verdict
from filegrid.health.judgement import Judge
from filegrid.health.probing import Probing
from filegrid.model import Identity, Role
from filegrid.net.council import Council
from filegrid.net.dial import acceptor, hello_of
from filegrid.net.link import Caller, Link, Method
from filegrid.net.tasks import Loop
from filegrid.protocol.frames import Plane
from filegrid.protocol.wire import frame_pb2
from filegrid.protocol.wire import health_pb2 as wire
from filegrid.runtime import Listener, Runtime

TELL_SECONDS = FRESH_SECONDS / 3
"""Between two times that other health nodes are told the same; one may be lost."""

STANDS_SECONDS = 3.0
"""For so long the heads are asked to act on a verdict: by then another one leads."""

MOST_EVENTS = 1000
"""An election takes about a second: these are a quarter of an hour of the worst day."""

HEADS = frozenset({Role.HEAD})
HEALTH = frozenset({Role.HEALTH})

_log = Logger()


class _Configured:
    """The health nodes vote by their names alone, for they have no log that could say more.

    One that was wiped has forgotten its votes; see :func:`first_ballot`.
    """

    position = LogPosition()

    def __init__(self, names: frozenset[str]) -> None:
        self.voters = frozenset(Member(name) for name in names)


class HealthNode:
    """One health node. All is open and loaded when it is made; :meth:`start` serves.

    :param identity: by its certificate, which expires at `certificate_expires_ms`.
    :param ballot: what was stored last in `ballots`.
    :param on_fatal: called where a vote cannot be stored: the process must end.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        identity: Identity,
        *,
        folder: DataFolder,
        ballots: BallotFile,
        ballot: Ballot,
        chronicle_file: ChronicleFile,
        chronicle: Chronicle,
        on_fatal: Callable[[GridError], None],
        certificate_expires_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._identity = identity
        self._folder = folder
        self._certificate_expires_ms = certificate_expires_ms
        self._chronicle = chronicle
        self._chronicle_file = chronicle_file
        self._chronicle_lane = runtime.threads.lane("chronicle")
        self._verdict_until = 0.0
        self._names = frozenset(peer.name for peer in settings.node.health)
        self._opinions = Opinions(self._names)
        self._opinion: Opinion | None = None
        self._noted_reign: tuple[Member, int] | None = None
        self._deliberation = Deliberation()
        self._listener: Listener | None = None
        self._links: dict[Link, None] = {}  # in order: every run is alike
        self._told, self._told_at = wire.Probe(), -TELL_SECONDS
        self._council = Council(
            runtime,
            _Configured(self._names),
            self,
            me=Member(identity.name),
            role=Role.HEALTH,
            others=[peer.address for peer in settings.node.health if peer.name != identity.name],
            member_of=lambda link: Member(link.peer.name),
            hello=self._hello,
            ballots=ballots,
            ballot=ballot,
            timing=Timing(lease_seconds=settings.election.lease_seconds),
            priority=0,
            on_fatal=on_fatal,
        )
        health = settings.health
        self._judge = Judge(
            len(settings.node.heads),
            silent_seconds=health.silent_seconds,
            stuck_seconds=health.stuck_seconds,
            most_gap_seconds=2 * health.probe_seconds,
            now=runtime.clock.seconds(),
        )
        self.methods: Mapping[str, Method] = {
            "elect": Method(HEALTH, self._council.receive),
            "probe": Method(HEALTH, self._take_probe),
            "get_events": Method(HEADS, self._get_events),
        }
        self._probing = Probing(
            runtime,
            settings.node.heads,
            hello=self._hello,
            service=self,
            probe=self._probe,
            heard=self._judge.heard,
            timeout_seconds=health.silent_seconds,
        )
        self._loop = Loop(
            runtime.clock,
            self._turn,
            seconds=health.probe_seconds,
            what="a turn of the health node",
        )

    async def start(self) -> None:
        """Listen, elect, and probe.

        :raises Unavailable: where the port is taken.
        """
        build = acceptor(Plane.CONTROL, self._runtime, self._hello, self)
        self._listener = await self._runtime.network.listen(self._settings.node.listen, build)
        self._council.start()
        self._probing.start()
        self._loop.start()
        _log.info(
            "{name} listens at {address}", name=self._identity.name, address=self._listener.address
        )

    async def stop(self) -> None:
        """Take leave of the heads and of the other health nodes."""
        self._loop.stop()
        if self._listener is not None:
            await self._listener.close()
        self._council.hand_over(None)
        await self._council.stop()
        await self._probing.stop()
        for link in list(self._links):
            link.close()
        self._folder.close()

    @property
    def coordinates(self) -> bool:
        """Whether this node gives the verdicts now."""
        return self._council.may_serve()

    @property
    def events(self) -> list[wire.Event]:
        return self._chronicle.events

    def link_up(self, link: Link) -> None:
        if link.peer.role is Role.HEALTH and link.peer.name not in self._names:
            raise NotPermitted(
                "this health node is not one of those that are configured",
                link.peer.name,
                advice="name it in node.health of every head and health node",
            )
        self._links[link] = None

    def link_down(self, link: Link, error: GridError) -> None:
        self._links.pop(link, None)

    def _hello(self) -> frame_pb2.Hello:
        return hello_of(
            self._identity,
            incarnation=self._folder.incarnation,
            boot_count=self._folder.boot_count,
        )

    # Its part among the health nodes, as the council tells it.

    def lead(self, epoch: int) -> None:
        self._note(wire.Event.KIND_COORDINATOR, self._identity.name, epoch)

    def step_down(self, epoch: int, reason: str) -> None:
        pass

    def follow(self, leader: Member, epoch: int) -> None:
        self._note(wire.Event.KIND_COORDINATOR, leader.name, epoch)

    def hand_over_to(self, target: Member) -> None:
        self._council.hand_over(target)

    # By itself.

    def _turn(self) -> None:
        now = self._runtime.clock.seconds()
        self._opinion = self._judge.judge(now)
        self._opinions.hold(self._identity.name, self._opinion, now)
        if self._judge.reign is not None and self._judge.reign != self._noted_reign:
            self._noted_reign = leader, epoch = self._judge.reign
            self._note(wire.Event.KIND_ELECTION, leader.name, epoch)
        self._deliberate(now)
        self._probing.turn()
        self._tell(now)

    def _tell(self, now: float) -> None:
        """The other health nodes hear what is new at once, and else now and then."""
        news = self._probe()
        if news != self._told or now - self._told_at >= TELL_SECONDS:
            self._told, self._told_at = news, now
            self._council.tell(news)

    def _deliberate(self, now: float) -> None:
        if self.coordinates and self._noted_reign is not None:
            verdict = self._deliberation.decide(self._opinions, self._noted_reign[1], now)
            if verdict is not None:
                self._give(verdict)

    def _give(self, verdict: Verdict) -> None:
        given = self._event(wire.Event.KIND_VERDICT, verdict.leader.name, verdict.epoch)
        given.incarnation = verdict.leader.incarnation
        for name, text in verdict.evidence.items():
            given.evidence.add(health_node=name, text=text)
        self._learn(given, stands=True)

    def _probe(self) -> wire.Probe:
        return wire.Probe(
            opinion=self._opinion.to_wire() if self._opinion is not None else None,
            coordinates=self.coordinates,
            verdict=self._chronicle.last_verdict,
            verdict_stands=self._runtime.clock.seconds() < self._verdict_until,
            certificate_expires_ms=self._certificate_expires_ms(),
        )

    # What it is told and asked.

    async def _take_probe(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """Another health node says what it holds of the leader."""
        assert isinstance(request, wire.Probe)
        opinion = Opinion.from_wire(request.opinion) if request.HasField("opinion") else None
        self._opinions.hold(caller.peer.name, opinion, self._runtime.clock.seconds())
        if request.HasField("verdict"):
            self._learn(request.verdict, stands=request.verdict_stands)
        return frame_pb2.Done()

    async def _get_events(self, caller: Caller, request: Message) -> wire.Events:
        return wire.Events(events=self._chronicle.events)

    # What it keeps.

    def _event(self, kind: wire.Event.Kind.ValueType, node: str, epoch: int) -> wire.Event:
        at_ms = round(self._runtime.wall_seconds() * 1000)
        return wire.Event(kind=kind, node=node, epoch=epoch, at_ms=at_ms)

    def _note(self, kind: wire.Event.Kind.ValueType, node: str, epoch: int) -> None:
        self._keep(self._event(kind, node, epoch))

    def _learn(self, verdict: wire.Event, *, stands: bool) -> None:
        """A verdict was given, here or elsewhere."""
        if not self._keep(verdict):
            return
        now = self._runtime.clock.seconds()
        self._deliberation.given(verdict.node, now)
        if stands:
            self._verdict_until = now + STANDS_SECONDS
        _log.warn(
            "verdict: {node} is unfit to lead epoch {epoch}: {evidence}",
            node=verdict.node,
            epoch=verdict.epoch,
            evidence="; ".join(f"{one.health_node}: {one.text}" for one in verdict.evidence),
        )

    def _keep(self, event: wire.Event) -> bool:
        """Whether it is new; then it is stored, soon."""
        if not self._chronicle.add(event):
            return False
        storing = self._chronicle_lane.run(self._chronicle_file.write, [*self._chronicle.events])
        storing.addErrback(self._not_stored)
        return True

    def _not_stored(self, failure: Failure) -> None:
        """The others keep it too, and nothing rests on it."""
        _log.error("an event is not kept: {reason}", reason=failure.value)


def first_ballot(runtime: Runtime) -> Ballot:
    """Of a health node that has none stored: above every epoch in which it can have voted.

    It may be one whose disk was wiped, and it must not vote twice in one epoch. No election takes
    less than a second, so the seconds since 1970 are ahead of all epochs. Where the wall clock was
    set back two may coordinate for a while: both give verdicts, and no head heeds one without the
    opinions of a majority.
    """
    return Ballot(epoch=int(runtime.wall_seconds()))


def open_health_node(
    runtime: Runtime,
    settings: Settings,
    identity: Identity,
    *,
    on_fatal: Callable[[GridError], None],
    certificate_expires_ms: Callable[[], int] = lambda: 0,
) -> HealthNode:
    """Open a health node's data folder and what is in it. Blocks.

    A missing folder is made: an empty health node can do no harm.

    :raises GridError: one line: what is wrong with the folder or the settings, and what mends it.
    """
    if identity.name not in {peer.name for peer in settings.node.health}:
        raise InvalidRequest(
            "this health node is not one of those that are configured",
            "node.health",
            advice=f"name it: {identity.name}={settings.address}",
        )
    folder = DataFolder.open(
        runtime.disk,
        str(settings.node.data),
        identity=identity,
        create=True,
        rng=runtime.random,
    )
    ballots = BallotFile(runtime.disk, folder.within("ballot"))
    ballot = ballots.read()
    if not ballot.epoch:
        ballot = first_ballot(runtime)
        ballots.write(ballot)
    events = ChronicleFile(runtime.disk, folder.within("events"))
    return HealthNode(
        runtime,
        settings,
        identity,
        folder=folder,
        ballots=ballots,
        ballot=ballot,
        chronicle_file=events,
        chronicle=Chronicle(events.read(), most=MOST_EVENTS),
        on_fatal=on_fatal,
        certificate_expires_ms=certificate_expires_ms,
    )
