"""Looking more than once: how much of alpha each look may spend, and the limit that the statistic has to cross.

Lan and DeMets (1983) spend alpha as the experiment goes on, so that looks need not be equally far apart. The spending
function is their O'Brien-Fleming one: next to nothing is spent early, and the last limit is close to that of a single
test. Limits follow from the joint distribution of the statistics, integrated look by look (Armitage, McPherson and Rowe
1969; Jennison and Turnbull 2000, chapter 19).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Density = tuple[Floats, Floats] | None
"""Nodes and the probability mass that each stands for; None before the first look."""

NODES = 160
FURTHEST = 9.0
"""A limit that nothing crosses, in standard errors."""
WIDEST = 7.0
"""Statistics are followed this far from 0."""
CLOSEST = 0.995
"""Looks that are more alike than this count as this much alike: the limit is then a little too strict."""


def spending(fractions: npt.ArrayLike, alpha: float) -> Floats:
    """Alpha of one side that may be spent by each fraction of the experiment (O'Brien-Fleming type).

    Args:
        fractions: (n,) shares of the experiment that are over, 0 to 1.
        alpha: two-sided.

    Returns:
        (n,) cumulative error probability of one side; alpha / 2 at 1.
    """
    from scipy.stats import norm

    over = np.clip(np.asarray(fractions, dtype=float), 1e-9, 1.0)
    return np.asarray(2 * norm.sf(norm.isf(alpha / 4) / np.sqrt(over)), dtype=float)


def limits(fractions: Sequence[float], alpha: float, correlations: Sequence[float] | None = None) -> Floats:
    """The limits that |z| has to reach at each look, so that all looks together err with probability alpha.

    Args:
        fractions: (n,) shares of the experiment that are over at the looks, rising; the last one counts as 1 or less.
        alpha: two-sided.
        correlations: (n - 1,) of the statistics of neighbouring looks under no effect. Where None, those of
            independent increments: sqrt(earlier / later).

    Returns:
        (n,) in standard errors; `FURTHEST` where there is nothing to spend.
    """
    from scipy.optimize import brentq

    spent = spending(fractions, alpha)
    found: list[float] = []
    density: Density = None
    for look, (total, before) in enumerate(zip(spent, [0.0, *spent[:-1]], strict=True)):
        step = total - before
        rho = 0.0 if look == 0 else _correlation(fractions, correlations, look)

        def excess(limit: float, density: Density = density, rho: float = rho, step: float = step) -> float:
            return _crossing(density, limit, rho, 0.0) - step

        found.append(FURTHEST if step <= 0 or excess(FURTHEST) >= 0 else float(brentq(excess, 0.0, FURTHEST)))
        density = _carry(density, found[-1], rho, 0.0)
    return np.array(found)


def inflation(looks: int, alpha: float, power: float) -> float:
    """By how much planned looks at equal distances enlarge the sample of a single test.

    Returns:
        A factor, 1 for one look.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    fixed = norm.isf(alpha / 2) + norm.ppf(power)
    if looks <= 1:
        return 1.0
    fractions = [(look + 1) / looks for look in range(looks)]
    bounds = limits(fractions, alpha)

    def lacking(drift: float) -> float:
        return power_of(bounds, fractions, drift) - power

    needed = brentq(lacking, fixed, 2 * fixed)
    return float((needed / fixed) ** 2)


def power_of(bounds: npt.ArrayLike, fractions: Sequence[float], drift: float) -> float:
    """The probability that the statistic crosses an upper limit at some look.

    Args:
        bounds: (n,) what `limits` gives.
        fractions: (n,) as there.
        drift: expected value of the statistic at the end.
    """
    crossed, mean = 0.0, 0.0
    density: Density = None
    for look, (bound, fraction) in enumerate(zip(np.asarray(bounds, dtype=float), fractions, strict=True)):
        rho = 0.0 if look == 0 else _correlation(fractions, None, look)
        shift = drift * np.sqrt(fraction) - rho * mean
        mean = drift * np.sqrt(fraction)
        crossed += _crossing(density, bound, rho, shift)
        density = _carry(density, bound, rho, shift)
    return crossed


def _correlation(fractions: Sequence[float], correlations: Sequence[float] | None, look: int) -> float:
    rho = np.sqrt(fractions[look - 1] / fractions[look]) if correlations is None else correlations[look - 1]
    return float(np.clip(rho, 0.0, CLOSEST))


def _crossing(density: Density, bound: float, rho: float, shift: float) -> float:
    """Probability of crossing the upper limit at this look, not having crossed before."""
    from scipy.special import ndtr

    if density is None:
        return float(ndtr(shift - bound))
    nodes, mass = density
    return float(mass @ ndtr((rho * nodes + shift - bound) / np.sqrt(1 - rho**2)))


def _carry(density: Density, bound: float, rho: float, shift: float) -> tuple[Floats, Floats]:
    """Nodes within the limits of this look, and the probability mass that each stands for."""
    nodes, weights = _gauss()
    reach = min(bound, WIDEST)
    nodes, weights = nodes * reach, weights * reach / np.sqrt(2 * np.pi)
    if density is None:
        return nodes, weights * np.exp(-((nodes - shift) ** 2) / 2)
    before, mass = density
    spread = np.sqrt(1 - rho**2)
    kernel = np.exp(-(((nodes[:, None] - shift - rho * before[None, :]) / spread) ** 2) / 2)
    return nodes, weights / spread * (kernel @ mass)


@cache
def _gauss() -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights
