"""What a seed decides before a run begins: the strikes, and when each of them falls."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from filegrid.config import Chunk as ChunkTiming
from filegrid.config import Election, Health, Repair

FAULTS = (
    *("kill-head", "crash-head", "pause-head", "isolate-head", "part-heads", "deafen-head"),
    *("mute-head", "slow-head", "break-head-disk", "hang-head-disk", "wipe-head", "hand-over"),
    *("kill-chunk", "crash-chunk", "stop-chunk", "pause-chunk", "isolate-chunk", "deafen-chunk"),
    *("mute-chunk", "slow-chunk", "break-chunk-disk", "hang-chunk-disk", "wipe-chunk", "rot"),
    *("fill-disk", "drain", "add-chunk", "remove-chunk", "add-head", "remove-head", "balance"),
    *("repair-now", "kill-health", "pause-health", "isolate-health"),
    *("cut-clients", "splits", "flap", "reset", "power", "wall-clock", "old-head"),
    *("unmount-disk", "old-chunk", "wear", "slow-head-disk", "slow-chunk-disk"),
    *("narrow", "roll"),
)
"""Kinds of strikes, as `filegrid simulate --faults` names them. Those of heads come more often."""

_WEIGHTS = {kind: 3 if "head" in kind else 2 if "chunk" in kind else 1 for kind in FAULTS}

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A run but for its seed.

    :ivar seconds: simulated, of the storm; the calm comes on top.
    :ivar disks: of each chunk server.
    :ivar seconds_per_strike: on average; in some runs they come much closer together.
    :ivar strikes: their numbers, where not all of them are to fall.
    :ivar sections: of the nodes' settings, by name, where they differ from the defaults.
    :ivar varied: each seed draws the sizes of its grid, its timing, and how close its strikes come,
        by itself: what one grid hides another shows.
    """

    seconds: float = 600.0
    seconds_per_strike: float = 10.0
    heads: int = 3
    health: int = 3
    chunk_servers: int = 5
    disks: int = 1
    racks: int = 3
    replication: int = 3
    min_replicas: int = 2
    clients: int = 4
    faults: Sequence[str] = FAULTS
    strikes: frozenset[int] | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    varied: bool = False

    def of(self, seed: int) -> Scenario:
        """This one, with what the seed draws."""
        if not self.varied:
            return self
        rng = random.Random(f"{seed} sizes")
        chunk_servers = rng.choice((3, 4, 5, 6, 9))
        return replace(
            self,
            seconds_per_strike=self.seconds_per_strike * rng.choice((0.5, 1, 2)),
            heads=rng.choice((1, 3, 3, 5)),
            health=rng.choice((0, 1, 3, 3, 5)),
            chunk_servers=chunk_servers,
            racks=rng.choice((1, 2, 3, 4)),
            replication=min(rng.choice((1, 2, 2, 3, 3, 4)), chunk_servers),
            clients=rng.choice((2, 4, 8)),
            disks=rng.choice((1, 1, 2, 3)),
            min_replicas=rng.choice((1, 2, 2)),
            sections={**self.sections, **_draw_timing(rng)},
            varied=False,
        )


def _draw_timing(rng: random.Random) -> dict[str, Any]:
    """Of leases, probes, heartbeats and repair."""
    heartbeat_seconds = rng.choice((0.3, 1.0, 1.0, 2.0))
    suspect_seconds = 2.5 * heartbeat_seconds
    return {
        "election": Election(lease_seconds=rng.choice((0.5, 1.0, 1.0, 2.0, 3.0))),
        "health": Health(
            probe_seconds=rng.choice((0.1, 0.2, 0.5, 1.0)),
            silent_seconds=rng.choice((0.7, 1.5, 3.0)),
            stuck_seconds=rng.choice((1.0, 3.0, 6.0)),
        ),
        "chunk": ChunkTiming(
            heartbeat_seconds=heartbeat_seconds,
            suspect_seconds=suspect_seconds,
            dead_seconds=suspect_seconds + rng.choice((1.0, 3.0, 8.0)),
            maintenance_seconds=rng.choice((0.0, 5.0, 60.0)),
        ),
        "repair": Repair(
            mib_per_second=rng.choice((0.0, 1.0, 200.0)),
            restraint_seconds=rng.choice((0.0, 5.0, 15.0)),
        ),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """Something bad that befalls the grid.

    :ivar at: simulated seconds since the storm began.
    :ivar whom: 0 to 1, which machine; what it stands for depends on who is there then.
    :ivar seconds: for how long.
    :ivar amount: 0 to 1, of what the kind has much or little of.
    """

    number: int
    at: float
    kind: str
    whom: float
    seconds: float
    amount: float


def strike_numbers(scenario: Scenario, seed: int) -> list[int]:
    """Of all strikes of a run."""
    return [one.number for one in draw_strikes(scenario.of(seed), seed)]


def draw_strikes(scenario: Scenario, seed: int) -> list[Strike]:
    """All of a run, in order. Leaving some out changes nothing about the others."""
    rng = random.Random(f"{seed} strikes")
    weights = [_WEIGHTS[kind] for kind in scenario.faults]
    gap_seconds = scenario.seconds_per_strike / rng.choice((1, 1, 3, 8))
    strikes: list[Strike] = []
    at = rng.expovariate(1 / gap_seconds)
    while at < scenario.seconds and scenario.faults:
        strikes.append(
            Strike(
                number=len(strikes) + 1,
                at=at,
                kind=rng.choices(scenario.faults, weights)[0],
                whom=rng.random(),
                seconds=rng.choice((0.05, 0.5, 1, 2, 3, 8)) * rng.uniform(0.5, 1.5),
                amount=rng.random(),
            )
        )
        at += rng.expovariate(1 / gap_seconds)
    if scenario.strikes is not None:
        strikes = [one for one in strikes if one.number in scenario.strikes]
    return strikes


def pick(choices: Sequence[T], whom: float) -> T | None:
    """One of them, or None where there is none.

    :param whom: 0 to 1.
    """
    return choices[int(whom * len(choices))] if choices else None
