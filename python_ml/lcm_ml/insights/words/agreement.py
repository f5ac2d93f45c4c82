"""How well sentiment agrees with ratings, with intervals: macro-F1, accuracy and rank correlation."""

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.words.sentiment import LABELS

DRAWS = 500
METRICS = ("macro_f1", "accuracy", "rank_correlation")

Interval = tuple[float, float, float]


def agreement(
    truth: pl.Series,
    predicted: pl.Series,
    groups: pl.Series,
    scores: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
    seed: int = 0,
) -> dict[str, Interval]:
    """Each metric with its 95 % interval: a bootstrap over groups, since a user's texts are alike.

    Args:
        truth: labels.
        predicted: labels.
        groups: who wrote each text.
        scores: sentiment and rating of each text, for Kendall's tau-b's quicker relative, Spearman's correlation.
        seed: of the resampling.

    Returns:
        macro_f1 (over the labels that occur in truth), accuracy, and rank_correlation where scores are given: value,
        ci_low, ci_high; NaN where not defined.
    """
    place = {label: k for k, label in enumerate(LABELS)}
    actual, told = (series.replace_strict(place, return_dtype=pl.Int64).to_numpy() for series in (truth, predicted))
    owner = groups.rank("dense").to_numpy() - 1
    owners = int(owner.max()) + 1 if len(owner) else 0
    rng = np.random.default_rng(seed)
    # The first row is the sample itself; the others Poisson(1) counts for a bootstrap over writers.
    times = np.vstack([np.ones(owners), rng.poisson(1.0, (DRAWS, owners))]) if owners else np.ones((1, 0))
    cells = np.zeros((owners, len(LABELS) ** 2))
    np.add.at(cells, (owner, actual * len(LABELS) + told), 1)
    tables = (times @ cells).reshape(-1, len(LABELS), len(LABELS))
    right = np.diagonal(tables, axis1=1, axis2=2)
    sums = tables.sum(axis=2) + tables.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(sums > 0, 2 * right / sums, 0.0)
        accuracy = right.sum(axis=1) / tables.sum(axis=(1, 2))
    there = tables[0].sum(axis=1) > 0
    found = {
        "macro_f1": _summary(f1[:, there].mean(axis=1) if there.any() else np.full(len(times), np.nan)),
        "accuracy": _summary(accuracy),
    }
    if scores is not None:
        found["rank_correlation"] = _summary(_correlations(*scores, owner, times))
    return found


def _correlations(
    left: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
    times: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Spearman's correlation in each resample; ranks are those of the sample, which changes little and costs less."""
    from scipy.stats import rankdata

    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (left, right))
    sums = np.zeros((times.shape[1], 6))
    for column, values in enumerate((np.ones_like(x), x, y, x * x, y * y, x * y)):
        np.add.at(sums[:, column], owner, values)
    n, sx, sy, sxx, syy, sxy = (times @ sums).T
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (sxx - sx * sx / n) * (syy - sy * sy / n)
        return np.where(spread > 1e-9, (sxy - sx * sy / n) / np.sqrt(np.maximum(spread, 1e-300)), np.nan)


def _summary(values: npt.NDArray[np.float64]) -> Interval:
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)
