"""Whether a history of reads, writes and appends can be explained by one order of them.

The search is that of Wing and Gong: linearize, one after the other, an operation that began before
every one that is left had ended; a state that was reached before by the same operations is not
looked at again. An operation of which nobody knows whether it was done may take effect at any time
after it began, or never.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

UNKNOWN = math.inf
"""When an operation ended whose outcome nobody knows."""

MOST_STATES = 200_000
"""Looked at, before the search is given up; histories that are short need some hundreds."""


class Kind(Enum):
    """What an operation does with its value: finds it, sets it, or adds it to what is there."""

    READ = "read"
    WRITE = "wrote"
    APPEND = "appended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """On one register, which holds a text, or nothing.

    :ivar began: when it was asked for; :ivar ended: when its answer came, or ``UNKNOWN``.
    :ivar value: None for nothing, found there or left behind.
    """

    client: str
    began: float
    ended: float
    kind: Kind
    value: str | None

    def __str__(self) -> str:
        what = f"{self.kind.value} {self.value}"
        end = "unknown" if self.ended == UNKNOWN else f"{self.ended:.4f}"
        return f"{self.client} {what} [{self.began:.4f}, {end}]"


class TooLong(Exception):
    """The search took too many steps: nothing is known."""


def is_linearizable(
    operations: Sequence[Operation], initial: str | None = None, most_states: int = MOST_STATES
) -> bool:
    """:raises TooLong: where it cannot be told in time."""
    ordered = sorted(
        # A read whose answer never came says nothing.
        (one for one in operations if one.kind is not Kind.READ or one.ended != UNKNOWN),
        key=lambda one: one.began,
    )
    certain = sum(1 << place for place, one in enumerate(ordered) if one.ended != UNKNOWN)
    seen: set[tuple[int, str | None]] = set()
    stack: list[tuple[int, str | None]] = [(0, initial)]
    while stack:
        state = stack.pop()
        if state in seen:
            continue
        seen.add(state)
        if len(seen) > most_states:
            raise TooLong(f"{len(ordered)} operations need more than {most_states} states")
        done, value = state
        if done & certain == certain:
            return True
        first_end = UNKNOWN
        for place, one in enumerate(ordered):
            if one.began > first_end:
                break
            if not done >> place & 1:
                first_end = min(first_end, one.ended)
        for place, one in enumerate(ordered):
            if one.began > first_end:
                break
            if done >> place & 1:
                continue
            after = one.value
            if one.kind is Kind.APPEND:
                after = (value or "") + (one.value or "")
            if one.kind is not Kind.READ or one.value == value:
                stack.append((done | 1 << place, after))
    return False
