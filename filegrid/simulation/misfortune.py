"""What carries out the strikes, as far as the grid's promises allow them.

The promises hold within a budget: the disks of a majority of the heads stay, and of each chunk at
least one replica does. A strike that would overdraw it, or that finds nobody to strike, does
nothing. All else may happen at any time to any number of nodes, and is mended after a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from filegrid.errors import GridError
from filegrid.simulation import operators
from filegrid.simulation.damage import Damage
from filegrid.simulation.grid import Machine, SimulatedGrid
from filegrid.simulation.network import BYTES_PER_SECOND
from filegrid.simulation.scenario import Strike, pick

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign

LATENCY_SECONDS = 0.0002
JITTER_SECONDS = 0.01
MOST_CHUNK_SERVERS_DOWN = 2
"""With more there would be nothing to do for the clients."""


class Misfortune:
    """Everything bad that happens to one grid.

    :ivar applied: how many strikes did something, by kind.
    :ivar damage: what befalls the disks.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.applied: Counter[str] = Counter()
        self._campaign = campaign
        self._grid: SimulatedGrid = campaign.grid
        self._spared_until = 0.0
        self.damage = Damage(campaign, self)
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
            **self.damage.kinds,
            "cut-clients": self._cut_client,
            "splits": self._splits,
            "flap": self._flap,
            "narrow": self._narrow,
            "roll": self._roll,
            "reset": self._reset,
            "power": self._power,
            "wall-clock": self._wall_clock,
            **campaign.operators.kinds,
        }
        choices: dict[str, Callable[[Strike], Machine | None]] = {
            "head": self.head,
            "chunk": self.chunk_server,
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

    def spare(self, seconds: float) -> None:
        """Nothing befalls anybody for so long."""
        self._spared_until = self._grid.clock.seconds() + seconds

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
                    weather.bytes_per_second = BYTES_PER_SECOND
        for machine in self._grid.machines:
            self._mend(machine)

    # Who.

    def head(self, strike: Strike) -> Machine | None:
        """The leader more often than others."""
        leader = self._grid.leader()
        if leader is not None and strike.whom < 0.5:
            return leader
        return pick(self._grid.heads, 2 * strike.whom % 1)

    def chunk_server(self, strike: Strike) -> Machine | None:
        down = [one for one in self._grid.chunk_servers if one.node is None]
        if len(down) >= MOST_CHUNK_SERVERS_DOWN:
            return None
        return pick(self._grid.chunk_servers, strike.whom)

    def _health_node(self, strike: Strike) -> Machine | None:
        return pick(self._grid.health_nodes, strike.whom)

    # Processes.

    def _kill(self, strike: Strike, machine: Machine) -> bool:
        machine.kill()
        self.restart_later(strike, machine)
        return self._campaign.note(f"kill {machine.name}")

    def _crash(self, strike: Strike, machine: Machine) -> bool:
        machine.crash()
        self.restart_later(strike, machine)
        return self._campaign.note(f"crash {machine.name}")

    def _stop(self, strike: Strike, machine: Machine) -> bool:
        machine.stop().addErrback(self._campaign.failed)
        self.restart_later(strike, machine)
        return self._campaign.note(f"stop {machine.name}")

    def _pause(self, strike: Strike, machine: Machine) -> bool:
        machine.pause()
        node = machine.node

        def resume() -> None:
            if machine.node is node:
                self._campaign.note(f"resume {machine.name}")
                machine.resume(data_first=strike.amount < 0.5)

        self.later(strike, resume)
        return self._campaign.note(f"pause {machine.name}")

    def _power(self, strike: Strike) -> bool:
        """All machines lose power at once."""
        self._campaign.note("power fails")
        for machine in self._grid.machines:
            if machine.node is not None:
                machine.crash()
            self.restart_later(strike, machine)
        return True

    def _roll(self, strike: Strike) -> bool:
        """All machines of a role are restarted in good order, one after the other."""
        machines = self._grid.heads if strike.whom < 0.5 else self._grid.chunk_servers

        def stop(machine: Machine) -> None:
            if machine.node is not None and self._may_strike():
                self._stop(strike, machine)

        for place, machine in enumerate([*machines]):
            self._grid.clock.callLater(place * (strike.seconds + 1.0), stop, machine)
        return self._campaign.note(f"restart {', '.join(one.name for one in machines)}")

    def restart_later(self, strike: Strike, machine: Machine) -> None:
        self.later(strike, lambda: self.restart(machine))

    def restart(self, machine: Machine) -> None:
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
        self.damage.mount(machine)
        machine.work_seconds = 0.0
        if machine.node is None:
            self.restart(machine)
        else:
            machine.mend_disk()
            machine.resume()

    # The network.

    def _isolate(self, strike: Strike, machine: Machine) -> bool:
        self._cut(strike, [(machine.name, other) for other in self._others(machine)], both=True)
        return self._campaign.note(f"isolate {machine.name}")

    def _part_heads(self, strike: Strike) -> bool:
        machine = self.head(strike)
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
        self._set_weather(machine, latency_seconds=seconds)
        self.later(strike, lambda: self._set_weather(machine, latency_seconds=LATENCY_SECONDS))
        return self._campaign.note(f"slow {machine.name} by {seconds} s")

    def _narrow(self, strike: Strike) -> bool:
        """Little passes to and from a machine."""
        machine = pick(self._grid.machines, strike.whom)
        assert machine is not None
        width = (3e4, 3e5, 2e6)[int(strike.amount * 3)]
        self._set_weather(machine, bytes_per_second=width)
        self.later(strike, lambda: self._set_weather(machine, bytes_per_second=BYTES_PER_SECOND))
        return self._campaign.note(f"little passes to {machine.name}")

    def _set_weather(self, machine: Machine, **values: float) -> None:
        """To and from a machine."""
        for other in self._others(machine):
            for way in ((machine.name, other), (other, machine.name)):
                for name, value in values.items():
                    setattr(self._grid.network.weather(*way), name, value)

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

        self.later(strike, mend)

    # Clocks.

    def _wall_clock(self, strike: Strike) -> bool:
        """One machine's clock for people jumps; nothing may depend on it."""
        machine = pick(self._grid.machines, strike.whom)
        assert machine is not None
        machine.wall_offset_seconds = (strike.amount - 0.5) * 10 * 86_400
        return self._campaign.note(f"the wall clock of {machine.name} jumps")

    # Time.

    def later(self, strike: Strike, work: Callable[[], object]) -> None:
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
