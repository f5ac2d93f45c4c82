"""Could the difference between two groups be chance? A permutation test of any pair of groups and any metric.

Groups are dealt anew among the users and the difference is measured again, many times. The largest less the smallest
of several groups is never below 0, so that no interval around it can tell; this test compares it with what dealing
alone gives, and holds for groups with a handful of churned users, whose bootstrap would be sure of a rate of 0.

- Differences are divided by their standard error, without which groups that differ in spread alone would be told to
  differ in the metric (DiCiccio and others 2020, "Evaluating Fairness Using Permutation Tests", KDD). That of an AUC
  is DeLong's (1988). The variance within a group is drawn a little to that of all users (PRIOR), as in moderated
  t-statistics (Smyth 2004): three users alike have no spread, and would decide every test.
- Rates among churned users, or among those who stayed, and AUC deal the groups anew within each class, so that
  another base rate is not taken for another rate of errors.
- Each is compared with the largest over all pairs and metrics of the attribute in a permutation (max-T, Westfall and
  Young 1993): the more pairs, the more is asked of each.
"""

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import MAX_CELLS, Outcome

PERMUTATIONS = 1000
PRIOR = 10
"""Users that the variance of all users counts for."""

TESTED = (
    "base_rate",
    "calibration_in_the_large",
    "selection_rate",
    "false_positive_rate",
    "false_negative_rate",
    "auc",
)

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Moments = tuple[FloatArray, FloatArray]
"""Figures and squared standard errors, shape (metrics, groups)."""


def pair_p_values(outcome: Outcome, contacted: BoolArray, codes: IntArray, seed: int) -> dict[str, FloatArray]:
    """Adjusted p-values of the difference between each two groups.

    Args:
        outcome: probabilities of the users who are in a group, and what happened.
        contacted: whether each is above its threshold, shape (rows,).
        codes: the group of each, 0 to groups - 1, shape (rows,).
        seed: of the permutations.

    Returns:
        Each of TESTED to a symmetric matrix of shape (groups, groups); 1 where a figure is not defined.
    """
    rng = np.random.default_rng(seed)
    groups = int(codes.max()) + 1
    first, second = np.triu_indices(groups, k=1)
    churned, stayed = np.flatnonzero(outcome.y > 0), np.flatnonzero(outcome.y == 0)
    everyone = np.column_stack([outcome.y, outcome.probability - outcome.y, contacted])
    spread = _spread(outcome.score, churned, stayed)

    def statistics(dealt: IntArray, within: IntArray) -> FloatArray:
        parts = [
            _means(everyone, dealt, groups),
            _means(everyone[stayed, 2:], within[stayed], groups),
            _means(1 - everyone[churned, 2:], within[churned], groups),
            _aucs(outcome.score, churned, stayed, within, groups, spread),
        ]
        value, error = np.vstack([each for each, _ in parts]), np.vstack([each for _, each in parts])
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.abs(value[:, first] - value[:, second]) / np.sqrt(error[:, first] + error[:, second])
        # Rounded, so that equal counts give equal statistics.
        return np.asarray(np.round(np.nan_to_num(ratio, nan=0.0, posinf=0.0), 9), dtype=np.float64)

    observed = statistics(codes, codes)
    largest = [observed.max()]
    for _ in range(_count(len(codes))):
        within = codes.copy()
        for members in (churned, stayed):
            within[members] = codes[rng.permutation(members)]
        largest.append(statistics(codes[rng.permutation(len(codes))], within).max())
    reached = len(largest) - np.searchsorted(np.sort(largest), observed, side="left")
    found = {}
    for metric, p in zip(TESTED, reached / len(largest), strict=True):
        matrix = np.ones((groups, groups))
        matrix[first, second] = matrix[second, first] = p
        found[metric] = matrix
    return found


def _count(rows: int) -> int:
    return int(np.clip(MAX_CELLS // max(rows, 1), 300, PERMUTATIONS))


def _means(values: FloatArray, codes: IntArray, groups: int) -> Moments:
    """Means of columns by group, and their squared standard errors."""
    member = (codes == np.arange(groups)[:, None]).astype(np.float64)
    users = member.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (member @ values).T / users
        variance = (member @ values**2).T / users - mean**2
        overall = values.var(axis=0) if len(values) else np.zeros(values.shape[1])
        return mean, _drawn(variance, overall[:, None], users) / users


def _drawn(variance: FloatArray, overall: FloatArray | float, users: FloatArray | int) -> FloatArray:
    return np.asarray((users * variance + PRIOR * overall) / (users + PRIOR))


def _placements(score: FloatArray, churned: IntArray, stayed: IntArray) -> tuple[FloatArray, FloatArray]:
    """For each churned user the share of the others that it is ranked above, and for each of these the share of the
    churned that it is ranked below; ties count half.
    """
    high, low = np.sort(score[churned]), np.sort(score[stayed])
    beaten = np.searchsorted(low, high) + np.searchsorted(low, high, side="right")
    beaten_by = 2 * len(high) - np.searchsorted(high, low) - np.searchsorted(high, low, side="right")
    return beaten / (2 * len(low)), beaten_by / (2 * len(high))


def _spread(score: FloatArray, churned: IntArray, stayed: IntArray) -> tuple[float, float]:
    if not len(churned) or not len(stayed):
        return 0.0, 0.0
    late, early = _placements(score, churned, stayed)
    return float(late.var()), float(early.var())


def _aucs(
    score: FloatArray, churned: IntArray, stayed: IntArray, codes: IntArray, groups: int, spread: tuple[float, float]
) -> Moments:
    """AUC of each group, and its squared standard error after DeLong."""
    value, error = np.full((1, groups), np.nan), np.full((1, groups), np.nan)
    for group in range(groups):
        high, low = churned[codes[churned] == group], stayed[codes[stayed] == group]
        if not len(high) or not len(low):
            continue
        late, early = _placements(score, high, low)
        value[0, group] = late.mean()
        error[0, group] = _drawn(late.var(), spread[0], len(late)) / len(late)
        error[0, group] += _drawn(early.var(), spread[1], len(early)) / len(early)
    return value, error
