"""What `filegrid status` shows, as the leading head sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from filegrid.head.balance import Balance
from filegrid.head.collector import Collector
from filegrid.head.drain import Drain
from filegrid.head.jury import Jury
from filegrid.head.liveness import State
from filegrid.head.redundancy import Redundancy
from filegrid.head.registry import Registry
from filegrid.head.repair import Repair
from filegrid.head.roster import Roster, Server
from filegrid.head.shipping import Shipping
from filegrid.head.story import Story
from filegrid.head.vault import Vault
from filegrid.head.view import View
from filegrid.model import Address
from filegrid.net.council import Council
from filegrid.protocol.wire import head_pb2 as wire
from filegrid.runtime import Runtime

WARN_DAYS = 30
"""Before a certificate expires."""

_DAY_MS = 86_400_000


class StatusReport:
    """Puts the state of the grid together from what its parts know; nothing is counted anew."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        council: Council,
        jury: Jury,
        shipping: Shipping,
        address: Address,
        epoch: int,
        min_replicas: int,
        replication: int,
        certificate_expires_ms: Callable[[], int],
        namespace: View,
        roster: Roster,
        redundancy: Redundancy,
        repair: Repair,
        collector: Collector,
        drain: Drain,
        registry: Registry,
        balance: Balance,
        story: Story,
        vault: Vault,
    ) -> None:
        self._runtime = runtime
        self._council = council
        self._jury = jury
        self._shipping = shipping
        self._address = address
        self._name = council.me.name
        self._epoch = epoch
        self._min_replicas = min_replicas
        self._replication = replication
        self._certificate_expires_ms = certificate_expires_ms
        self._namespace = namespace
        self._roster = roster
        self._redundancy = redundancy
        self._repair = repair
        self._collector = collector
        self._drain = drain
        self._registry = registry
        self._balance = balance
        self._story = story
        self._vault = vault

    def make(self) -> wire.Status:
        registers = self._namespace.registers()
        counts = self._namespace.counts()
        condition, because = self._condition()
        return wire.Status(
            grid_id=registers.grid_id,
            epoch=self._epoch,
            leader=self._name,
            heads=self._heads(registers.applied_index),
            health=self._jury.members(),
            verdicts=self._jury.verdicts,
            chunk_servers=self._servers(),
            chunks=self._chunks(counts.chunks),
            files=counts.files,
            bytes=counts.bytes,
            warnings=self._warnings(),
            condition=condition,
            because=because,
            work=[*self._repairing(), *self._draining(), *self._balancing()],
            backups=self._vault.status(),
        )

    def _heads(self, log_index: int) -> list[wire.HeadStatus]:
        """Every head that votes or can be reached; without a vote it counts as down."""
        heads = {
            self._name: wire.HeadStatus(
                name=self._name, address=str(self._address), role="leader", log_index=log_index
            )
        }
        voters, removed = self._shipping.voters, self._removed()
        for member, address in self._council.linked():
            if member not in voters and member.name in removed:
                continue
            heads[member.name] = wire.HeadStatus(
                name=member.name,
                address=str(address),
                role="standby" if member in voters else "down",
                log_index=self._shipping.matched(member),
            )
        for voter in voters:
            heads.setdefault(voter.name, wire.HeadStatus(name=voter.name, role="down"))
        return [heads[name] for name in sorted(heads)]

    def _removed(self) -> set[str]:
        """Names of heads that are to have no vote."""
        return {one.name for one in self._namespace.heads() if not one.wanted}

    def _changing_heads(self) -> Iterator[str]:
        voters, removed = {one.name for one in self._shipping.voters}, self._removed()
        linked = {member.name for member, _ in self._council.linked()}
        for name in sorted(removed):
            if name in voters:
                yield f"{name} is being removed: that waits until the other heads can decide alone"
            elif name in linked:
                yield f"{name} was removed and still runs: stop it"
        for one in self._namespace.heads():
            if not one.wanted or one.name in voters:
                continue
            if one.name not in linked:
                yield f"{one.name} was added and cannot be reached at {one.address}"
            elif away := sorted(voters - linked - {self._name}):
                yield (
                    f"{one.name} was added and gets no vote before {', '.join(away)} can be"
                    " reached, or is removed"
                )

    def _servers(self) -> list[wire.ServerStatus]:
        return [
            wire.ServerStatus(
                name=server.name,
                address=server.address,
                rack=server.rack,
                state=self._state(server.name),
                reason=self._reason(server),
                disks=server.load.disks,
                capacity_bytes=server.load.capacity_bytes,
                free_bytes=server.load.free_bytes,
                chunks=server.load.chunks,
                cpu_percent=server.load.cpu_percent,
                network_bytes_per_second=server.load.network_bytes_per_second,
                disk_bytes_per_second=server.load.disk_bytes_per_second,
                certificate_expires_ms=server.load.certificate_expires_ms,
                scrubbed=server.load.scrubbed,
            )
            for server in sorted(self._roster, key=lambda one: one.name)
        ]

    def _state(self, name: str) -> str:
        state = self._drain.state(name)
        is_live = state == State.LIVE.value
        return State.SUSPECT.value if is_live and self._roster.suspicion(name) else state

    def _reason(self, server: Server) -> str:
        """What is wrong with a server; empty where nothing is."""
        if self._roster.is_gone(server.name):
            return ""  # nobody expects it back
        if self._roster.state(server.name) is not State.LIVE:
            away = self._roster.silent_seconds(server.name)
            link = "its link is lost, and " if server.link is None else ""
            return f"{link}it was last heard of {away:.0f} s ago"
        wrong = [self._roster.suspicion(server.name)]
        if server.load.trouble:
            wrong.append(f"it cannot be written to: {server.load.trouble}")
        else:
            wrong += [f"disk {one.path}: {one.trouble}" for one in server.load.disks if one.trouble]
        return "; ".join(filter(None, wrong))

    def _chunks(self, total: int) -> wire.ChunkCounts:
        deficits = self._redundancy.deficits
        corrupt = sum(chunk_id in self._redundancy.condemned for chunk_id in deficits)
        missing = sum(
            not deficit.sources and deficit.record.chunk.id not in self._redundancy.condemned
            for deficit in deficits.by_urgency()
        )
        return wire.ChunkCounts(
            total=total,
            healthy=max(0, total - len(deficits)),
            under_replicated=len(deficits) - corrupt - missing,
            missing=missing,
            corrupt=corrupt,
            repairing=len(self._repair.running),
            short=[
                wire.ShortChunks(replicas=left, chunks=count, since_ms=self._wall_ms(since))
                for left, count, since in deficits.groups()
            ],
        )

    def _wall_ms(self, at: float) -> int:
        """A moment of this head's clock, for people."""
        ago_seconds = self._runtime.clock.seconds() - at
        return round((self._runtime.wall_seconds() - ago_seconds) * 1000)

    # What all that means.

    def _condition(self) -> tuple[str, list[str]]:
        """Green only where that was checked: every server has reported to this leader, all that
        they hold was compared with what files want, and nothing is in the way of the next fault."""
        if not (self._roster.complete and self._redundancy.settled):
            return "unknown", ["not all chunk servers have reported to this leader yet"]
        because = [*self._shortages(), *self._absent()]
        lost = any(left == 0 for left, _, _ in self._redundancy.deficits.groups())
        return "red" if lost else "yellow" if because else "green", because

    def _shortages(self) -> Iterator[str]:
        for left, count, since in self._redundancy.deficits.groups():
            seconds = self._runtime.clock.seconds() - since
            replicas = {0: "no good replica", 1: "one replica"}.get(left, f"{left} replicas")
            yield f"{count} chunks have {replicas} for {seconds:.0f} s: {self._story.cause()}"

    def _absent(self) -> Iterator[str]:
        for server in self._servers():
            if server.state not in (State.LIVE.value, "drained", "draining") or server.reason:
                yield f"{server.name} is {server.state}: {server.reason or 'no reason is known'}"
        roles = {head.name: head.role for head in self._heads(0)}
        roles.update((member.name, member.role) for member in self._jury.members())
        yield from (f"{name} is down" for name, role in roles.items() if role == "down")

    # What goes on, and how long it takes at the most: what may be spent on it decides.

    def _repairing(self) -> Iterator[wire.Work]:
        deficits = self._redundancy.deficits
        if deficits:
            yield wire.Work(
                kind="repair",
                chunks_left=len(deficits),
                bytes_left=deficits.bytes,
                seconds_left=deficits.bytes / self._repair.bytes_per_second,
                waits_for=self._repair.waits_for,
            )

    def _draining(self) -> Iterator[wire.Work]:
        for name in sorted(self._registry.leaving):
            if self._drain.state(name) == "draining":
                chunks, size = self._drain.waiting(name)
                yield wire.Work(
                    kind="drain",
                    server=name,
                    chunks_left=chunks,
                    bytes_left=size,
                    seconds_left=size / self._repair.bytes_per_second,
                )

    def _balancing(self) -> Iterator[wire.Work]:
        if self._balance.active:
            yield wire.Work(
                kind="balance",
                bytes_left=self._balance.bytes_left,
                seconds_left=self._balance.bytes_left / self._balance.bytes_per_second,
            )

    def _warnings(self) -> list[str]:
        warnings = []
        if not (self._roster.complete and self._redundancy.settled):
            warnings.append("not all chunk servers have reported yet: the counts are not final")
        taking = len(self._roster.candidates())
        if taking < self._min_replicas:
            warnings.append(
                f"{taking} chunk servers take chunks: writes need {self._min_replicas} of them"
            )
        elif taking < self._replication:
            warnings.append(
                f"{taking} chunk servers take chunks: new files get {taking} replicas, not"
                f" {self._replication}, until there are more"
            )
        warnings += [
            f"{member.name} is catching up and has no vote yet"
            for member, _ in self._council.linked()
            if member not in self._shipping.voters and member.name not in self._removed()
        ]
        warnings += self._changing_heads()
        if self._vault.failure:
            warnings.append(f"no backup could be kept in the grid: {self._vault.failure}")
        if unknown := len(self._redundancy.unknown):
            warnings.append(
                f"{unknown} chunks of before the restore are kept that no file names;"
                " 'filegrid discard-unknown' lets them go"
            )
        if self._collector.held_back:
            warnings.append(
                f"{self._collector.held_back} chunks that no file names are kept: so many at once"
                " wait for a person"
            )
        warnings += [
            f"{server.name} was stopped in good order: what it holds is made anew in"
            f" {self._roster.away_seconds(server.name):.0f} s, unless it returns"
            for server in self._roster
            if self._roster.away_seconds(server.name)
        ]
        warnings += [
            f"{server.name} cannot be written to: {server.load.trouble}"
            for server in self._roster
            if server.load.trouble
        ]
        expiries = [(self._name, self._certificate_expires_ms())]
        expiries += [(one.name, one.load.certificate_expires_ms) for one in self._roster]
        expiries += self._jury.certificate_expiries()
        now_ms = self._runtime.wall_seconds() * 1000
        for name, expires_ms in expiries:
            days = (expires_ms - now_ms) / _DAY_MS
            if expires_ms and days < WARN_DAYS:
                warnings.append(
                    f"the certificate of {name} expires in {max(0, int(days))} days;"
                    " run 'filegrid ca renew'"
                )
        return warnings
