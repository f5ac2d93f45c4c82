"""What a fit or an evaluation found, as rows of the ml tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from lcm_ml.churn.evaluation import Comparison, Fold, FoldFigures
from lcm_ml.churn.metrics import Measured, Outcome, figure, mass_bins
from lcm_ml.churn.model import ChurnModel
from lcm_ml.churn.scoring import deciles

CURVE_POINTS = 200
FLOATS = ("value", "ci_low", "ci_high", "difference")


def figures(models: dict[str, dict[str, Measured]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Model, metric and figure, as JSON takes them."""
    return {
        name: {metric: figure(measured) for metric, measured in metrics.items()} for name, metrics in models.items()
    }


def metric_rows(
    run_id: str, split: str, folds: Sequence[FoldFigures], versions: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Rows of ml.model_metrics, one per date, model and metric."""
    return [
        {
            "run_id": run_id,
            "model_name": model,
            "model_version": (versions or {}).get(model),
            "split": split,
            "as_of_date": fold.as_of_date,
            "metric": metric,
            **figure(measured),
            "n_users": fold.n_users,
            "n_churned": fold.n_churned,
        }
        for fold in folds
        for model, metrics in fold.models.items()
        for metric, measured in metrics.items()
    ]


def mean_rows(
    run_id: str, split: str, folds: Sequence[FoldFigures], mean: dict[str, dict[str, Measured]]
) -> list[dict[str, Any]]:
    """Rows of ml.model_metrics for the mean over dates: their as_of_date is null, their counts are sums."""
    return [
        {
            "run_id": run_id,
            "model_name": model,
            "model_version": None,
            "split": split,
            "as_of_date": None,
            "metric": metric,
            **figure(measured),
            "n_users": sum(fold.n_users for fold in folds),
            "n_churned": sum(fold.n_churned for fold in folds),
        }
        for model, metrics in mean.items()
        for metric, measured in metrics.items()
    ]


def comparison_rows(run_id: str, comparisons: Iterable[Comparison]) -> list[dict[str, Any]]:
    """Rows of ml.model_comparisons."""
    rows = []
    for found in comparisons:
        measured = figure(found.difference)
        rows.append(
            {
                "run_id": run_id,
                "model_name": found.model,
                "reference_name": found.reference,
                "metric": found.metric,
                "difference": measured["value"],
                "ci_low": measured["ci_low"],
                "ci_high": measured["ci_high"],
                "n_dates": found.n_dates,
            }
        )
    return rows


def prediction_rows(run_id: str, fold: Fold, versions: dict[str, str] | None = None) -> pl.DataFrame:
    """Rows of ml.evaluation_predictions: the estimators' probabilities of one date, with what happened."""
    return pl.concat(
        pl.DataFrame({"user_id": outcome.users, "churn_probability": outcome.probability, "is_churned": outcome.y > 0})
        .with_columns(
            run_id=pl.lit(run_id),
            model_name=pl.lit(name),
            model_version=pl.lit((versions or {}).get(name), dtype=pl.String),
            as_of_date=pl.lit(fold.split.test),
        )
        .cast({"user_id": pl.String})
        for name, outcome in fold.outcomes.items()
        if name in fold.fitted
    )


def calibration_rows(run_id: str, fold: Fold) -> list[dict[str, Any]]:
    """Rows of ml.calibration_bins: ten bins of equal mass for each estimator."""
    return [
        {"run_id": run_id, "model_name": name, "as_of_date": fold.split.test, **row}
        for name, outcome in fold.outcomes.items()
        if name in fold.fitted
        for row in _bins(outcome)
    ]


def _bins(outcome: Outcome) -> list[dict[str, Any]]:
    rows = pl.DataFrame({"bin": mass_bins(outcome.probability) + 1, "p": outcome.probability, "y": outcome.y})
    return (
        rows.group_by("bin")
        .agg(n_users=pl.len(), mean_probability=pl.col("p").mean(), churn_rate=pl.col("y").mean())
        .sort("bin")
        .to_dicts()
    )


def lift_rows(run_id: str, fold: Fold) -> list[dict[str, Any]]:
    """Rows of ml.lift_bins: deciles of risk for each model and the baseline, 1 the highest."""
    return [
        {"run_id": run_id, "model_name": name, "as_of_date": fold.split.test, **row}
        for name, outcome in fold.outcomes.items()
        for row in _lift(outcome)
    ]


def _lift(outcome: Outcome) -> list[dict[str, Any]]:
    users = pl.Series(outcome.users, dtype=pl.String)
    rows = pl.DataFrame({"decile": deciles(outcome.score, users), "y": outcome.y})
    base, total = outcome.y.mean(), outcome.y.sum()
    return (
        rows.group_by("decile")
        .agg(n_users=pl.len(), churn_rate=pl.col("y").mean(), churned=pl.col("y").sum())
        .sort("decile")
        .with_columns(lift=pl.col("churn_rate") / base, cumulative_gain=pl.col("churned").cum_sum() / total)
        .drop("churned")
        .to_dicts()
    )


def importance_rows(run_id: str, models: Iterable[ChurnModel]) -> list[dict[str, Any]]:
    """Rows of ml.feature_importance."""
    return [
        {
            "run_id": run_id,
            "model_name": model.name,
            "method": "model",
            "feature": name,
            "importance": weight,
            "ci_low": None,
            "ci_high": None,
            "rank": rank,
        }
        for model in models
        for rank, (weight, name) in enumerate(
            sorted(
                zip(model.estimator.importance().tolist(), model.encoding.names, strict=True),
                key=lambda pair: (-pair[0], pair[1]),
            ),
            start=1,
        )
    ]


def curve_rows(run_id: str, fold: Fold) -> pl.DataFrame:
    """Rows of ml.training_curves, thinned to about CURVE_POINTS for each model and part."""
    rows = []
    for name, fitted in fold.fitted.items():
        for part, losses in fitted.curves.items():
            step = len(losses) // CURVE_POINTS + 1
            rows += [
                {
                    "run_id": run_id,
                    "model_name": name,
                    "split": part,
                    "iteration": iteration,
                    "log_loss": losses[iteration - 1],
                }
                for iteration in range(1, len(losses) + 1, step)
            ]
    return pl.DataFrame(rows)


def rows_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a frame, whose figures stay numbers and whose versions stay text even where all are null."""
    overrides: dict[str, Any] = dict.fromkeys(FLOATS, pl.Float64) | {"model_version": pl.String}
    present = {name: kind for name, kind in overrides.items() if rows and name in rows[0]}
    return pl.DataFrame(rows, schema_overrides=present, infer_schema_length=None)
