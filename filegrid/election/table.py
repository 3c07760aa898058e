"""The table of transitions: for every state and input what is done, and where that may lead.

A pair that is not in it is an error, as is a change of state that its row does not name. The
picture in ``docs/election.md`` is drawn from it by :mod:`filegrid.election.diagram`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from filegrid.election.events import (
    Claim,
    Configure,
    HandOver,
    Input,
    Stored,
    Suspect,
    Tick,
    Unreachable,
)
from filegrid.election.messages import (
    Answer,
    Coordinator,
    Election,
    LeaseGrant,
    PreVote,
    Release,
    Renewal,
    Stale,
    TransferLeadership,
    Vote,
    VoteRequest,
)


class State(Enum):
    PASSIVE = "knows of no vote of its own, and does not stand"
    FOLLOWING = "under a leader, or waiting for one"
    STANDING = "asks who is above, and who would vote"
    DEFERRING = "one above has answered, and is waited for once"
    CANDIDATE = "has voted for itself and asks for votes"
    LEADING = "was elected, and renews its lease"


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: the action is a method of the machine, None: nothing is done."""

    action: str | None
    leads_to: tuple[State, ...] = ()


PASSIVE, FOLLOWING, STANDING, DEFERRING, CANDIDATE, LEADING = State
_SEEKING = (STANDING, DEFERRING, CANDIDATE)
_FREE = (FOLLOWING, *_SEEKING)

_ROWS: Sequence[tuple[type[Input], Sequence[State], str | None, tuple[State, ...]]] = (
    # input, in these states, action, may lead to (besides where it is)
    (Election, (FOLLOWING,), "consider", (STANDING,)),
    (Election, (PASSIVE, *_SEEKING), "consider", ()),
    (Election, (LEADING,), None, ()),
    (Answer, (STANDING,), "defer", (DEFERRING, CANDIDATE)),
    (Answer, (PASSIVE, FOLLOWING, DEFERRING, CANDIDATE, LEADING), None, ()),
    (PreVote, (STANDING,), "back", (CANDIDATE,)),
    (PreVote, (PASSIVE, FOLLOWING, DEFERRING, CANDIDATE, LEADING), None, ()),
    (VoteRequest, (PASSIVE, FOLLOWING), "vote", ()),
    (VoteRequest, _SEEKING, "vote", (FOLLOWING,)),
    (VoteRequest, (LEADING,), None, ()),
    (Vote, (CANDIDATE,), "count", (LEADING,)),
    (Vote, (PASSIVE, FOLLOWING, STANDING, DEFERRING, LEADING), None, ()),
    (Coordinator, (FOLLOWING,), "follow", ()),
    (Coordinator, (*_SEEKING, LEADING), "follow", (FOLLOWING,)),
    (Coordinator, (PASSIVE,), "learn", ()),
    (Renewal, (FOLLOWING,), "follow", ()),
    (Renewal, (*_SEEKING, LEADING), "follow", (FOLLOWING,)),
    (Renewal, (PASSIVE,), "learn", ()),
    (LeaseGrant, (LEADING,), "extend", ()),
    (LeaseGrant, (PASSIVE, *_FREE), None, ()),
    (Stale, (LEADING,), "overtaken", (FOLLOWING,)),
    (Stale, _FREE, "overtaken", ()),
    (Stale, (PASSIVE,), None, ()),
    (Release, (FOLLOWING,), "released", (STANDING,)),
    (Release, _SEEKING, "released", ()),
    (Release, (PASSIVE, LEADING), None, ()),
    (TransferLeadership, (LEADING,), "asked", ()),
    (TransferLeadership, (PASSIVE, *_FREE), None, ()),
    (Tick, (PASSIVE,), None, ()),
    (Tick, (FOLLOWING,), "rise", (STANDING,)),
    (Tick, (STANDING,), "close_round", (CANDIDATE, FOLLOWING)),
    (Tick, (DEFERRING,), "insist", (STANDING,)),
    (Tick, (CANDIDATE,), "give_up", (FOLLOWING,)),
    (Tick, (LEADING,), "reign_on", (FOLLOWING,)),
    (Stored, (PASSIVE, FOLLOWING, STANDING, DEFERRING, LEADING), "stored", ()),
    (Stored, (CANDIDATE,), "stored", (LEADING,)),
    (Suspect, (PASSIVE, *_FREE), "suspect", ()),
    (Suspect, (LEADING,), "suspect", (FOLLOWING,)),
    (Configure, (PASSIVE,), "configure", (FOLLOWING,)),
    (Configure, _FREE, "configure", (PASSIVE,)),
    (Configure, (LEADING,), "configure", (FOLLOWING,)),  # and from there, if it has no vote
    (HandOver, (LEADING,), "hand_over", (FOLLOWING,)),
    (HandOver, (PASSIVE, *_FREE), None, ()),
    (Claim, (FOLLOWING,), "claim", ()),
    (Claim, (PASSIVE, *_SEEKING, LEADING), None, ()),
    (Unreachable, (STANDING,), "miss", (CANDIDATE,)),
    (Unreachable, (PASSIVE, FOLLOWING, DEFERRING, CANDIDATE, LEADING), None, ()),
)


def _table() -> dict[tuple[State, type[Input]], Row]:
    table: dict[tuple[State, type[Input]], Row] = {}
    for kind, states, action, leads_to in _ROWS:
        for state in states:
            assert (state, kind) not in table, (state, kind)
            table[state, kind] = Row(action, leads_to)
    return table


TABLE = _table()
