"""The head: its log and state, its part among the heads, and what it answers to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message
from twisted.logger import Logger

from filegrid.ballot import BallotFile
from filegrid.config import Settings
from filegrid.datafolder import DataFolder
from filegrid.election.events import Claim
from filegrid.election.lease import Timing
from filegrid.election.messages import Ballot
from filegrid.election.preference import Preference, losses
from filegrid.election.quorum import Member
from filegrid.errors import GridError, InvalidRequest, NotLeader
from filegrid.head.backups import Backups
from filegrid.head.catching_up import StateReceiver, StateSender
from filegrid.head.headlog import HeadLog
from filegrid.head.journal import Journal
from filegrid.head.jury import Jury
from filegrid.head.lineage import STATE
from filegrid.head.liveness import Liveness
from filegrid.head.locations import Locations
from filegrid.head.namespace import Namespace
from filegrid.head.operations import OPERATORS
from filegrid.head.redundancy import Redundancy
from filegrid.head.registry import Registry
from filegrid.head.reign import CAUGHT_UP_ENTRIES, Reign
from filegrid.head.restraint import Restraint
from filegrid.head.roster import Roster
from filegrid.head.verbs import CLIENTS, VERBS
from filegrid.head.witness import Facts, Witness
from filegrid.model import Address, Epoch, Identity, Role
from filegrid.net.council import Council, incarnate
from filegrid.net.dial import DataPool, acceptor, hello_of
from filegrid.net.link import Caller, Handler, Link, Method
from filegrid.net.tasks import Loop, Tasks, shielded
from filegrid.protocol.frames import Plane
from filegrid.protocol.wire import backup_pb2, frame_pb2, head_pb2, health_pb2
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import replication_pb2 as replication
from filegrid.protocol.wire.health_pb2 import Event, Events
from filegrid.runtime import Listener, Runtime

RUN_BYTES = 8

TURN_SECONDS = 0.1
"""Between two looks at the servers; a dead one is noticed so much later at most."""

HOUSEKEEPING_SECONDS = 0.5
"""Between two looks for what has expired, and for heads that have come."""

LOOKS_PER_TURN = 8
"""Steps of the redundancy check in a row, before everybody else has a turn."""

FORWARD_SECONDS = 5.0

CHUNK_SERVERS = frozenset({Role.CHUNK})
HEADS = frozenset({Role.HEAD})
HEALTH = frozenset({Role.HEALTH})

_OF_SERVERS = frozenset({"register_server", "set_standing"})
"""Commands of the log that change what is known of chunk servers."""

MOST_EVENTS = 2000
"""In one answer; the newest of them."""

_log = Logger()


class Head:
    """One head server. All is open and loaded when it is made; :meth:`start` serves.

    :param identity: by its certificate, which expires at `certificate_expires_ms`.
    :param ballot: what was stored last in `ballots`.
    :param locations: an empty database for what chunk servers report.
    :param create: whether this head may make the grid, where its log is empty (S1).
    :param on_fatal: called once where the log cannot be written any more: the process must end.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        identity: Identity,
        *,
        folder: DataFolder,
        journal: Journal,
        namespace: Namespace,
        locations: Locations,
        ballots: BallotFile,
        ballot: Ballot,
        create: bool,
        on_fatal: Callable[[GridError], None],
        certificate_expires_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._identity = identity
        self._folder = folder
        self._namespace = namespace
        self._locations = locations
        self._create = create
        self._certificate_expires_ms = certificate_expires_ms
        self._reign: Reign | None = None
        self._listener: Listener | None = None
        self._links: dict[Link, None] = {}  # in order: every run is alike
        self._tasks = Tasks("a reign that ends")
        me = Member(identity.name, folder.incarnation)
        self._log = HeadLog(
            runtime,
            journal,
            namespace,
            founder=me if create else None,
            on_applied=self._applied,
            on_fatal=on_fatal,
        )
        self._witness = Witness(identity.name, on_fatal)
        self._on_disk = frame_pb2.OnDisk(
            run=runtime.random.randbytes(RUN_BYTES),
            log_index=self._log.position.index,
            epoch=ballot.epoch,
        )
        self._council = Council(
            runtime,
            self._log,
            self,
            me=me,
            role=Role.HEAD,
            member_of=incarnate,
            others=[one for one in settings.node.heads if one != settings.address],
            hello=self._hello,
            service=self._witness,
            ballots=ballots,
            ballot=ballot,
            timing=Timing(lease_seconds=settings.election.lease_seconds),
            priority=settings.election.priority,
            on_fatal=on_fatal,
        )
        self._sender = StateSender(runtime, folder, folder.within(STATE))
        self._backups = Backups(runtime, folder, folder.within(STATE))
        self._pool = DataPool(runtime, self._hello)
        self._receiver = StateReceiver(runtime, folder, self._log, namespace)
        self._preference = Preference()
        self._jury = Jury(runtime, self._council, settings.node.health, self._probed)
        self._liveness = Liveness(
            suspect_seconds=settings.chunk.suspect_seconds,
            dead_seconds=settings.chunk.dead_seconds,
            most_gap_seconds=10 * TURN_SECONDS,
        )
        self._registry = Registry(namespace)
        self._redundancy = Redundancy(
            namespace, locations, self._liveness, self._registry, runtime.clock.seconds
        )
        self._restraint = Restraint(settings.repair.restraint_seconds)
        self._roster = Roster(
            runtime,
            liveness=self._liveness,
            locations=locations,
            redundancy=self._redundancy,
            registry=self._registry,
            restraint=self._restraint,
            heartbeat_seconds=settings.chunk.heartbeat_seconds,
            suspect_seconds=settings.chunk.suspect_seconds,
            maintenance_seconds=settings.chunk.maintenance_seconds,
        )
        self.methods = self._methods()
        self._loops = [
            Loop(runtime.clock, self._turn, seconds=TURN_SECONDS, what="a turn of the head"),
            Loop(
                runtime.clock,
                self._housekeep,
                seconds=HOUSEKEEPING_SECONDS,
                what="the head's housekeeping",
            ),
        ]

    def _methods(self) -> Mapping[str, Method]:
        methods = {name: Method(CLIENTS, self._as_leader(name)) for name in VERBS}
        return {
            **methods,
            "empty_trash": Method(OPERATORS, self._as_leader("empty_trash")),
            "drain": Method(OPERATORS, self._as_leader("drain")),
            "set_policy": Method(OPERATORS, self._as_leader("set_policy")),
            "start_balance": Method(OPERATORS, self._as_leader("start_balance")),
            "repair_now": Method(OPERATORS, self._as_leader("repair_now")),
            "what_if": Method(CLIENTS, self._as_leader("what_if")),
            "get_status": Method(CLIENTS | HEADS, self._get_status),
            "hand_over": Method(OPERATORS, self._hand_over),
            "discard_unknown": Method(OPERATORS, self._as_leader("discard_unknown")),
            "add_head": Method(OPERATORS, self._as_leader("add_head")),
            "remove_head": Method(OPERATORS, self._as_leader("remove_head")),
            "begin_backup": Method(OPERATORS, self._leading(self._begin_backup)),
            "read_backup": Method(OPERATORS, self._leading(self._read_backup)),
            "end_backup": Method(OPERATORS, self._end_backup),
            "join": Method(CHUNK_SERVERS, self._roster.join),
            "leave": Method(CHUNK_SERVERS, self._roster.leave),
            "changes": Method(CHUNK_SERVERS, self._roster.changes),
            "elect": Method(HEADS, self._elect),
            "probe": Method(HEALTH, self._jury.probe),
            "get_events": Method(CLIENTS, self._get_events),
            "append_entries": Method(HEADS, self._append_entries),
            "install_state": Method(HEADS, self._install_state),
        }

    async def start(self) -> None:
        """Listen, and take part in the election.

        :raises Unavailable: where the port is taken.
        """
        await self._log.start()
        build = acceptor(Plane.CONTROL, self._runtime, self._hello, self)
        self._listener = await self._runtime.network.listen(self._settings.node.listen, build)
        self._log.moved = self._log_moved
        self._council.start()
        for loop in self._loops:
            loop.start()
        _log.info(
            "{name} listens at {address}",
            name=self._identity.name,
            address=self._listener.address,
        )

    @property
    def leads(self) -> bool:
        """Whether this head serves as the leader now."""
        return self._reign is not None and self._reign.serving and self._council.may_serve()

    @property
    def voters(self) -> int:
        """How many heads have a vote."""
        return len(self._log.voters)

    @property
    def live_chunk_servers(self) -> int:
        return len(self._roster.candidates())

    async def stop(self) -> None:
        """Take no more, finish what was accepted, and end."""
        if self._listener is not None:
            await self._listener.close()
        for loop in self._loops:
            loop.stop()
        self._council.hand_over(None)  # the others need not wait for the lease to run out
        self._end_reign("it is stopping")
        await self._council.stop()
        await self._tasks.finish()
        await self._roster.stop()
        await self._backups.stop()
        self._pool.close()
        await self._log.stop()
        for link in list(self._links):
            link.close()
        self._folder.close()

    def link_up(self, link: Link) -> None:
        if link.peer.role is Role.HEAD:
            self._witness.link_up(link)
        self._links[link] = None

    def link_down(self, link: Link, error: GridError) -> None:
        self._links.pop(link, None)
        self._witness.link_down(link, error)
        self._jury.link_down(link)
        self._roster.link_down(link)

    def _hello(self) -> frame_pb2.Hello:
        return hello_of(
            self._identity,
            incarnation=self._folder.incarnation,
            boot_count=self._folder.boot_count,
            on_disk=self._on_disk,
        )

    # Its part among the heads, as the council tells it.

    def lead(self, epoch: int) -> None:
        self._reign = Reign(
            self._runtime,
            self._settings,
            self._identity,
            epoch=Epoch(epoch),
            create=self._create,
            log=self._log,
            council=self._council,
            jury=self._jury,
            namespace=self._namespace,
            locations=self._locations,
            redundancy=self._redundancy,
            registry=self._registry,
            roster=self._roster,
            restraint=self._restraint,
            install=self._sender.send,
            witness=self._witness,
            backups=self._backups,
            pool=self._pool,
            certificate_expires_ms=self._certificate_expires_ms,
        )
        self._reign.begin()

    def step_down(self, epoch: int, reason: str) -> None:
        self._end_reign(reason)

    def follow(self, leader: Member, epoch: int) -> None:
        _log.info("{leader} leads epoch {epoch}", leader=leader.name, epoch=epoch)

    def hand_over_to(self, target: Member) -> None:
        if self._reign is not None:
            self._tasks.begin(self._give_way(self._reign, target))

    async def _give_way(self, reign: Reign, target: Member) -> None:
        try:
            await reign.hand_over(target)
        except GridError as error:
            _log.info(
                "{target} is preferred, and does not lead yet: {error}", target=target, error=error
            )

    def _end_reign(self, reason: str) -> None:
        reign, self._reign = self._reign, None
        if reign is not None:
            reign.end(reason)
            self._tasks.begin(reign.ended())

    def _log_moved(self) -> None:
        self._council.log_moved()
        if self._reign is not None:
            self._reign.log_moved()

    def _applied(
        self, entries: Sequence[journal.Entry], outcomes: Sequence[journal.Outcome]
    ) -> None:
        kinds = {entry.command.WhichOneof("change") for entry in entries}
        if not kinds.isdisjoint(_OF_SERVERS):
            for name in self._registry.refresh():
                self._redundancy.scan_server(name)
        if "discard_unknown" in kinds:
            self._redundancy.touch(list(self._redundancy.unknown))
        for outcome in outcomes:
            if outcome.released or outcome.published or outcome.resized:
                self._redundancy.touch(outcome.released)
                self._redundancy.touch(outcome.published)
                for content_id in outcome.resized:
                    self._redundancy.scan_content(content_id)
        if self._reign is not None:
            self._reign.applied(entries, outcomes)

    # What it is asked.

    def _as_leader(self, name: str) -> Handler:
        async def handle(caller: Caller, request: Message) -> Message:
            reign = self._reign
            if reign is None:
                raise self._not_leader()
            return await reign.serve(reign.methods[name], caller, request)

        return handle

    def _leading(self, handler: Handler) -> Handler:
        """What this head answers only while it leads, though it is not of the reign."""

        async def handle(caller: Caller, request: Message) -> Message:
            if self._reign is None:
                raise self._not_leader()
            return await self._reign.serve(Method(OPERATORS, handler), caller, request)

        return handle

    async def _begin_backup(self, caller: Caller, request: Message) -> backup_pb2.BackupBegun:
        return self._backups.begin()

    async def _read_backup(self, caller: Caller, request: Message) -> backup_pb2.BackupPiece:
        assert isinstance(request, backup_pb2.ReadBackup)
        return await self._backups.read(request)

    async def _end_backup(self, caller: Caller, request: Message) -> frame_pb2.Done:
        assert isinstance(request, backup_pb2.EndBackup)
        await shielded(self._backups.end(request.backup))
        return frame_pb2.Done()

    def _not_leader(self) -> NotLeader:
        leader = self._council.leader
        where = f"; {leader.name} does" if leader is not None else ""
        return NotLeader(
            f"this head does not lead{where}",
            self._identity.name,
            leader=self._council.leader_address,
        )

    async def _elect(self, caller: Caller, request: Message) -> frame_pb2.Done:
        self._witness.hear_message(caller.link, request)
        return await self._council.receive(caller, request)

    async def _append_entries(self, caller: Caller, request: Message) -> replication.Appended:
        assert isinstance(request, replication.AppendEntries)
        sender = incarnate(caller.link)
        self._witness.hear(caller.link, Facts(log_index=request.held_index, epoch=request.epoch))
        # A link that is lost takes its calls back; what is being written goes on all the same.
        return await shielded(
            self._log.follow(request, lambda: self._council.obeys(sender, request.epoch))
        )

    async def _install_state(self, caller: Caller, request: Message) -> replication.Appended:
        assert isinstance(request, replication.InstallState)
        sender = incarnate(caller.link)
        return await shielded(
            self._receiver.take(request, lambda: self._council.obeys(sender, request.epoch))
        )

    async def _get_events(self, caller: Caller, request: Message) -> Events:
        """What the log has noted, and what the health nodes keep beside it, in order."""
        answer = await self._jury.get_events(caller, request)
        logged = self._namespace.last_events(MOST_EVENTS)
        elections = {one.epoch for one in logged if one.kind == Event.KIND_ELECTION}
        kept = [
            one
            for one in answer.events
            if one.kind != Event.KIND_ELECTION or one.epoch not in elections
        ]
        events = sorted([*logged, *kept], key=lambda one: one.at_ms)
        return Events(events=events[-MOST_EVENTS:], incomplete=answer.incomplete)

    async def _get_status(self, caller: Caller, request: Message) -> Message:
        """Any head answers it: the leader itself, the others by asking the leader."""
        if self._reign is not None and self._reign.serving:
            method = self._reign.methods["get_status"]
            return await self._reign.serve(method, caller, request)
        leader = self._council.leader
        link = self._council.link_to(leader) if leader is not None else None
        if link is not None and caller.peer.role is not Role.HEAD:
            try:
                return await link.call(request, head_pb2.Status, timeout_seconds=FORWARD_SECONDS)
            except GridError as error:
                _log.info("the leader did not tell the status: {error}", error=error)
        return self._leaderless_status()

    def _leaderless_status(self) -> head_pb2.Status:
        registers, counts = self._namespace.registers(), self._namespace.counts()
        heads = [(self._council.me, self._settings.address), *self._council.linked()]
        return head_pb2.Status(
            grid_id=self._identity.grid_id,
            epoch=registers.applied_epoch,
            condition="red",
            because=["no head leads: nothing can be changed, and what is there is not known"],
            heads=[
                head_pb2.HeadStatus(
                    name=member.name,
                    address=str(address),
                    role="standby",
                    log_index=self._log.last_index if member == self._council.me else 0,
                )
                for member, address in heads
            ],
            health=self._jury.members(),
            verdicts=self._jury.verdicts,
            chunks=head_pb2.ChunkCounts(total=counts.chunks),
            files=counts.files,
            bytes=counts.bytes,
            warnings=["no head leads: nothing can be changed, and counts are not kept"],
        )

    def _probed(self) -> health_pb2.Probed:
        """What the health nodes judge by; from memory, whatever the disk does."""
        leader = self._council.leader or Member("")
        return health_pb2.Probed(
            leader=leader.name,
            incarnation=leader.incarnation,
            epoch=self._council.leader_epoch,
            serves=self.leads,
            last_index=self._log.last_index,
            applied_index=self._log.applied_index,
            disk_waits_ms=round(self._log.disk_waits_seconds * 1000),
            heads=self._roster.heads,
            voters=len(self._log.voters),
            has_no_vote=self._council.me not in self._log.voters,
        )

    async def _hand_over(self, caller: Caller, request: Message) -> frame_pb2.Done:
        assert isinstance(request, replication.HandOver)
        if self._reign is None or not self._reign.serving:
            raise self._not_leader()
        if request.head == self._identity.name:
            return frame_pb2.Done()
        for member, _ in self._council.linked():
            if member.name == request.head:
                await self._reign.hand_over(member)
                return frame_pb2.Done()
        raise InvalidRequest("no head of this name can be reached", request.head)

    # By itself.

    def _turn(self) -> None:
        if self._reign is not None:
            self._reign.turn()
        self._look()

    def _look(self) -> None:
        for _ in range(LOOKS_PER_TURN):
            if not self._redundancy.step():
                break

    def _housekeep(self) -> None:
        self._backups.expire()
        self._look_for_heads()
        self._claim()
        self._look()  # files are written all the time, and they judge only what was looked at
        if self._reign is not None:
            self._reign.housekeep()

    def _look_for_heads(self) -> None:
        """Dial heads that were added, and tell those who dial us of them.

        Also one that is to be removed, as long as it votes: no majority may be there without it.
        """
        voting = {voter.name for voter in self._log.voters}
        heads = {
            one.name: one.address
            for one in self._namespace.heads()
            if one.wanted or one.name in voting
        }
        # Before anything is applied again after a crash, a vote may be needed of one of these.
        heads |= {name: at for name, at in self._log.added.items() if name in voting}
        added = [address for address in heads.values() if address]
        self._roster.learn_heads(added)
        own = self._settings.address
        self._council.learn(one for text in added if (one := Address.parse(text)) != own)

    def _claim(self) -> None:
        """Ask for the lead, where this head is preferred and has been ready for long enough."""
        if not self._settings.election.priority:
            return
        leader, log = self._council.leader, self._log
        follows = leader not in (None, self._council.me)
        lacks = log.commit_index - log.applied_index  # as far as the leader has told
        if self._preference.asks(
            steady=follows and lacks <= CAUGHT_UP_ENTRIES,
            lost=self._lost,
            now=self._runtime.clock.seconds(),
        ):
            self._council.handle(Claim())

    def _lost(self) -> int:
        """How often this head lost the lead of late, as the log has noted it."""
        elections = self._namespace.elections()
        return losses(elections, self._identity.name, self._runtime.wall_seconds())
