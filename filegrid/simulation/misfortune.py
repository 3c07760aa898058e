"""What carries out the strikes, as far as the grid's promises allow them.

The promises hold within a budget: the disks of a majority of the heads stay, and of each chunk at
least one replica does. A strike that would overdraw it, or that finds nobody to strike, does
nothing. All else may happen at any time to any number of nodes, and is mended after a while.
"""

from __future__ import annotations

import errno
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from filegrid.election.quorum import Member
from filegrid.errors import GridError, OutdatedDisk
from filegrid.head.service import Head
from filegrid.head.witness import Facts
from filegrid.model import Chunk, ChunkId
from filegrid.simulation import operators
from filegrid.simulation.grid import Machine, SimulatedGrid
from filegrid.simulation.inode import Folder
from filegrid.simulation.scenario import Strike, pick
from filegrid.simulation.stored import named_chunks, stored_chunks, where_stored

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign

LATENCY_SECONDS = 0.0002
JITTER_SECONDS = 0.01
FULL_BYTES = 260 * 1024 * 1024
"""Of a disk on which hardly more than the reserve fits."""

SOON_SECONDS = 0.05
MEETING_SECONDS = 3.0
"""Within this a head has met the others that can be reached so soon."""

MOST_CHUNK_SERVERS_DOWN = 2
"""With more there would be nothing to do for the clients."""


class Misfortune:
    """Everything bad that happens to one grid.

    :ivar applied: how many strikes did something, by kind.
    :ivar tell_wiped: called with the chunks on a disk that is emptied; :ivar tell_rotten: with one
        of which a replica is damaged; :ivar tell_gone_back: with a chunk server whose disk does.
    :ivar outdated: heads whose disks lack what others were told of them, and until when these must
        have met them.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.applied: Counter[str] = Counter()
        self._campaign = campaign
        self._grid: SimulatedGrid = campaign.grid
        self._spared_until = 0.0
        self.outdated: dict[Member, float] = {}
        self._rotten: set[tuple[str, ChunkId]] = set()
        self.tell_wiped: Callable[[Iterable[ChunkId]], None] = lambda _: None
        self.tell_rotten: Callable[[Iterable[ChunkId]], None] = lambda _: None
        self.tell_gone_back: Callable[[str], None] = lambda _: None
        of_nodes: dict[str, Callable[[Strike, Machine], bool]] = {
            "kill": self._kill,
            "crash": self._crash,
            "stop": self._stop,
            "pause": self._pause,
            "isolate": self._isolate,
            "deafen": self._deafen,
            "mute": self._mute,
            "slow": self._slow,
        }
        self._kinds: dict[str, Callable[[Strike], bool]] = {
            "part-heads": self._part_heads,
            "break-head-disk": lambda one: self._break_disk(one, self._head(one)),
            "hang-head-disk": lambda one: self._hang_disk(one, self._head(one)),
            "wipe-head": self._wipe_head,
            "old-head": self._old_head,
            "break-chunk-disk": lambda one: self._break_disk(one, self._chunk_server(one)),
            "hang-chunk-disk": lambda one: self._hang_disk(one, self._chunk_server(one)),
            "wipe-chunk": self._wipe_chunk_server,
            "rot": lambda one: self._damage(
                one, lambda machine, chunk: machine.rot(chunk, int(one.amount * chunk.length))
            ),
            "wear": lambda one: self._damage(one, Machine.wear_out),
            "slow-head-disk": lambda one: self._slow_disk(one, self._head(one)),
            "slow-chunk-disk": lambda one: self._slow_disk(one, self._chunk_server(one)),
            "fill-disk": self._fill_disk,
            "unmount-disk": self._unmount_disk,
            "old-chunk": self._old_chunk_server,
            "cut-clients": self._cut_client,
            "splits": self._splits,
            "flap": self._flap,
            "reset": self._reset,
            "power": self._power,
            "wall-clock": self._wall_clock,
            **campaign.operators.kinds,
        }
        choices: dict[str, Callable[[Strike], Machine | None]] = {
            "head": self._head,
            "chunk": self._chunk_server,
            "health": self._health_node,
        }
        for what, strike in of_nodes.items():
            for role, choose in choices.items():
                self._kinds[f"{what}-{role}"] = _on(choose, strike)

    def strike(self, strike: Strike) -> None:
        """Do it, where it can be done."""
        if not self._may_strike():
            return
        if self._kinds[strike.kind](strike):
            self.applied[strike.kind] += 1

    def _may_strike(self) -> bool:
        return not self._campaign.calm and self._grid.clock.seconds() >= self._spared_until

    def heal(self) -> None:
        """Mend everything at once."""
        self._campaign.note("heal")
        self._grid.work_seconds = 0.0001
        network = self._grid.network
        for here in network.host_names:
            for there in network.host_names:
                if here != there:
                    network.mend(here, there, both_ways=False)
                    weather = network.weather(here, there)
                    weather.latency_seconds, weather.jitter_seconds = LATENCY_SECONDS, 0.0
                    weather.splits = False
        for machine in self._grid.machines:
            self._mend(machine)

    # Who.

    def _head(self, strike: Strike) -> Machine | None:
        """The leader more often than others."""
        leader = self._grid.leader()
        if leader is not None and strike.whom < 0.5:
            return leader
        return pick(self._grid.heads, 2 * strike.whom % 1)

    def _chunk_server(self, strike: Strike) -> Machine | None:
        down = [one for one in self._grid.chunk_servers if one.node is None]
        if len(down) >= MOST_CHUNK_SERVERS_DOWN:
            return None
        return pick(self._grid.chunk_servers, strike.whom)

    def _health_node(self, strike: Strike) -> Machine | None:
        return pick(self._grid.health_nodes, strike.whom)

    # Processes.

    def _kill(self, strike: Strike, machine: Machine) -> bool:
        machine.kill()
        self._restart_later(strike, machine)
        return self._campaign.note(f"kill {machine.name}")

    def _crash(self, strike: Strike, machine: Machine) -> bool:
        machine.crash()
        self._restart_later(strike, machine)
        return self._campaign.note(f"crash {machine.name}")

    def _stop(self, strike: Strike, machine: Machine) -> bool:
        machine.stop().addErrback(self._campaign.failed)
        self._restart_later(strike, machine)
        return self._campaign.note(f"stop {machine.name}")

    def _pause(self, strike: Strike, machine: Machine) -> bool:
        machine.pause()
        node = machine.node

        def resume() -> None:
            if machine.node is node:
                self._campaign.note(f"resume {machine.name}")
                machine.resume(data_first=strike.amount < 0.5)

        self._later(strike, resume)
        return self._campaign.note(f"pause {machine.name}")

    def _power(self, strike: Strike) -> bool:
        """All machines lose power at once."""
        self._campaign.note("power fails")
        for machine in self._grid.machines:
            if machine.node is not None:
                machine.crash()
            self._restart_later(strike, machine)
        return True

    def _restart_later(self, strike: Strike, machine: Machine) -> None:
        self._later(strike, lambda: self._restart(machine))

    def _restart(self, machine: Machine) -> None:
        if machine.node is None and machine in self._grid.machines:
            self._campaign.note(f"start {machine.name}")
            machine.disk.heal()
            machine.kill()  # where it was told to stop and has not ended yet
            try:
                machine.start().addErrback(self._campaign.failed)
            except GridError as error:
                self._campaign.note(f"{machine.name} does not start: {error}")

    def _mend(self, machine: Machine) -> None:
        self._campaign.furnish(machine)
        machine.disk.heal()
        self._mount(machine)
        machine.work_seconds = 0.0
        if machine.node is None:
            self._restart(machine)
        else:
            machine.mend_disk()
            machine.resume()

    # Disks.

    def _break_disk(self, strike: Strike, machine: Machine | None) -> bool:
        """Its next sync fails, and others after it."""
        if machine is None or machine.node is None:
            return False
        code = errno.EIO if strike.amount < 0.7 else errno.ENOSPC
        machine.disk.fail_next("datasync", code, times=1 + int(strike.amount * 4))

        def mend() -> None:
            machine.disk.heal()
            self._restart(machine)

        self._later(strike, mend)
        return self._campaign.note(f"break the disk of {machine.name}")

    def _hang_disk(self, strike: Strike, machine: Machine | None) -> bool:
        if machine is None or machine.node is None:
            return False
        machine.hang_disk()
        node = machine.node

        def mend() -> None:
            if machine.node is node:
                machine.mend_disk()

        self._later(strike, mend)
        return self._campaign.note(f"hang the disk of {machine.name}")

    def _slow_disk(self, strike: Strike, machine: Machine | None) -> bool:
        if machine is None:
            return False
        machine.work_seconds = (0.02, 0.1, 0.4)[int(strike.amount * 3)]

        def mend() -> None:
            machine.work_seconds = 0.0

        self._later(strike, mend)
        return self._campaign.note(f"slow down the disk of {machine.name}")

    def _fill_disk(self, strike: Strike) -> bool:
        machine = self._chunk_server(strike)
        if machine is None:
            return False
        machine.disk.capacity_bytes = FULL_BYTES

        self._later(strike, lambda: self._campaign.furnish(machine))
        return self._campaign.note(f"fill the disk of {machine.name}")

    def _wipe_head(self, strike: Strike) -> bool:
        """Only where the others have what it has, and a majority keeps its disks (S3)."""
        machine, heads = self._head(strike), len(self._grid.heads)
        if machine is None or not self._campaign.all_heads_vote() or 2 * (heads - 1) <= heads:
            return False
        self._campaign.note(f"wipe {machine.name}")
        machine.crash()
        machine.disk.wipe()
        self._restart_later(strike, machine)
        return True

    def _old_head(self, strike: Strike) -> bool:
        """Its machine goes back to a snapshot, which is found out by what others were told.

        They remember that as long as they run: so it happens only where all are up and linked, and
        until they have met it nothing else befalls heads. Beyond that it is damage to more than one
        at once (S3).
        """
        machine = self._head(strike)
        if machine is None or not self._can_go_back(machine):
            return False
        image = machine.disk.image()
        self._later(strike, lambda: self._go_back(machine, image))
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
        self._restart(machine)
        self._spared_until = self._grid.clock.seconds() + MEETING_SECONDS
        node = machine.node
        if isinstance(node, Head) and not self._is_known_whole(node):
            self.outdated[node._council.me] = self._spared_until
        self._grid.clock.callLater(MEETING_SECONDS, self._replace, machine)

    def _replace(self, machine: Machine) -> None:
        """It was told to empty its disk, and was not started meanwhile."""
        if isinstance(machine.fatal, OutdatedDisk) and machine.node is None:
            self._campaign.note(f"{machine.name} gets an empty disk")
            machine.disk.wipe()
            self._restart(machine)

    def _wipe_chunk_server(self, strike: Strike) -> bool:
        """Only where every chunk has a whole replica elsewhere."""
        machine = self._chunk_server(strike)
        if machine is None or not self._can_spare(machine):
            return False
        self._campaign.note(f"wipe {machine.name}")
        self.tell_wiped(stored_chunks(machine))
        if machine.node is not None:
            machine.crash()
        machine.disk.wipe()
        machine.forget()
        self._restart_later(strike, machine)
        return True

    def _unmount_disk(self, strike: Strike) -> bool:
        """One of a server's disks is gone for a while."""
        machine = self._chunk_server(strike)
        folder = pick(machine.folders, strike.amount) if machine is not None else None
        if machine is None or folder is None or not machine.disk.exists(f"{folder}/node"):
            return False
        machine.disk.unmount(folder)

        def mount() -> None:
            self._campaign.note(f"mount {folder} of {machine.name}")
            self._mount(machine)
            self._restart(machine)

        self._later(strike, mount)
        return self._campaign.note(f"unmount {folder} of {machine.name}")

    def _mount(self, machine: Machine) -> None:
        for folder in machine.disk.unmounted:
            machine.disk.mount(folder)

    def _old_chunk_server(self, strike: Strike) -> bool:
        """Its machine goes back to a snapshot, where every chunk has whole replicas elsewhere."""
        machine = self._chunk_server(strike)
        if machine is None or machine.node is None or machine.disk.unmounted:
            return False
        image = machine.disk.image()

        def go_back() -> None:
            if machine in self._grid.chunk_servers and self._can_spare(machine):
                self._campaign.note(f"{machine.name} goes back to its snapshot")
                self.tell_wiped(stored_chunks(machine))
                self.tell_gone_back(machine.name)
                machine.crash()
                machine.disk.put_back(image)
                self._restart(machine)

        self._later(strike, go_back)
        return self._campaign.note(f"take a snapshot of {machine.name}")

    def _can_spare(self, machine: Machine) -> bool:
        """Whether each chunk has more than one replica beside those of a server."""
        named = named_chunks(self._grid)
        if named is None:
            return False
        there = where_stored(self._grid)
        return all(len(there.get(one.chunk.id, set()) - {machine.name}) >= 2 for one in named)

    def _damage(self, strike: Strike, damage: Callable[[Machine, Chunk], bool]) -> bool:
        """Something happens to one replica, where the chunk has others."""
        named = named_chunks(self._grid)
        if not named:
            return False
        chunk = named[int(strike.whom * len(named))].chunk
        holders = [one for one in self._grid.chunk_servers if chunk.id in stored_chunks(one)]
        if len(holders) < 3 or not chunk.length:
            return False
        machine = holders[int(strike.amount * len(holders))]
        if not damage(machine, chunk):
            return False
        self.tell_rotten([chunk.id])
        self._rotten.add((machine.name, chunk.id))
        return self._campaign.note(f"{strike.kind} of {chunk.id.hex()} on {machine.name}")

    def is_rotten(self, machine: Machine, chunk_id: ChunkId) -> bool:
        """Whether this replica was damaged."""
        return (machine.name, chunk_id) in self._rotten

    # The network.

    def _isolate(self, strike: Strike, machine: Machine) -> bool:
        self._cut(strike, [(machine.name, other) for other in self._others(machine)], both=True)
        return self._campaign.note(f"isolate {machine.name}")

    def _part_heads(self, strike: Strike) -> bool:
        machine = self._head(strike)
        if machine is None:
            return False
        others = [one.name for one in self._grid.heads if one is not machine]
        self._cut(strike, [(machine.name, other) for other in others], both=True)
        return self._campaign.note(f"part {machine.name} from the other heads")

    def _deafen(self, strike: Strike, machine: Machine) -> bool:
        others = self._some_others(strike, machine)
        self._cut(strike, [(other, machine.name) for other in others], both=False)
        return self._campaign.note(f"deafen {machine.name} to {len(others)}")

    def _mute(self, strike: Strike, machine: Machine) -> bool:
        others = self._some_others(strike, machine)
        self._cut(strike, [(machine.name, other) for other in others], both=False)
        return self._campaign.note(f"mute {machine.name} to {len(others)}")

    def _cut_client(self, strike: Strike) -> bool:
        client = pick(self._campaign.actors, strike.whom)
        if client is None:
            return False
        machines = [one.name for one in self._grid.machines]
        if strike.amount < 0.5:
            machines = [one.name for one in self._grid.heads]
        self._cut(strike, [(client.name, other) for other in machines], both=True)
        return self._campaign.note(f"cut {client.name} off")

    def _flap(self, strike: Strike) -> bool:
        """A way that comes and goes."""
        machine = pick(self._grid.machines, strike.whom)
        assert machine is not None
        ways = [(machine.name, other) for other in self._some_others(strike, machine)]
        seconds = 0.05 + strike.amount
        for turn in range(4):
            self._grid.clock.callLater(2 * turn * seconds, self._set_cut, ways, True)
            self._grid.clock.callLater((2 * turn + 1) * seconds, self._set_cut, ways, False)
        return self._campaign.note(f"flapping of {machine.name}")

    def _set_cut(self, ways: Sequence[tuple[str, str]], cut: bool) -> None:
        change = self._grid.network.cut if cut and self._may_strike() else self._grid.network.mend
        for here, there in ways:
            change(here, there)

    def _reset(self, strike: Strike) -> bool:
        """All connections of a machine break, and may be made again at once."""
        machine = pick(self._grid.machines, strike.whom)
        assert machine is not None
        self._grid.network.reset(machine.name)
        return self._campaign.note(f"reset the connections of {machine.name}")

    def _slow(self, strike: Strike, machine: Machine) -> bool:
        seconds = (0.02, 0.2, 0.6)[int(strike.amount * 3)]
        self._delay(machine, seconds)
        self._later(strike, lambda: self._delay(machine, LATENCY_SECONDS))
        return self._campaign.note(f"slow {machine.name} by {seconds} s")

    def _delay(self, machine: Machine, seconds: float) -> None:
        for other in self._others(machine):
            self._grid.network.weather(machine.name, other).latency_seconds = seconds
            self._grid.network.weather(other, machine.name).latency_seconds = seconds

    def _splits(self, strike: Strike) -> bool:
        for machine in self._grid.machines:
            for other in self._others(machine):
                weather = self._grid.network.weather(machine.name, other)
                weather.splits = strike.amount < 0.7
                weather.jitter_seconds = JITTER_SECONDS if weather.splits else 0.0
        return self._campaign.note("bytes come in pieces")

    def _others(self, machine: Machine) -> list[str]:
        names = [one.name for one in self._grid.machines if one is not machine]
        return [*names, *(one.name for one in self._campaign.actors), operators.NAME]

    def _some_others(self, strike: Strike, machine: Machine) -> list[str]:
        others = self._others(machine)
        if strike.amount < 0.5:
            return [name for name in others if name.startswith("head-")]
        return others

    def _cut(self, strike: Strike, ways: Sequence[tuple[str, str]], *, both: bool) -> None:
        for here, there in ways:
            self._grid.network.cut(here, there, both_ways=both)

        def mend() -> None:
            self._campaign.note(f"mend strike {strike.number}")
            for here, there in ways:
                self._grid.network.mend(here, there, both_ways=both)

        self._later(strike, mend)

    # Clocks.

    def _wall_clock(self, strike: Strike) -> bool:
        """One machine's clock for people jumps; nothing may depend on it."""
        machine = pick(self._grid.machines, strike.whom)
        assert machine is not None
        machine.wall_offset_seconds = (strike.amount - 0.5) * 10 * 86_400
        return self._campaign.note(f"the wall clock of {machine.name} jumps")

    # Time.

    def _later(self, strike: Strike, work: Callable[[], object]) -> None:
        def unless_healed() -> None:
            if not self._campaign.calm:
                work()

        self._grid.clock.callLater(strike.seconds, unless_healed)


def _on(
    choose: Callable[[Strike], Machine | None], strike_one: Callable[[Strike, Machine], bool]
) -> Callable[[Strike], bool]:
    """A strike against a node that runs."""

    def strike(strike: Strike) -> bool:
        machine = choose(strike)
        return machine is not None and machine.node is not None and strike_one(strike, machine)

    return strike
