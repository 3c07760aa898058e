"""Fewer strikes that break the same promise: what a person then has to understand.

Delta debugging, as Zeller describes it: leave out halves, then quarters, and so on, and keep what
still fails. A run is decided by its seed and its strikes, so that each try says the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

MOST_TRIES = 60


def shrink(
    strikes: Sequence[int], fails: Callable[[Sequence[int]], bool], most_tries: int = MOST_TRIES
) -> list[int]:
    """A small part of the strikes with which it still fails.

    :param strikes: with which it fails.
    :param fails: whether it does with these.
    """
    left, parts, tries = list(strikes), 2, 0
    while len(left) > 1:
        size = -(-len(left) // parts)
        for start in range(0, len(left), size):
            if tries >= most_tries:
                return left
            fewer = left[:start] + left[start + size :]
            tries += 1
            if fails(fewer):
                left, parts = fewer, max(2, parts - 1)
                break
        else:
            if size == 1:
                return left
            parts = min(len(left), 2 * parts)
    return [] if left and tries < most_tries and fails([]) else left
