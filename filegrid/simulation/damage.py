"""What befalls the disks of a simulated grid, as far as its promises allow it.

Of heads a majority keeps its disks, and of each chunk at least one replica stays (S3, S16).
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from filegrid.datafolder import NODE_FILE
from filegrid.election.quorum import Member
from filegrid.errors import OutdatedDisk
from filegrid.head.service import Head
from filegrid.head.witness import Facts
from filegrid.model import Chunk, ChunkId
from filegrid.simulation.grid import Machine, SimulatedGrid
from filegrid.simulation.inode import Folder
from filegrid.simulation.scenario import Strike, pick
from filegrid.simulation.stored import named_chunks, stored_chunks, where_stored

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign
    from filegrid.simulation.misfortune import Misfortune

FULL_BYTES = 260 * 1024 * 1024
"""Of a disk on which hardly more than the reserve fits."""

SOON_SECONDS = 0.05
MEETING_SECONDS = 3.0
"""Within this a head has met the others that can be reached so soon."""


class Damage:
    """Each kind returns whether there was something to do, as those of the misfortune do.

    :ivar tell_wiped: called with the chunks on a disk that is emptied; :ivar tell_rotten: with one
        of which a replica is damaged; :ivar tell_gone_back: with a chunk server whose disk does.
    :ivar damaged_at: replicas by server, and when each was damaged the last time.
    :ivar emptied_at: chunk servers, and when their disks lost what was on them the last time.
    :ivar outdated: heads whose disks lack what others were told of them, and until when these must
        have met them.
    """

    def __init__(self, campaign: Campaign, misfortune: Misfortune) -> None:
        self._campaign = campaign
        self._grid: SimulatedGrid = campaign.grid
        self._misfortune = misfortune
        self.damaged_at: dict[tuple[str, ChunkId], float] = {}
        self.emptied_at: dict[str, float] = {}
        self.outdated: dict[Member, float] = {}
        self.tell_wiped: Callable[[Iterable[ChunkId]], None] = lambda _: None
        self.tell_rotten: Callable[[Iterable[ChunkId]], None] = lambda _: None
        self.tell_gone_back: Callable[[str], None] = lambda _: None
        self.kinds: dict[str, Callable[[Strike], bool]] = {
            "break-head-disk": lambda one: self._break_disk(one, misfortune.head(one)),
            "hang-head-disk": lambda one: self._hang_disk(one, misfortune.head(one)),
            "wipe-head": self._wipe_head,
            "old-head": self._old_head,
            "break-chunk-disk": lambda one: self._break_disk(one, misfortune.chunk_server(one)),
            "hang-chunk-disk": lambda one: self._hang_disk(one, misfortune.chunk_server(one)),
            "wipe-chunk": self._wipe_chunk_server,
            "rot": lambda one: self._damage(
                one, lambda machine, chunk: machine.rot(chunk, int(one.amount * chunk.length))
            ),
            "wear": lambda one: self._damage(one, Machine.wear_out),
            "slow-head-disk": lambda one: self._slow_disk(one, misfortune.head(one)),
            "slow-chunk-disk": lambda one: self._slow_disk(one, misfortune.chunk_server(one)),
            "fill-disk": self._fill_disk,
            "unmount-disk": self._unmount_disk,
            "old-chunk": self._old_chunk_server,
        }

    def _break_disk(self, strike: Strike, machine: Machine | None) -> bool:
        """Its next sync fails, and others after it."""
        if machine is None or machine.node is None:
            return False
        code = errno.EIO if strike.amount < 0.7 else errno.ENOSPC
        machine.disk.fail_next("datasync", code, times=1 + int(strike.amount * 4))

        def mend() -> None:
            machine.disk.heal()
            self._misfortune.restart(machine)

        self._misfortune.later(strike, mend)
        return self._campaign.note(f"break the disk of {machine.name}")

    def _hang_disk(self, strike: Strike, machine: Machine | None) -> bool:
        if machine is None or machine.node is None:
            return False
        machine.hang_disk()
        node = machine.node

        def mend() -> None:
            if machine.node is node:
                machine.mend_disk()

        self._misfortune.later(strike, mend)
        return self._campaign.note(f"hang the disk of {machine.name}")

    def _slow_disk(self, strike: Strike, machine: Machine | None) -> bool:
        if machine is None:
            return False
        machine.work_seconds = (0.02, 0.1, 0.4)[int(strike.amount * 3)]

        def mend() -> None:
            machine.work_seconds = 0.0

        self._misfortune.later(strike, mend)
        return self._campaign.note(f"slow down the disk of {machine.name}")

    def _fill_disk(self, strike: Strike) -> bool:
        machine = self._misfortune.chunk_server(strike)
        if machine is None:
            return False
        machine.disk.capacity_bytes = FULL_BYTES

        self._misfortune.later(strike, lambda: self._campaign.furnish(machine))
        return self._campaign.note(f"fill the disk of {machine.name}")

    def _wipe_head(self, strike: Strike) -> bool:
        """Only where the others have what it has, and a majority keeps its disks (S3)."""
        machine, heads = self._misfortune.head(strike), len(self._grid.heads)
        if machine is None or not self._campaign.all_heads_vote() or 2 * (heads - 1) <= heads:
            return False
        self._campaign.note(f"wipe {machine.name}")
        machine.crash()
        machine.disk.wipe()
        self._misfortune.restart_later(strike, machine)
        return True

    def _old_head(self, strike: Strike) -> bool:
        """Its machine goes back to a snapshot, which is found out by what others were told.

        They remember that as long as they run: so it happens only where all are up and linked, and
        until they have met it nothing else befalls heads. Beyond that it is damage to more than one
        at once (S3).
        """
        machine = self._misfortune.head(strike)
        if machine is None or not self._can_go_back(machine):
            return False
        image = machine.disk.image()
        self._misfortune.later(strike, lambda: self._go_back(machine, image))
        return self._campaign.note(f"take a snapshot of {machine.name}")

    def _can_go_back(self, machine: Machine) -> bool:
        """Whether all heads have a vote and hear each other soon, and others know what its disk
        has."""
        heads, names = self._campaign.running_heads(), [one.name for one in self._grid.heads]
        weathers = [
            self._grid.network.weather(here, there)
            for here, there in itertools.permutations(names, 2)
        ]
        node = machine.node
        if not isinstance(node, Head) or len(heads) < 3 or not self._campaign.all_heads_vote():
            return False
        facts = Facts(log_index=node._log.last_index, epoch=node._council._bully.epoch)
        return (
            all(not one.cut and one.latency_seconds < SOON_SECONDS for one in weathers)
            and not any(one.paused for one in self._grid.heads)
            and any(told.holds(facts) for told in self._told_by(node))
        )

    def _told_by(self, node: Head) -> list[Facts]:
        """What each other head knows of the disk of this one."""
        heads = self._campaign.running_heads()
        return [one._witness.told(node._council.me) for one in heads if one is not node]

    def _is_known_whole(self, node: Head) -> bool:
        here = Facts(log_index=node._on_disk.log_index, epoch=node._on_disk.epoch)
        return all(here.holds(told) for told in self._told_by(node))

    def _go_back(self, machine: Machine, image: Folder) -> None:
        if not self._can_go_back(machine):
            return
        self._campaign.note(f"{machine.name} goes back to its snapshot")
        machine.crash()
        machine.fatal = None
        machine.disk.put_back(image)
        self._misfortune.restart(machine)
        self._misfortune.spare(MEETING_SECONDS)
        node = machine.node
        if isinstance(node, Head) and not self._is_known_whole(node):
            self.outdated[node._council.me] = self._campaign.seconds + MEETING_SECONDS
        self._grid.clock.callLater(MEETING_SECONDS, self._replace, machine)

    def _replace(self, machine: Machine) -> None:
        """It was told to empty its disk, and was not started meanwhile."""
        if isinstance(machine.fatal, OutdatedDisk) and machine.node is None:
            self._campaign.note(f"{machine.name} gets an empty disk")
            machine.disk.wipe()
            self._misfortune.restart(machine)

    def _wipe_chunk_server(self, strike: Strike) -> bool:
        """Only where every chunk has a whole replica elsewhere."""
        machine = self._misfortune.chunk_server(strike)
        if machine is None or not self._can_spare(machine):
            return False
        self._campaign.note(f"wipe {machine.name}")
        self._tell_emptied(machine)
        if machine.node is not None:
            machine.crash()
        machine.disk.wipe()
        machine.forget()
        self._misfortune.restart_later(strike, machine)
        return True

    def _unmount_disk(self, strike: Strike) -> bool:
        """One of a server's disks is gone for a while."""
        machine = self._misfortune.chunk_server(strike)
        folder = pick(machine.folders, strike.amount) if machine is not None else None
        if machine is None or folder is None or not machine.disk.exists(f"{folder}/{NODE_FILE}"):
            return False
        machine.disk.unmount(folder)

        def mount() -> None:
            self._campaign.note(f"mount {folder} of {machine.name}")
            self.mount(machine)
            self._misfortune.restart(machine)

        self._misfortune.later(strike, mount)
        return self._campaign.note(f"unmount {folder} of {machine.name}")

    def mount(self, machine: Machine) -> None:
        for folder in machine.disk.unmounted:
            machine.disk.mount(folder)

    def _old_chunk_server(self, strike: Strike) -> bool:
        """Its machine goes back to a snapshot, where every chunk has whole replicas elsewhere."""
        machine = self._misfortune.chunk_server(strike)
        if machine is None or machine.node is None or machine.disk.unmounted:
            return False
        image = machine.disk.image()

        def go_back() -> None:
            if machine in self._grid.chunk_servers and self._can_spare(machine):
                self._campaign.note(f"{machine.name} goes back to its snapshot")
                self._tell_emptied(machine)
                self.tell_gone_back(machine.name)
                machine.crash()
                machine.disk.put_back(image)
                self._misfortune.restart(machine)

        self._misfortune.later(strike, go_back)
        return self._campaign.note(f"take a snapshot of {machine.name}")

    def _tell_emptied(self, machine: Machine) -> None:
        """What lies on its disks is about to go."""
        self.tell_wiped(stored_chunks(machine))
        self.emptied_at[machine.name] = self._campaign.seconds

    def _can_spare(self, machine: Machine) -> bool:
        """Whether each chunk has more than one replica beside those of a server, also what it
        stored and a client is about to publish."""
        leader, named = self._grid.leader(), named_chunks(self._grid)
        if named is None or leader is None or not isinstance(leader.node, Head):
            return False
        needed = {one.chunk.id for one in named}
        needed.update(filter(leader.node._namespace.may_be_published, stored_chunks(machine)))
        there = where_stored(self._grid)
        return all(
            len(self._good(one, there.get(one, set())) - {machine.name}) >= 2 for one in needed
        )

    def _good(self, chunk_id: ChunkId, holders: set[str]) -> set[str]:
        """Those whose replica was never damaged, found or not."""
        return {name for name in holders if (name, chunk_id) not in self.damaged_at}

    def _damage(self, strike: Strike, damage: Callable[[Machine, Chunk], bool]) -> bool:
        """Something happens to one replica, of the first chunk that can be struck and has others
        that are good: one, or two where disks may be away as well, as heads forget what is there
        and call a chunk lost of which they know a damaged replica alone."""
        least = 3 if "unmount-disk" in self._campaign.scenario.faults else 2
        chunks = [one.chunk for one in named_chunks(self._grid) or ()]
        there, first = where_stored(self._grid), int(strike.whom * len(chunks))
        for chunk in chunks[first:] + chunks[:first]:
            holders = sorted(there.get(chunk.id, ()))
            if len(self._good(chunk.id, {*holders})) < least or not chunk.length:
                continue
            machine = self._grid.machine(holders[int(strike.amount * len(holders))])
            if damage(machine, chunk):
                self.tell_rotten([chunk.id])
                self.damaged_at[machine.name, chunk.id] = self._campaign.seconds
                return self._campaign.note(f"{strike.kind} of {chunk.id.hex()} on {machine.name}")
        return False

    def is_rotten(self, machine: Machine, chunk_id: ChunkId) -> bool:
        """Whether this replica was damaged."""
        return (machine.name, chunk_id) in self.damaged_at
