"""When the coordinator of the health nodes gives a verdict, so that flapping is damped."""

from __future__ import annotations

from dataclasses import dataclass

from filegrid.election.opinion import Opinions
from filegrid.election.quorum import Member

HOLD_SECONDS = 0.15
"""For so long a majority must be of one opinion: what one look shows may be a hiccup."""

QUIET_SECONDS = 10.0
"""Between two verdicts on one head: it cannot be thrown out again and again."""

CALM_SECONDS = 2.0
"""Between any two verdicts: the next leader has its time to be elected and to begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A majority of all health nodes finds `leader`, in `epoch`, unfit.

    :param evidence: of each health node that agrees, by its name.
    """

    leader: Member
    epoch: int
    evidence: dict[str, str]


class Deliberation:
    """Every health node feeds one, so that whichever comes to coordinate knows what was before."""

    def __init__(self) -> None:
        self._reign: tuple[Member, int] | None = None
        self._since = 0.0
        self._given_at: dict[str, float] = {}

    def given(self, head: str, now: float) -> None:
        """A verdict on this head came, from here or from another coordinator."""
        self._given_at[head] = now

    def decide(self, opinions: Opinions, newest_epoch: int, now: float) -> Verdict | None:
        """A verdict that is to be given now; asked for some times a second.

        :param newest_epoch: of the heads, as is known here: over those before it nobody sits.
        """
        reign = opinions.condemned(now)
        if reign is not None and reign[1] < newest_epoch:
            reign = None
        if reign != self._reign:
            self._reign, self._since = reign, now
        if reign is None or now - self._since < HOLD_SECONDS or not self._is_calm(reign[0], now):
            return None
        leader, epoch = reign
        self.given(leader.name, now)
        return Verdict(leader=leader, epoch=epoch, evidence=opinions.against(leader, epoch, now))

    def _is_calm(self, leader: Member, now: float) -> bool:
        last_at = max(self._given_at.values(), default=now - CALM_SECONDS)
        own_at = self._given_at.get(leader.name, now - QUIET_SECONDS)
        return now - last_at >= CALM_SECONDS and now - own_at >= QUIET_SECONDS
