"""Figures of a measurement: medians with their spread, percentiles, and rates."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypeAlias

Figures: TypeAlias = dict[str, float]

PERCENTILES = (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))


def spread(values: Sequence[float]) -> Figures:
    """The median of several runs, and how far they lie apart; of one value at least."""
    return {
        "runs": len(values),
        "median": rounded(statistics.median(values)),
        "least": rounded(min(values)),
        "most": rounded(max(values)),
    }


def percentiles(values: Sequence[float]) -> Figures:
    """By nearest rank: what so many of the values do not exceed; of one value at least."""
    ordered = sorted(values)
    last = len(ordered) - 1
    found = {name: rounded(ordered[round(share * last)]) for name, share in PERCENTILES}
    return found | {"most": rounded(ordered[-1])}


def rounded(value: float) -> float:
    """To four digits: more would be noise."""
    return float(f"{value:.4g}")
