"""Intervals for shares that are counted."""

import math

Z = 1.959963984540054  # standard deviations on either side that hold 95 % of a normal distribution

Interval = tuple[float, float]


def wilson(successes: int, trials: int) -> Interval:
    """Return the 95 % score interval of a share (Wilson 1927)."""
    share, z2 = successes / trials, Z * Z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    half = spread * Z / (1 + z2 / trials)
    low = middle - half if successes else 0.0  # without what rounding leaves of it
    return low, middle + half if successes < trials else 1.0
