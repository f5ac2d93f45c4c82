"""Uncertainty of figures that are means over users."""

import numpy as np
import numpy.typing as npt
import polars as pl

DRAWS = 1000
MANY = 10_000
"""Users from whom on a mean's resamples follow a normal law so closely that none are drawn."""
Z = 1.959964
"""Standard errors on either side of a 95 % interval."""


def mean_interval(
    values: npt.ArrayLike, weights: npt.ArrayLike | None = None, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float, float]:
    """A mean over users with its 95 % bootstrap interval; of MANY users the normal one, which that comes to.

    For a paired difference of two models, give it the differences user by user; for a ratio of sums (WAPE, say), the
    ratios with the denominators as weights.

    Args:
        values: (n,), one figure per user.
        weights: (n,), 0 or more; equal where None.
        seed: of the resampling.
        draws: resamples.

    Returns:
        The mean, the lower and the upper end; NaN where there is nobody, or all weights are 0.
    """
    value = np.asarray(values, dtype=float)
    weight = np.ones_like(value) if weights is None else np.asarray(weights, dtype=float)
    if not len(value) or weight.sum() == 0:
        return (float("nan"),) * 3
    mean = float(weight @ value / weight.sum())
    if len(value) >= MANY:
        # Linearised, for a ratio of sums: what one user more or less would change (Cochran 1977, 6.3).
        error = float(np.sqrt(((weight * (value - mean)) ** 2).sum()) / weight.sum())
        return mean, mean - Z * error, mean + Z * error
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for k in range(draws):
        # Poisson(1) counts stand in for a multinomial: the same to first order, and one pass over the users.
        times = rng.poisson(1.0, len(value)) * weight
        total = times.sum()
        means[k] = (times @ value) / total if total else np.nan
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return mean, float(low), float(high)


def wilson(rate: pl.Expr, n: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """The 95 % score interval of a share (Wilson 1927): lower and upper end, within 0 to 1."""
    middle = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * (rate * (1 - rate) / n + Z**2 / (4 * n**2)).sqrt()
    return (middle - half).clip(0), (middle + half).clip(upper_bound=1)
