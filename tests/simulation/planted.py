"""Bugs, each planted alone, that a campaign has to find: they show that the checkers can fail.

Each is what somebody might write, or leave out, and breaks a rule on which the promises rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred

from filegrid.ballot import BallotFile
from filegrid.chunk import intake
from filegrid.chunk.fence import Fence
from filegrid.chunk.store import Store
from filegrid.chunk.volumes import Volumes
from filegrid.client import fetching, session
from filegrid.client.content import Content
from filegrid.client.delivery import Delivery
from filegrid.client.grid import OPEN_CHUNKS
from filegrid.client.hedging import Hedges
from filegrid.client.stat import Stat
from filegrid.datafolder import DataFolder
from filegrid.election.quorum import Member, Membership
from filegrid.errors import OutdatedDisk
from filegrid.hashing import BlockVerifier
from filegrid.head import opening, shipping
from filegrid.head.changes import Changes
from filegrid.head.collector import Collector
from filegrid.head.headlog import HeadLog
from filegrid.head.ledger import Ledger
from filegrid.head.locations import Locations
from filegrid.head.namespace import Namespace
from filegrid.head.nodes import Stored
from filegrid.head.policies import Policies
from filegrid.head.pruning import Pruning
from filegrid.head.reign import Reign
from filegrid.head.roster import Roster
from filegrid.head.service import Head
from filegrid.head.sessions import Sessions
from filegrid.head.trash import Trash
from filegrid.head.witness import Witness
from filegrid.model import Epoch, Identity, SessionId, unique_id
from filegrid.net.council import Council
from filegrid.net.dial import DataPool
from filegrid.net.link import Link
from filegrid.protocol.wire.head_pb2 import OpenedFile, OpenFile
from filegrid.protocol.wire.journal_pb2 import Command
from filegrid.protocol.wire.values_pb2 import Publish
from filegrid.runtime import Disk
from filegrid.simulation import grid
from filegrid.simulation.disk import SimulatedFile
from filegrid.simulation.scenario import Scenario

Patch: TypeAlias = Callable[[Any, str, Any], object]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A bug, and runs that find it.

    :ivar faults: under which it shows soonest.
    """

    plant: Callable[[Patch], None]
    faults: Sequence[str]
    seconds: float = 30.0
    seconds_per_strike: float = 2.0

    @property
    def scenario(self) -> Scenario:
        return Scenario(
            seconds=self.seconds,
            seconds_per_strike=self.seconds_per_strike,
            faults=self.faults,
        )


def _unsynced(patch: Patch, *parts: str) -> None:
    """Files whose paths have one of these parts are never synced."""
    real = SimulatedFile.datasync

    def datasync(file: SimulatedFile) -> None:
        if not any(part in file._path for part in parts):
            real(file)

    patch(SimulatedFile, "datasync", datasync)


def _log_not_synced(patch: Patch) -> None:
    _unsynced(patch, "/log/")


def _chunks_not_synced(patch: Patch) -> None:
    _unsynced(patch, "/tmp/", "/segments/")


def _half_is_a_quorum(patch: Patch) -> None:
    def has_majority(membership: Membership, members: Collection[Member]) -> bool:
        return 2 * len(membership.voters.intersection(members)) >= len(membership.voters) - 1

    patch(Membership, "has_majority", has_majority)


def _committed_by_one(patch: Patch) -> None:
    def committed(matched: Mapping[Member, int], voters: Collection[Member]) -> int:
        return max(matched.values())

    patch(shipping, "committed", committed)


def _created_again(patch: Patch) -> None:
    """The first head makes a grid whenever its disk is empty."""
    real = opening.open_head

    def open_head(*parts: Any, create: bool, **others: Any) -> Head:
        identity = parts[2]
        return real(*parts, create=create or identity.name == "head-1", **others)

    patch(grid, "open_head", open_head)


def _barrier_not_waited_for(patch: Patch) -> None:
    """A leader serves before it has applied what others committed."""
    real = Ledger.propose

    async def propose(ledger: Ledger, command: Command) -> object:
        proposed = Deferred.fromCoroutine(real(ledger, command))
        if not command.HasField("barrier"):
            return await proposed
        proposed.addErrback(lambda _: None)
        return None

    patch(Ledger, "propose", propose)


def _voters_changed_at_once(patch: Patch) -> None:
    """The next change of the voters is begun before the one before is committed."""
    real = Reign._configure

    async def configure(reign: Reign, voters: set[Member]) -> None:
        Deferred.fromCoroutine(real(reign, voters)).addErrback(lambda _: None)

    patch(Reign, "_configure", configure)
    patch(HeadLog, "configuration_index", property(lambda log: 0))


def _versions_ignored(patch: Patch) -> None:
    """What somebody else changed meanwhile is replaced all the same."""

    def check_base(changes: Changes, change: Publish, old: Stored | None, path: str) -> bytes:
        return (old.content_id or b"") if old and change.inherited_chunks else b""

    patch(Changes, "_check_base", check_base)


def _open_files_change(patch: Patch) -> None:
    """A file is resolved anew by each read."""
    real = Content.pread

    async def pread(content: Content, offset: int, length: int) -> bytes:
        request = OpenFile(path=content.stat.path, limit=OPEN_CHUNKS)
        opened = await content._access.session.call(request, OpenedFile)
        now = Content(content._access, Stat.from_wire(opened.node), opened.page)
        return await real(now, offset, length)

    patch(Content, "pread", pread)


def _unknown_is_missing(patch: Patch) -> None:
    """A new leader repairs before all servers have reported to it."""
    patch(Roster, "accounted", True)


def _lease_ignored(patch: Patch) -> None:
    patch(Council, "may_serve", lambda council: council._serves_until > 0)


def _results_forgotten(patch: Patch) -> None:
    patch(Sessions, "admit", lambda sessions, once, client: None)
    patch(Sessions, "record", lambda sessions, once, outcome: None)


def _stale_replicas_count(patch: Patch) -> None:
    """What a server says that it has no more stays in the books."""
    patch(Locations, "remove", lambda locations, name, chunk_ids: None)


def _open_uploads_collected(patch: Patch) -> None:
    patch(Collector, "_is_abandoned", lambda collector, chunk_id: True)


def _not_read_back(patch: Patch) -> None:
    """Replicas that are too many go without a look at those that stay."""

    async def read_back(pruning: Pruning, name: str, chunk: object) -> bool:
        return True

    patch(Pruning, "_read_back", read_back)


def _not_verified(patch: Patch) -> None:
    patch(BlockVerifier, "check", lambda verifier, first, *pieces: None)
    patch(fetching, "check_whole", lambda chunk, data: None)


def _nothing_removed(patch: Patch) -> None:
    patch(Volumes, "remove", lambda volumes, chunk_id: None)
    patch(Store, "remove", lambda store, chunk_id: None)


def _connections_left_open(patch: Patch) -> None:
    patch(DataPool, "close", lambda pool: None)


def _votes_not_stored(patch: Patch) -> None:
    patch(BallotFile, "write", lambda ballots, ballot: None)


def _any_head_is_obeyed(patch: Patch) -> None:
    def admit(fence: Fence, lineage: int, epoch: Epoch) -> bool:
        fence.highest = (lineage, epoch)
        return fence.highest != fence._stored

    patch(Fence, "admit", admit)


def _epochs_ignored(patch: Patch) -> None:
    patch(Fence, "admit", lambda fence, lineage, epoch: False)


def _quotas_ignored(patch: Patch) -> None:
    patch(Policies, "check_room", lambda policies, gains: None)


def _policies_not_followed(patch: Patch) -> None:
    """What comes to another folder keeps the replication that it had."""
    patch(Policies, "moved", lambda policies, node, before, parent, default: [])


def _trash_purged_early(patch: Patch) -> None:
    real = Trash.purge

    def purge(trash: Trash, limit: int) -> object:
        trash.hurry(())
        return real(trash, limit)

    patch(Trash, "purge", purge)


def _no_second_requests(patch: Patch) -> None:
    """Readers wait for a replica until it has failed."""
    patch(Hedges, "_late", lambda *_: None)


def _late_servers_waited_for(patch: Patch) -> None:
    """Small files wait for every server of theirs until it has failed."""
    patch(Delivery, "_late", lambda _: None)


def _writers_not_discarded(patch: Patch) -> None:
    """What was begun for nobody, as its disk hung, is kept."""
    patch(intake, "claimed", lambda beginning, _: beginning)


def _state_not_synced(patch: Patch) -> None:
    """The log is cut below what was applied, whether that is on disk or not."""
    patch(Namespace, "checkpoint", lambda namespace: namespace.applied_index)


def _old_disks_welcomed(patch: Patch) -> None:
    real = Witness.link_up

    def link_up(witness: Witness, link: Link) -> None:
        with suppress(OutdatedDisk):
            real(witness, link)

    patch(Witness, "link_up", link_up)


def _emptied_heads_are_the_same(patch: Patch) -> None:
    """A head that lost its disk votes as the one that it was."""
    real = DataFolder.open

    def open_folder(disk: Disk, path: str, *, identity: Identity, **others: Any) -> DataFolder:
        return real(
            disk, path, identity=identity, **{**others, "rng": random.Random(identity.name)}
        )

    patch(DataFolder, "open", open_folder)
    _old_disks_welcomed(patch)  # or that would find it, too


def _log_time_is_wall_time(patch: Patch) -> None:
    patch(Ledger, "log_time_ms", property(lambda ledger: round(ledger._wall_seconds() * 1000)))


def _ids_given_twice(patch: Patch) -> None:
    """What two sessions number alike has one id."""
    patch(session, "unique_id", lambda _, number: unique_id(SessionId(1), number))


PLANTED: dict[str, Planted] = {
    "votes_not_stored": Planted(plant=_votes_not_stored, faults=("crash-head", "hand-over")),
    "any_head_is_obeyed": Planted(
        plant=_any_head_is_obeyed,
        faults=("pause-head", "isolate-head", "part-heads"),
    ),
    "epochs_ignored": Planted(plant=_epochs_ignored, faults=()),
    "log_not_synced": Planted(plant=_log_not_synced, faults=("crash-head", "power")),
    "chunks_not_synced": Planted(plant=_chunks_not_synced, faults=("power", "crash-chunk")),
    "half_is_a_quorum": Planted(
        plant=_half_is_a_quorum,
        faults=("isolate-head", "part-heads"),
    ),
    "created_again": Planted(plant=_created_again, faults=("wipe-head", "kill-head")),
    "barrier_not_waited_for": Planted(
        plant=_barrier_not_waited_for, faults=("crash-head", "hand-over")
    ),
    "voters_changed_at_once": Planted(
        plant=_voters_changed_at_once,
        faults=("wipe-head", "add-head", "hang-head-disk", "remove-head"),
    ),
    "versions_ignored": Planted(plant=_versions_ignored, faults=("slow-chunk-disk", "cut-clients")),
    "open_files_change": Planted(plant=_open_files_change, faults=()),
    "unknown_is_missing": Planted(
        plant=_unknown_is_missing, faults=("kill-chunk", "kill-head", "hand-over")
    ),
    "committed_by_one": Planted(
        plant=_committed_by_one,
        faults=("isolate-head", "part-heads", "kill-head"),
    ),
    "lease_ignored": Planted(
        plant=_lease_ignored,
        faults=("pause-head", "part-heads", "isolate-head"),
    ),
    "results_forgotten": Planted(
        plant=_results_forgotten,
        faults=("kill-head", "reset", "mute-head"),
    ),
    "stale_replicas_count": Planted(plant=_stale_replicas_count, faults=("rot", "kill-chunk")),
    "open_uploads_collected": Planted(
        plant=_open_uploads_collected,
        faults=("mute-head", "cut-clients", "pause-chunk"),
    ),
    "not_read_back": Planted(
        plant=_not_read_back, faults=("rot", "drain"), seconds=60.0, seconds_per_strike=1.0
    ),
    "not_verified": Planted(plant=_not_verified, faults=("rot",)),
    "nothing_removed": Planted(plant=_nothing_removed, faults=()),
    "connections_left_open": Planted(plant=_connections_left_open, faults=()),
    "quotas_ignored": Planted(plant=_quotas_ignored, faults=()),
    "policies_not_followed": Planted(plant=_policies_not_followed, faults=()),
    "no_second_requests": Planted(plant=_no_second_requests, faults=()),
    "late_servers_waited_for": Planted(plant=_late_servers_waited_for, faults=()),
    "writers_not_discarded": Planted(
        plant=_writers_not_discarded,
        faults=("hang-chunk-disk", "mute-chunk"),
    ),
    "state_not_synced": Planted(plant=_state_not_synced, faults=("crash-head", "power")),
    "old_disks_welcomed": Planted(
        plant=_old_disks_welcomed, faults=("old-head", "kill-head", "hand-over")
    ),
    "emptied_heads_are_the_same": Planted(
        plant=_emptied_heads_are_the_same, faults=("wipe-head", "part-heads", "kill-head")
    ),
    "log_time_is_wall_time": Planted(
        plant=_log_time_is_wall_time, faults=("wall-clock", "hand-over")
    ),
    "ids_given_twice": Planted(plant=_ids_given_twice, faults=()),
    "trash_purged_early": Planted(plant=_trash_purged_early, faults=("add-chunk",)),
}
