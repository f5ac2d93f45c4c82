"""Is an association more than chance: exact tests of many two-by-two tables, and what many tests cost."""

import numpy as np
import numpy.typing as npt

LEVEL = 0.05
"""The false discovery rate that is let through."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def fisher_more(both: npt.ArrayLike, one: npt.ArrayLike, other: npt.ArrayLike, total: npt.ArrayLike) -> Floats:
    """Fisher's exact test, one-sided, for each row: do two things meet more often than chance lets them?

    Args:
        both: (n,) how often both were there.
        one: (n,) how often the first was there.
        other: (n,) how often the second was there.
        total: (n,) of how many.

    Returns:
        (n,) the probability of `both` or more where the two are independent.
    """
    from scipy.stats import hypergeom

    return np.asarray(hypergeom.sf(np.asarray(both) - 1, total, one, other), dtype=float)


def fisher_either(both: npt.ArrayLike, one: npt.ArrayLike, other: npt.ArrayLike, total: npt.ArrayLike) -> Floats:
    """As `fisher_more`, two-sided: twice the smaller tail (Cox and Hinkley 1974), at most 1."""
    from scipy.stats import hypergeom

    fewer = np.asarray(hypergeom.cdf(both, total, one, other), dtype=float)
    doubled: Floats = 2 * np.minimum(fewer, fisher_more(both, one, other, total))
    return np.clip(doubled, 0.0, 1.0)


def benjamini_hochberg(p: npt.ArrayLike, tests: int | None = None) -> Floats:
    """The smallest false discovery rate at which each finding holds (Benjamini and Hochberg 1995).

    Args:
        p: (n,) p-values.
        tests: how many tests were made, where only the promising ones are in `p`: the others count as p = 1.

    Returns:
        (n,) q-values, in the order of `p`.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    raw = values[order] * max(tests or 0, len(values)) / np.arange(1, len(values) + 1)
    q = np.empty_like(values)
    q[order] = np.minimum(1.0, np.minimum.accumulate(raw[::-1])[::-1])
    return q


def holm(p_values: Floats) -> Floats:
    """Holm's (1979) adjusted p-values of all tests together, in the shape they came in; NaN counts as 1."""
    p = np.nan_to_num(p_values.ravel(), nan=1.0)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted.reshape(p_values.shape)
