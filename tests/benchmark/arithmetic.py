"""Medians, spreads and percentiles: pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """A median, and between which values the middle half is."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Sum up what was measured again and again."""
    if not values:
        raise ValueError("nothing was measured")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def by_turns(sides: Sequence[T], number: int) -> Sequence[T]:
    """Return the sides in another order each time: what comes first has no advantage of it."""
    return [*sides[number % len(sides) :], *sides[: number % len(sides)]]


def of_pairs(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Sum up ratios: of each measurement to the one that was made beside it, for what disturbed one disturbed both."""
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent do not exceed."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * percent * 1000) // 100_000) - 1)]
