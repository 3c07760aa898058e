"""What a head does while it leads, and only then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from google.protobuf.message import Message
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from filegrid.config import Settings
from filegrid.election.quorum import Member
from filegrid.errors import GridError, InvalidRequest, NotLeader, Unavailable
from filegrid.head.backups import Backups
from filegrid.head.balance import Balance
from filegrid.head.collector import Collector
from filegrid.head.drain import Drain
from filegrid.head.forecast import Forecasts
from filegrid.head.headlog import HeadLog
from filegrid.head.jury import Jury
from filegrid.head.ledger import Ledger
from filegrid.head.locations import Locations
from filegrid.head.membership import heir, next_voters
from filegrid.head.namespace import Namespace
from filegrid.head.operations import Operations
from filegrid.head.pruning import Pruning
from filegrid.head.redundancy import Redundancy
from filegrid.head.registry import Registry
from filegrid.head.repair import Repair
from filegrid.head.restraint import Restraint
from filegrid.head.roster import Roster, Server
from filegrid.head.shipping import Shipping
from filegrid.head.status import StatusReport
from filegrid.head.story import Story
from filegrid.head.vault import Vault
from filegrid.head.verbs import Verbs
from filegrid.head.witness import Witness
from filegrid.model import ChunkId, Epoch, Identity
from filegrid.net.council import Council
from filegrid.net.dial import DataPool
from filegrid.net.link import Caller, Link, Method
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire.head_pb2 import Changed
from filegrid.protocol.wire.journal_pb2 import Entry, Outcome
from filegrid.runtime import Runtime

FIRST_LINEAGE = 1
"""Of a grid that was created; a restored or rebuilt one has a higher one (S12)."""

PURGED_AT_ONCE = 256
"""Nodes and chunks taken out of the trash by one entry of the log."""

YIELDED_AT_ONCE = 16
"""Of what is in the trash, in one turn, while disks are full."""

POLICY_BATCHES = 8
"""Entries in one turn that have files follow the policies of their folders; changes wait for no
more than one of them."""

WRITTEN_OFF_AT_ONCE = 1024

CAUGHT_UP_ENTRIES = 1000
"""A head that is behind by no more than this gets a vote: it soon has the rest."""

HAND_OVER_SECONDS = 1.0
"""How long changes wait for a head that is to lead and lacks the end of the log."""

LOOK_SECONDS = 0.01

_log = Logger()


class Reign:
    """One epoch of one leader.

    :param create: whether this head may make the grid, where there is none (S1).
    :ivar serving: from when the barrier of the epoch is committed (S4) until the end.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        identity: Identity,
        *,
        epoch: Epoch,
        create: bool,
        log: HeadLog,
        council: Council,
        jury: Jury,
        namespace: Namespace,
        locations: Locations,
        redundancy: Redundancy,
        registry: Registry,
        roster: Roster,
        restraint: Restraint,
        install: Callable[[Link, int], Awaitable[int]],
        witness: Witness,
        backups: Backups,
        pool: DataPool,
        certificate_expires_ms: Callable[[], int],
    ) -> None:
        self.serving = False
        self._runtime = runtime
        self._identity = identity
        self._grid = settings.grid
        self._create = create
        self._log = log
        self._council = council
        self._namespace = namespace
        self._roster = roster
        self._registry = registry
        self._epoch = epoch
        self._tasks = Tasks("leading")
        self._ledger = Ledger(runtime, log, epoch=epoch, node=identity.name)
        self._shipping = Shipping(
            runtime,
            log,
            me=council.me,
            epoch=epoch,
            first_index=log.last_index + 1,
            link_to=council.link_to,
            install=install,
            witness=witness,
        )
        self._repair = Repair(
            runtime,
            roster,
            redundancy,
            restraint,
            namespace,
            mib_per_second=settings.repair.mib_per_second,
        )
        self._pruning = Pruning(runtime, roster, redundancy, self._repair.work)
        self._balance = Balance(
            runtime,
            roster,
            redundancy,
            locations,
            registry,
            namespace,
            self._repair,
            mib_per_second=settings.repair.mib_per_second,
            band_percent=settings.balance.band_percent,
        )
        self._collector = Collector(
            runtime,
            roster,
            redundancy,
            locations,
            namespace,
            grace_seconds=settings.grid.collection_grace_seconds,
            forget=self._write_off,
        )
        self._drain = Drain(
            runtime,
            roster,
            redundancy,
            locations,
            registry,
            namespace,
            propose=self._ledger.propose,
        )
        self._story = Story(runtime, namespace, roster, redundancy, propose=self._ledger.propose)
        self._vault = Vault(
            runtime,
            backups,
            namespace,
            roster,
            pool,
            name=identity.name,
            chunk_bytes=settings.grid.chunk_bytes,
            replication=settings.grid.replication,
            min_replicas=settings.grid.min_replicas,
            interval_seconds=settings.backup.interval_seconds,
            log_time_ms=lambda: self._ledger.log_time_ms,
            propose=self._ledger.propose,
            tell=self._story.tell,
        )
        self._report = StatusReport(
            runtime,
            council=council,
            jury=jury,
            shipping=self._shipping,
            address=settings.address,
            epoch=epoch,
            min_replicas=settings.grid.min_replicas,
            replication=settings.grid.replication,
            certificate_expires_ms=certificate_expires_ms,
            namespace=namespace,
            roster=roster,
            redundancy=redundancy,
            repair=self._repair,
            collector=self._collector,
            drain=self._drain,
            story=self._story,
            registry=registry,
            balance=self._balance,
            vault=self._vault,
        )
        verbs = Verbs(
            runtime,
            settings.grid,
            namespace=namespace,
            roster=roster,
            locations=locations,
            redundancy=redundancy,
            propose=self._ledger.propose,
            propose_many=self._ledger.propose_many,
            status=self._report.make,
        )
        operations = Operations(
            registry=registry,
            redundancy=redundancy,
            propose=self._ledger.propose,
            address_of=lambda name: (
                str(settings.address) if name == identity.name else council.address_of(name)
            ),
            roster=roster,
            drain=self._drain,
            balance=self._balance,
            forecasts=Forecasts(
                runtime,
                settings.grid,
                roster,
                locations,
                registry,
                namespace,
                mib_per_second=settings.repair.mib_per_second,
                wait_seconds=settings.chunk.dead_seconds,
                restraint_seconds=settings.repair.restraint_seconds,
            ),
        )
        self.methods: Mapping[str, Method] = {**verbs.methods, **operations.methods}

    # From the beginning to the end.

    def begin(self) -> None:
        self._log.grown = self._shipping.tell
        self.meet()
        self._tasks.begin(self._begin())

    async def _begin(self) -> None:
        try:
            await self._ledger.start()
            await self._need_grid()
        except (GridError, CancelledError) as error:
            _log.info("the reign ended before it began: {error}", error=error)
            return
        self._registry.refresh()  # a state that was installed says so without commands
        self._roster.lead(
            self._namespace.registers().lineage,
            self._epoch,
            self._namespace.servers(),
            lambda server: self._tasks.begin(self._register(server)),
            self._story.tell,
        )
        self.serving = True
        _log.info("{name} leads epoch {epoch}", name=self._identity.name, epoch=self._epoch)

    def end(self, reason: str) -> None:
        """Answer nothing as leader any more, from this very moment."""
        self.serving = False
        self._log.grown = lambda: None
        self._shipping.end()
        self._roster.follow()
        self._ledger.end(NotLeader(f"this head leads no more ({reason})", self._identity.name))

    async def ended(self) -> None:
        """Return once nothing of it runs any more."""
        await self._repair.stop()
        await self._pruning.stop()
        await self._collector.stop()
        await self._drain.stop()
        await self._story.stop()
        await self._vault.stop()
        await self._tasks.stop()
        await self._shipping.ended()
        await self._ledger.drained()

    async def _need_grid(self) -> None:
        """Create the grid where this head was told to, once (S1)."""
        if self._namespace.registers().grid_id or not self._create:
            return
        created = journal.CreateGrid(
            grid_id=self._identity.grid_id,
            lineage=FIRST_LINEAGE,
            founding=self._runtime.random.randbytes(16),
        )
        await self._ledger.propose(journal.Command(create_grid=created))
        await self._configure({self._council.me})

    # What it is told.

    def applied(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        self._ledger.applied(entries, outcomes)

    def log_moved(self) -> None:
        """More is durable here, or the configuration has changed."""
        self._shipping.count()

    def meet(self) -> None:
        """Ship the log to every head that can be reached, and to all voters."""
        linked = {member for member, _ in self._council.linked()}
        self._council.admit(linked)
        self._shipping.serve(linked | self._log.voters)

    async def serve(self, method: Method, caller: Caller, request: Message) -> Message:
        """Answer as the leader; and only if this head was it all the time (S5)."""
        self._need_lead()
        answer = await method.handle(caller, request)
        if not caller.call.HasField("once") and not isinstance(answer, Changed):
            # What was read is answered only under a lease that still runs. A change is committed,
            # whoever leads by now.
            self._need_lead()
        return answer

    def _need_lead(self) -> None:
        if not self.serving or not self._council.may_serve():
            raise NotLeader("this head does not lead", self._identity.name)

    # By itself.

    def turn(self) -> None:
        if self.serving:
            self._roster.judge()
            self._story.turn()
            self._repair.turn()
            self._pruning.turn()

    def housekeep(self) -> None:
        self.meet()
        if self.serving:
            self._collector.turn()
            self._drain.turn()
            self._balance.turn()
            self._vault.turn()
            if len(self._tasks) == 0:
                self._tasks.begin(self._expire())
                self._tasks.begin(self._keep_voters())

    async def _expire(self) -> None:
        """Log what the passing of time has ended (S9: log time, not a clock's)."""
        now_ms = self._ledger.log_time_ms
        due = self._namespace.sessions_due(now_ms)
        try:
            if due:
                expired = journal.ExpireSessions(sessions=due)
                await self._ledger.propose(journal.Command(expire_sessions=expired))
            while self._namespace.purge_due(now_ms):
                purge = journal.PurgeTrash(limit=PURGED_AT_ONCE)
                await self._ledger.propose(journal.Command(purge_trash=purge))
            for _ in range(POLICY_BATCHES):
                if not self._namespace.policies_to_apply():
                    break
                apply = journal.ApplyPolicies(limit=PURGED_AT_ONCE)
                await self._ledger.propose(
                    journal.Command(apply_policies=apply, replication=self._grid.replication)
                )
            await self._yield_trash()
        except GridError as error:
            _log.warn("what has expired stays for now: {error}", error=error)

    async def _yield_trash(self) -> None:
        """Under pressure the oldest in the trash yields (S22), until enough is on its way back.

        That comes only after the grace; all the trash would be gone by then.
        """
        for _ in range(YIELDED_AT_ONCE):
            if not self._is_full() or not self._namespace.list_trash(0, 1):
                return
            purge = journal.PurgeTrash(limit=PURGED_AT_ONCE, early=True)
            await self._ledger.propose(journal.Command(purge_trash=purge))

    def _is_full(self) -> bool:
        """Whether there is too little room for a chunk, also when what was released is gone."""
        wanted = self._grid.chunk_bytes, self._grid.replication
        return self._roster.is_full(*wanted) and self._roster.is_full(
            *wanted, self._collector.coming_bytes()
        )

    async def _keep_voters(self) -> None:
        """One step towards the heads that are to vote; :mod:`filegrid.head.membership` says why it
        is safe. None is begun before the one before is committed (S7)."""
        if self._log.configuration_index > self._log.commit_index:
            return
        me, voters = self._council.me, self._log.voters
        present = [member for member, _ in self._council.linked()]
        removed = {one.name for one in self._namespace.heads() if not one.wanted}
        following = next_voters(
            voters, me=me, present=present, removed=removed, ready=self._is_ready
        )
        if following is not None:
            _log.info(
                "the heads that vote are to be {voters}",
                voters=", ".join(one.name for one in sorted(following)),
            )
            assert len(voters ^ following) == 1, (voters, following)
            await self._configure(set(following))
            return
        target = heir(
            voters, me=me, present=present, removed=removed, matched=self._shipping.matched
        )
        if target is not None:
            try:
                await self.hand_over(target)
            except GridError as error:
                _log.warn("a head that is to be removed still leads: {error}", error=error)

    def _is_ready(self, member: Member) -> bool:
        matched = self._shipping.matched(member)
        return bool(matched) and self._log.commit_index - matched <= CAUGHT_UP_ENTRIES

    async def _configure(self, voters: set[Member]) -> None:
        named = [
            journal.Voter(name=one.name, incarnation=one.incarnation) for one in sorted(voters)
        ]
        change = journal.Configure(voters=named)
        try:
            await self._ledger.propose(journal.Command(configure=change))
        except GridError as error:
            _log.warn("the voters stay as they are for now: {error}", error=error)

    async def _register(self, server: Server) -> None:
        known = journal.RegisterServer(
            name=server.name,
            incarnation=server.incarnation,
            rack=server.rack,
            address=server.address,
        )
        try:
            await self._ledger.propose(journal.Command(register_server=known))
        except GridError as error:
            # Known to this head all the same; it is logged when it joins the next time.
            _log.error("{name} is not registered: {error}", name=server.name, error=error)

    async def _write_off(self, chunk_ids: Sequence[ChunkId]) -> None:
        for start in range(0, len(chunk_ids), WRITTEN_OFF_AT_ONCE):
            gone = journal.ForgetReleased(chunk_ids=chunk_ids[start : start + WRITTEN_OFF_AT_ONCE])
            await self._ledger.propose(journal.Command(forget_released=gone))

    # Handing over.

    async def hand_over(self, target: Member) -> None:
        """Let another head lead, once it has all of the log: changes wait meanwhile.

        :raises InvalidRequest: where it has no vote or cannot be reached.
        :raises Unavailable: where it does not get the end of the log in time; this head leads on.
        :raises NotLeader: where this head leads no more.
        """
        if target not in self._log.voters or self._council.link_to(target) is None:
            raise InvalidRequest("this head cannot lead now", target.name)
        if self._log.last_index - self._shipping.matched(target) > CAUGHT_UP_ENTRIES:
            raise Unavailable("it is far behind", target.name, advice="it catches up by itself")
        self._ledger.pause()
        try:
            await self._ship_the_end(target)
            self._need_lead()  # or it would be another reign of this head that ends
        except (GridError, CancelledError):  # whoever asked may be gone; the reign goes on
            self._ledger.resume()
            raise
        self._council.hand_over(target)

    async def _ship_the_end(self, target: Member) -> None:
        deadline_at = self._runtime.clock.seconds() + HAND_OVER_SECONDS
        while self._shipping.matched(target) < self._log.last_index:
            if self._runtime.clock.seconds() > deadline_at:
                raise Unavailable("it does not get the end of the log", target.name)
            await self._runtime.sleep(LOOK_SECONDS)
