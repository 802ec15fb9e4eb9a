"""Wilson's interval of a share (1927), with the arithmetic of the standard library alone."""

import math
from statistics import NormalDist

QUANTILE_95 = NormalDist().inv_cdf(0.975)


def wilson_bounds(share: float, count: float, quantile: float = QUANTILE_95) -> tuple[float, float]:
    """From where to where a *share*, 0 to 1, among so many tasks may truly lie; *count* may be no whole number."""
    squared = quantile**2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    reach = math.sqrt(squared * (share * (1 - share) / count + squared / (4 * count**2))) / (1 + squared / count)
    return (max(middle - reach, 0.0) if share > 0 else 0.0, min(middle + reach, 1.0) if share < 1 else 1.0)
