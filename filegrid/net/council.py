"""This node among its like, heads or health nodes: the links between them, and who leads.

The rules are :mod:`filegrid.election`'s; here its effects are carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from google.protobuf.message import Message
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from filegrid.ballot import BallotFile
from filegrid.election.bully import Bully
from filegrid.election.codec import from_wire, to_wire
from filegrid.election.events import (
    Configure,
    Effect,
    Event,
    Follow,
    HandOver,
    Lead,
    Received,
    Send,
    StepDown,
    Store,
    Stored,
    Tick,
    Transfer,
    Unreachable,
)
from filegrid.election.lease import Timing
from filegrid.election.messages import Ballot, Election, LogPosition
from filegrid.election.quorum import Member, Membership
from filegrid.errors import GridError, Unavailable
from filegrid.model import Address, Role
from filegrid.net.dial import Dialler
from filegrid.net.link import Caller, Link, Service
from filegrid.protocol.wire import election_pb2, frame_pb2
from filegrid.runtime import Runtime

_log = Logger()


class Electorate(Protocol):
    """Who votes, and how far this node has come: for heads, what their log says."""

    @property
    def voters(self) -> frozenset[Member]: ...

    @property
    def position(self) -> LogPosition:
        """The end of what is on stable storage here, never above it; in a cluster without a log
        always the same."""


class Part(Protocol):
    """What a node does with the part that it is given."""

    def lead(self, epoch: int) -> None: ...

    def step_down(self, epoch: int, reason: str) -> None: ...

    def follow(self, leader: Member, epoch: int) -> None: ...

    def hand_over_to(self, target: Member) -> None:
        """A preferred member asks to lead: see that it has all of the log, then let it."""


class Council:
    """Elects, with the other nodes of its role, the one that leads.

    :param part: told what this node is to do.
    :param role: of all members.
    :param others: where the other members listen.
    :param service: what is answered on the links that this node dials; None for nothing.
    :param member_of: who is at the other end of a link, as the electorate names members.
    :param on_fatal: called where a vote cannot be stored: the process must end (S16).
    :ivar leader_epoch: of the last leader that was known here.
    """

    def __init__(
        self,
        runtime: Runtime,
        electorate: Electorate,
        part: Part,
        *,
        me: Member,
        role: Role,
        others: Iterable[Address],
        member_of: Callable[[Link], Member],
        hello: Callable[[], frame_pb2.Hello],
        service: Service | None = None,
        ballots: BallotFile,
        ballot: Ballot,
        timing: Timing,
        priority: int,
        on_fatal: Callable[[GridError], None],
    ) -> None:
        self.me = me
        self.leader_epoch = 0
        self._runtime = runtime
        self._electorate = electorate
        self._member_of = member_of
        self._part = part
        self._timing = timing
        self._ballots = ballots
        self._ballot_lane = runtime.threads.lane("ballot")
        self._on_fatal = on_fatal
        self._dialler = partial(Dialler, runtime, role=role, hello=hello, service=service)
        self._diallers = [self._dialler(address) for address in others]
        self._started = False
        self._learners: frozenset[Member] = frozenset()
        self._bully = Bully(
            me,
            priority=priority,
            membership=Membership(electorate.voters),
            ballot=ballot,
            log=electorate.position,
            timing=timing,
            random=runtime.random,
            now=runtime.clock.seconds(),
        )
        self._configured = Membership(electorate.voters)
        self._serves_until = self._bully.serves_until  # asked with every call; events move it
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        self._started = True
        for dialler in self._diallers:
            dialler.start()
        self.log_moved()

    async def stop(self) -> None:
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for dialler in self._diallers:
            await dialler.stop()

    def learn(self, addresses: Iterable[Address]) -> None:
        """Dial these members too; those that are known are dialled anyway."""
        for address in set(addresses) - {dialler.address for dialler in self._diallers}:
            if not self._stopped:
                self._diallers.append(dialler := self._dialler(address))
                if self._started:
                    dialler.start()

    # What others ask.

    @property
    def leader(self) -> Member | None:
        return self._bully.leader

    @property
    def leader_address(self) -> str:
        """Where the leader listens; empty where nobody leads, or it is not linked."""
        for dialler in self._diallers:
            if dialler.link is not None and self._member_of(dialler.link) == self.leader:
                return str(dialler.address)
        return ""

    def may_serve(self) -> bool:
        """Whether this node leads and holds the lease, at this very moment (S5)."""
        return self._runtime.clock.seconds() < self._serves_until

    def obeys(self, leader: Member, epoch: int) -> bool:
        """Whether entries of this leader may be taken in, and acknowledged."""
        return self._bully.obeys(leader, epoch)

    def link_to(self, member: Member) -> Link | None:
        """The link to a member, where it is up and leads to this very incarnation (S2)."""
        for dialler in self._diallers:
            if dialler.link is not None and self._member_of(dialler.link) == member:
                return dialler.link
        return None

    def linked(self) -> list[tuple[Member, Address]]:
        """The members that can be reached now."""
        return [
            (self._member_of(dialler.link), dialler.address)
            for dialler in self._diallers
            if dialler.link is not None and dialler.link.peer.name != self.me.name
        ]

    def address_of(self, name: str) -> str:
        """Where a member of this name is reached now; empty where none is."""
        for member, address in self.linked():
            if member.name == name:
                return str(address)
        return ""

    # What happens.

    def handle(self, event: Event) -> None:
        if self._stopped:
            return
        self._bully.log = self._electorate.position
        effects = self._bully.handle(event, self._runtime.clock.seconds())
        self._serves_until = self._bully.serves_until
        for effect in effects:
            self._carry_out(effect)
        self._schedule()

    async def receive(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """A message of another member; who it is, its link has proved."""
        assert isinstance(request, election_pb2.ElectionMessage)
        self.handle(Received(self._member_of(caller.link), from_wire(request)))
        return frame_pb2.Done()

    def hand_over(self, target: Member | None) -> None:
        """Stop leading, for `target` to lead instead; None: for whichever is best."""
        self.handle(HandOver(target))

    def tell(self, message: Message) -> None:
        """Something beside the election, to every member that can be reached."""
        for dialler in self._diallers:
            if dialler.link is not None:
                self._say(dialler.link, message)

    def log_moved(self) -> None:
        """The log has grown or shrunk, or says something else of who votes."""
        self._bully.log = self._electorate.position
        self._configure()

    def admit(self, learners: Iterable[Member]) -> None:
        """Tell these who leads too, though they have no vote yet."""
        self._learners = frozenset(learners)
        self._configure()

    def _configure(self) -> None:
        membership = Membership(self._electorate.voters, self._learners - self._electorate.voters)
        if membership != self._configured:
            self._configured = membership
            self.handle(Configure(membership))
        else:
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        wake_at = self._bully.wake_at
        if not self._stopped and wake_at != float("inf"):
            left = max(0.0, wake_at - self._runtime.clock.seconds())
            self._timer = self._runtime.clock.callLater(left, self.handle, Tick())

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._send(effect)
        elif isinstance(effect, Store):
            self._store(effect.ballot)
        elif isinstance(effect, Lead):
            self.leader_epoch = effect.epoch
            _log.info("{me} is elected for epoch {epoch}", me=self.me, epoch=effect.epoch)
            self._part.lead(effect.epoch)
        elif isinstance(effect, StepDown):
            _log.info(
                "{me} leads epoch {epoch} no more: {reason}",
                me=self.me,
                epoch=effect.epoch,
                reason=effect.reason,
            )
            self._part.step_down(effect.epoch, effect.reason)
        elif isinstance(effect, Follow):
            self.leader_epoch = effect.epoch
            self._part.follow(effect.leader, effect.epoch)
        elif isinstance(effect, Transfer):
            self._part.hand_over_to(effect.target)

    def _send(self, effect: Send) -> None:
        link = self.link_to(effect.to)
        if link is not None:
            self._say(link, to_wire(effect.message))
        elif isinstance(effect.message, Election):
            # Told once all that came out with it is carried out.
            self._runtime.clock.callLater(0, self.handle, Unreachable(effect.to))

    def _say(self, link: Link, message: Message) -> None:
        """Messages may be lost: nobody waits for the answer, nor for one who reads nothing."""
        if link.alive and not link.gate.closed:
            exchange = link.open(message, timeout_seconds=self._timing.lease_seconds)
            exchange.answer.addErrback(lambda failure: failure.trap(GridError))

    def _store(self, ballot: Ballot) -> None:
        storing = self._ballot_lane.run(self._ballots.write, ballot)
        storing.addCallbacks(lambda _: self.handle(Stored(ballot)), self._not_stored)

    def _not_stored(self, failure: object) -> None:
        error = getattr(failure, "value", None)
        if not isinstance(error, GridError):
            error = Unavailable(f"the vote was not stored: {error!r}")
        self._on_fatal(error)


def incarnate(link: Link) -> Member:
    """Who is at the other end, in the incarnation that it said (S2)."""
    assert link.peer_hello is not None
    return Member(link.peer.name, link.peer_hello.incarnation)
