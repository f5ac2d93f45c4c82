"""Figures by group of users: a model that is good on average may fail where it matters."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from lcm_ml.churn.evaluation import Fold
from lcm_ml.churn.metrics import Measured, Outcome, Resamples, figure, measure, take
from lcm_ml.frames.groups import DIMENSIONS

SEGMENT_METRICS = ("base_rate", "auc", "average_precision", "log_loss", "brier", "ece", "calibration_slope")


def groups_of(outcome: Outcome, groups: pl.DataFrame) -> pl.DataFrame:
    """The rows of `groups` in the order of the outcome's users; users without a group have nulls."""
    users = pl.DataFrame({"user_id": outcome.users}, schema={"user_id": pl.String})
    return users.join(groups, on="user_id", how="left", maintain_order="left")


def by_level(levels: pl.Series) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.int64]]]]:
    """Each level and the positions of its rows, in the order of the levels; nulls are left out."""
    for level in sorted(levels.drop_nulls().unique().to_list()):
        yield level, np.flatnonzero((levels == level).fill_null(False).to_numpy())


def segment_rows(
    run_id: str, fold: Fold, groups: pl.DataFrame, draws: Resamples, smallest: int
) -> list[dict[str, Any]]:
    """Rows of ml.segment_metrics for one date.

    Args:
        run_id: the run.
        fold: predictions and outcomes of the date.
        groups: user_id and DIMENSIONS at that date.
        draws: bootstrap draws of users.
        smallest: groups with fewer users have no figures.
    """
    rows = []
    aligned = groups_of(next(iter(fold.outcomes.values())), groups)
    for dimension in DIMENSIONS:
        for level, positions in by_level(aligned.get_column(dimension)):
            suppressed = len(positions) < smallest
            for model, outcome in fold.outcomes.items():
                part = take(outcome, positions)
                measured = {} if suppressed else measure_group(part, draws)
                rows += [
                    {
                        "run_id": run_id,
                        "model_name": model,
                        "as_of_date": fold.split.test,
                        "dimension": dimension,
                        "level": level,
                        "metric": metric,
                        **figure(measured.get(metric)),
                        "n_users": len(positions),
                        "n_churned": None if suppressed else int(part.y.sum()),
                    }
                    for metric in SEGMENT_METRICS
                ]
    return rows


def measure_group(part: Outcome, draws: Resamples, threshold: float = 0.5) -> dict[str, Measured]:
    """All metrics of a group of users, resampled; NaN where the group has one class only."""
    point = measure(part.y, part.score, part.probability, threshold=threshold)
    drawn = measure(part.y, part.score, part.probability, draws.weights(part.users), threshold=threshold)
    return {name: Measured(float(point[name][0]), drawn[name]) for name in point}
