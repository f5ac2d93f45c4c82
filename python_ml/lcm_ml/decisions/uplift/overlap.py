"""Whether treated and untreated users can be compared: randomised arms, or enough of both among users alike."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.decisions.uplift.learners import OUTCOME_TREES, boosted
from lcm_ml.decisions.uplift.trial import BoolArray, IntArray, folds_of

LOW, HIGH = 0.05, 0.95
"""Rows whose propensity lies outside have next to no counterpart in the other arm."""
LEAST_SHARE = 0.8
LEAST_ARM = 200
FOLDS = 3
BINS = 20
RANDOMISED, OBSERVATIONAL = "randomised", "observational"


@dataclass(frozen=True)
class Overlap:
    """Propensities, and what they say. Arrays have shape (rows,).

    Attributes:
        design: randomised, where features do not tell the arms of a campaign apart beyond chance; else observational.
        propensity: randomised: the campaign's share treated; observational: cross-fitted, calibrated by construction.
        estimated: what features say of the arm, whatever the design.
        is_compared: rows inside LOW to HIGH.
        auc: how well features tell the arms apart within campaigns; 0.5 is not at all.
        p_value: that they do not (two-sided Wilcoxon, stratified by campaign).
    """

    design: str
    propensity: FloatArray
    estimated: FloatArray
    is_compared: BoolArray
    auc: float
    p_value: float


def check_overlap(x: FloatMatrix, treated: FloatArray, campaign: IntArray, user: IntArray, seed: int) -> Overlap:
    """Estimate propensities without the row itself and judge the design.

    Args:
        x: features, shape (rows, features).
        treated: 1.0 or 0.0, both in some campaign.
        campaign: number of the campaign.
        user: number of the user.
        seed: of folds and trees.
    """
    fold = folds_of(user, FOLDS, seed)
    estimated = np.empty(len(treated))
    for k in range(FOLDS):
        inside = fold == k
        model = boosted(x[~inside], treated[~inside], OUTCOME_TREES | {"objective": "binary:logistic"}, seed)
        estimated[inside] = model(x[inside])
    auc, p_value = _auc_within(estimated, treated, campaign)
    if p_value < 0.01 and auc > 0.5:
        design, propensity = OBSERVATIONAL, estimated
    else:
        size = np.bincount(campaign)
        design = RANDOMISED
        propensity = (np.bincount(campaign, weights=treated) / np.maximum(size, 1))[campaign]
    return Overlap(design, propensity, estimated, (propensity >= LOW) & (propensity <= HIGH), auc, p_value)


def _auc_within(score: FloatArray, treated: FloatArray, campaign: IntArray) -> tuple[float, float]:
    """Share of pairs of one campaign that the score has in order, and the p-value under no difference (van Elteren)."""
    above = pairs = variance = 0.0
    for one in np.unique(campaign):
        rows = campaign == one
        n_treated = float(treated[rows].sum())
        n_others = float(rows.sum()) - n_treated
        if n_treated == 0 or n_others == 0:
            continue
        ranks = rankdata(score[rows])[treated[rows] > 0].sum()
        above += ranks - n_treated * (n_treated + 1) / 2
        pairs += n_treated * n_others
        variance += n_treated * n_others * (n_treated + n_others + 1) / 12
    if pairs == 0:
        return float("nan"), float("nan")
    z = (above - pairs / 2) / np.sqrt(variance)
    return float(above / pairs), float(2 * norm.sf(abs(z)))


def refusal(overlap: Overlap, treated: FloatArray, rows: npt.NDArray[np.bool_]) -> str | None:
    """Why these rows (of one kind of campaign) cannot be compared; None where they can."""
    kept = rows & overlap.is_compared
    share = kept.sum() / max(rows.sum(), 1)
    if share < LEAST_SHARE:
        return (
            f"only {share:.0%} of its rows have a probability of being touched between {LOW:.0%} and {HIGH:.0%}: "
            f"the others have no counterpart in the other arm ({LEAST_SHARE:.0%} are needed)"
        )
    n_treated = int(treated[kept].sum())
    n_others = int(kept.sum()) - n_treated
    if min(n_treated, n_others) < LEAST_ARM:
        return f"{n_treated} touched and {n_others} untouched; {LEAST_ARM} of each are needed"
    return None


def histogram(overlap: Overlap, treated: FloatArray, rows: BoolArray) -> list[dict[str, object]]:
    """Rows per arm and bin of the estimated propensity: arm, bin_low, bin_high, n_touches."""
    edges = np.linspace(0, 1, BINS + 1)
    return [
        {"arm": arm, "bin_low": float(low), "bin_high": float(high), "n_touches": int(count)}
        for arm, value in (("treatment", 1.0), ("control", 0.0))
        for low, high, count in zip(
            edges[:-1],
            edges[1:],
            np.histogram(overlap.estimated[rows & (treated == value)], edges)[0],
            strict=True,
        )
    ]
