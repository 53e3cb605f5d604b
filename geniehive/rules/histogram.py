"""Times counted in buckets, so that sums of many requests still tell a median.

A histogram is a list of upper bounds and one count more than these: the last counts what is above all bounds.
"""

from bisect import bisect_left
from collections.abc import Sequence

# Seconds, each twice the one before: from what a warm embedding takes to what a long answer of a slow machine does.
BOUNDS = tuple(0.0125 * 2**n for n in range(16))


def rebin(bounds: Sequence[float], counts: Sequence[int], onto: Sequence[float]) -> list[int]:
    """The counts in the buckets of other bounds; what was counted as below a bound still is."""
    found = [0] * (len(onto) + 1)
    for bound, count in zip(bounds, counts, strict=False):
        found[bisect_left(onto, bound)] += count
    for count in counts[len(bounds) :]:
        found[-1] += count
    return found


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """The time that this share of what was counted did not exceed, as far as buckets tell it; None if nothing was.

    share: 0.5 for the median. Above all bounds nothing but the highest bound is known.
    """
    total = sum(counts)
    if not total or not bounds:
        return None
    wanted = share * total
    below = 0.0
    for number, count in enumerate(counts[: len(bounds)]):
        if count and below + count >= wanted:
            low = bounds[number - 1] if number else 0.0
            return low + (bounds[number] - low) * (wanted - below) / count
        below += count
    return bounds[-1]
