"""Whether a history of reads and writes can be explained by one order of them.

The search is that of Wing and Gong: linearize, one after the other, an operation that began before
every one that is left had ended; a state that was reached before by the same operations is not
looked at again. An operation of which nobody knows whether it was done may take effect at any time
after it began, or never.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

UNKNOWN = math.inf
"""When an operation ended whose outcome nobody knows."""

MOST_STATES = 200_000
"""Looked at, before the search is given up; histories that are short need some hundreds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """On one register.

    :ivar began: when it was asked for; :ivar ended: when its answer came, or ``UNKNOWN``.
    :ivar writes: whether it sets the register to `value`; else it found `value` there.
    """

    client: str
    began: float
    ended: float
    writes: bool
    value: Hashable

    def __str__(self) -> str:
        what = f"wrote {self.value}" if self.writes else f"read {self.value}"
        end = "unknown" if self.ended == UNKNOWN else f"{self.ended:.4f}"
        return f"{self.client} {what} [{self.began:.4f}, {end}]"


class TooLong(Exception):
    """The search took too many steps: nothing is known."""


def is_linearizable(
    operations: Sequence[Operation], initial: Hashable = None, most_states: int = MOST_STATES
) -> bool:
    """:raises TooLong: where it cannot be told in time."""
    ordered = sorted(
        # A read whose answer never came says nothing.
        (one for one in operations if one.writes or one.ended != UNKNOWN),
        key=lambda one: one.began,
    )
    certain = sum(1 << place for place, one in enumerate(ordered) if one.ended != UNKNOWN)
    seen: set[tuple[int, Hashable]] = set()
    stack: list[tuple[int, Hashable]] = [(0, initial)]
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
            if one.writes:
                stack.append((done | 1 << place, one.value))
            elif one.value == value:
                stack.append((done | 1 << place, value))
    return False
