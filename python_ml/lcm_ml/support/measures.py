"""Figures of recognition and search, each with its interval."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lcm_ml.insights.intervals import mean_interval

DRAWS = 500

Interval = tuple[float, float, float]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def macro_f1(truth: Sequence[str], told: Sequence[str], owners: Sequence[str], seed: int = 0) -> Interval:
    """Macro-F1 over the labels that occur in truth, with its 95 % interval: a bootstrap over owners.

    Args:
        truth: labels.
        told: labels; others than those of truth count as wrong.
        owners: who wrote each text, since a user's texts are alike.
        seed: of the resampling.

    Returns:
        value, ci_low, ci_high; NaN where there is nothing.
    """
    if not len(truth):
        return (float("nan"),) * 3
    names = sorted(set(truth) | set(told))
    place = {name: k for k, name in enumerate(names)}
    _, owner = np.unique(np.asarray(owners, dtype=str), return_inverse=True)
    cells = np.zeros((owner.max() + 1, len(names) ** 2))
    pairs = np.array([place[actual] * len(names) + place[found] for actual, found in zip(truth, told, strict=True)])
    np.add.at(cells, (owner, pairs), 1)
    # The first row is the sample itself; the others Poisson(1) counts for a bootstrap over owners.
    times = np.vstack([np.ones(len(cells)), np.random.default_rng(seed).poisson(1.0, (DRAWS, len(cells)))])
    tables = (times @ cells).reshape(-1, len(names), len(names))
    right, actual = np.diagonal(tables, axis1=1, axis2=2), tables.sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(actual > 0, 2 * right / (actual + tables.sum(axis=1)), np.nan)
    there = actual[0] > 0
    with np.errstate(invalid="ignore"):
        means = np.array([np.nanmean(row) if np.isfinite(row).any() else np.nan for row in f1[:, there]])
    low, high = np.nanpercentile(means[1:], [2.5, 97.5])
    return float(means[0]), float(low), float(high)


def search_measures(scores: Matrix, right: npt.NDArray[np.intp], refused: Mask) -> dict[str, Interval]:
    """How well articles are found and questions refused.

    Args:
        scores: (n, articles) of each question.
        right: (n,) place of the right article; -1 where there is none, and the question is to be refused.
        refused: (n,) what was.

    Returns:
        recall_at_3 and mrr of the questions with an article (refused or not; articles of equal score have their mean
        rank), refusal_precision, refusal_recall, and right_article_first (share of them that are answered, from the
        right article).
    """
    asked = right >= 0
    rank = np.full(len(right), np.inf)
    for row in np.flatnonzero(asked):
        own = scores[row, right[row]]
        rank[row] = ((scores[row] > own).sum() + (scores[row] >= own).sum() + 1) / 2
    return {
        "recall_at_3": mean_interval(rank[asked] <= 3),
        "mrr": mean_interval(1 / rank[asked]),
        "refusal_precision": mean_interval(~asked[refused]),
        "refusal_recall": mean_interval(refused[~asked]),
        "right_article_first": mean_interval((rank[asked] <= 1) & ~refused[asked]),
    }
