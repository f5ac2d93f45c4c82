"""Whether an effect differs between segments of users."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.decisions.experiments.effects import Effects


@dataclass(frozen=True)
class Segments:
    """Effects within the levels of one dimension.

    Attributes:
        effects: level to effects.
        interaction: (arms - 1,) p-values: no effect differs between levels.
    """

    effects: dict[str, Effects]
    interaction: npt.NDArray[np.float64]


def effects_by_segment(
    levels: pl.Series,
    arm: npt.NDArray[np.int64],
    arms: int,
    measure: Callable[[npt.NDArray[np.bool_]], Effects],
    smallest: int,
) -> Segments:
    """Effects within each level that has `smallest` users or more in every arm.

    Args:
        levels: (n,) of each user.
        arm: (n,) 0 for control.
        arms: number of arms.
        measure: the effects among chosen users.
        smallest: users in an arm.
    """
    found: dict[str, Effects] = {}
    for level in levels.unique().sort().to_list():
        chosen = (levels == level).to_numpy()
        if np.bincount(arm[chosen], minlength=arms).min() >= max(2, smallest):
            effects = measure(chosen)
            if np.isfinite(effects.p_values).all():
                found[level] = effects
    return Segments(found, heterogeneity(list(found.values()), arms))


def heterogeneity(found: list[Effects], arms: int) -> npt.NDArray[np.float64]:
    """Cochran's Q (1954): the p-values, for each arm but control, of effects being the same in all segments."""
    from scipy.stats import chi2

    if len(found) < 2:
        return np.ones(arms - 1)
    effects = np.array([each.effects for each in found])
    weights = 1 / np.array([each.errors for each in found]) ** 2
    centre = (weights * effects).sum(axis=0) / weights.sum(axis=0)
    return np.asarray(chi2.sf((weights * (effects - centre) ** 2).sum(axis=0), len(found) - 1), dtype=float)
