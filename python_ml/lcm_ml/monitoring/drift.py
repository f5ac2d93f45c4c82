"""Drift of features and scores against what a model was trained on.

PSI (population stability index, Siddiqi 2006; the symmetric Kullback-Leibler divergence of binned values) and the
Jensen-Shannon distance (Lin 1991). What is much follows from the past: each training date is compared with the dates
before it, as the watched date is with all of them. Season, growth and chance are in that yardstick.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.frames.frame import Frame

BINS = 10
MAX_REFERENCE = 50_000
PSI_FLOOR, PSI_CRITICAL = 0.10, 0.25
"""The folklore limits are the least that counts; a feature that always moved that much has a higher one."""
TIMES_PAST, TIMES_PAST_CRITICAL = 2.0, 4.0
JUDGED_DATES = 5


@dataclass(frozen=True)
class Drift:
    """One feature (or the score) now against training. `past`: the largest PSI that training dates had."""

    subject: str
    psi: float
    jensen_shannon: float
    missing_now: float
    missing_before: float
    past: float

    @property
    def threshold(self) -> float:
        """PSI beyond which it counts."""
        return max(PSI_FLOOR, TIMES_PAST * self.past)

    @property
    def severity(self) -> str | None:
        """critical, warning or None."""
        if self.psi > max(PSI_CRITICAL, TIMES_PAST_CRITICAL * self.past):
            return "critical"
        return "warning" if self.psi > self.threshold else None


def feature_drift(reference: Frame, now: pl.DataFrame, features: tuple[str, ...]) -> list[Drift]:
    """Each feature at the watched date against the training dates.

    Args:
        reference: the rows that the model was trained on.
        now: rows of one later date.
        features: columns of both.
    """
    return [
        drift_of(name, reference.data.select("as_of_date", pl.col(name)), now.get_column(name)) for name in features
    ]


def drift_of(name: str, reference: pl.DataFrame, now: pl.Series) -> Drift:
    """One column against the past.

    Args:
        name: what it is called.
        reference: as_of_date and the column.
        now: its values at the watched date.
    """
    column = reference.columns[1]
    dates = reference.get_column("as_of_date").unique().sort().to_list()
    by_date = {day: reference.filter(pl.col("as_of_date") == day).get_column(column) for day in dates}
    edges = _edges(reference.get_column(column))
    counts = {day: _counts(values, edges) for day, values in by_date.items()}
    past = 0.0
    for position in range(max(1, len(dates) - JUDGED_DATES), len(dates)):
        before = np.sum([counts[day] for day in dates[:position]], axis=0)
        past = max(past, psi(before, counts[dates[position]]))
    whole, current = np.sum(list(counts.values()), axis=0), _counts(now, edges)
    return Drift(
        name,
        psi(whole, current),
        jensen_shannon(whole, current),
        float(current[-1] / max(current.sum(), 1)),
        float(whole[-1] / max(whole.sum(), 1)),
        past,
    )


def psi(before: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float:
    """Population stability index of two rows of counts; half a count is added, so that empty bins stay finite."""
    p, q = _shares(before), _shares(now)
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon(before: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float:
    """Jensen-Shannon distance in base 2: 0 is the same, 1 nothing in common."""
    p, q = _shares(before), _shares(now)
    middle = (p + q) / 2
    divergence = (p * np.log2(p / middle)).sum() / 2 + (q * np.log2(q / middle)).sum() / 2
    return float(np.sqrt(max(divergence, 0.0)))


def _shares(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    padded = counts + 0.5
    return np.asarray(padded / padded.sum())


def _edges(values: pl.Series) -> Any:
    """Inner edges of bins of equal mass for numbers; the most frequent levels for anything else."""
    known = values.drop_nulls()
    if values.dtype.is_numeric():
        numbers = known.cast(pl.Float64)
        sample = numbers.sample(min(len(numbers), MAX_REFERENCE), seed=0) if len(numbers) else numbers
        return (
            np.unique(np.quantile(sample.to_numpy(), np.linspace(0, 1, BINS + 1)[1:-1]))
            if len(sample)
            else np.array([])
        )
    return known.value_counts(sort=True).head(BINS).get_column(values.name).to_list()


def _counts(values: pl.Series, edges: Any) -> npt.NDArray[np.float64]:
    """Rows in each bin; the last bin holds the missing ones."""
    missing = values.null_count()
    if isinstance(edges, np.ndarray):
        numbers = values.drop_nulls().cast(pl.Float64).to_numpy()
        # Equal to an edge counts below it, so that a frequent value (0 orders) is a bin of its own.
        found = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=len(edges) + 1)
    else:
        known = values.drop_nulls().to_list()
        places = {level: place for place, level in enumerate(edges)}
        found = np.bincount([places.get(value, len(edges)) for value in known], minlength=len(edges) + 1)
    return np.append(found, missing).astype(np.float64)
