"""The best prediction that a simulated shop's history allows: the posterior under the parameters that made it.

Only where the shop is the BG/NBD process and nothing else (preset plain) does this have a closed form. The hidden state
of a user (its own rate, whether it is still there) would be no fair reference: no history tells it.
"""

import json
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl

from lcm_ml.churn.bg_nbd import BgNbd
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.evaluation import Fold
from lcm_ml.churn.metrics import Measured, Outcome
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import Frame

CEILING = "ceiling"
PARAMETERS = "truth_parameters.json"


def read_truth(folder: Path) -> BgNbd:
    """The parameters of a simulated shop, from the truth folder that `lcm-ml simulate` writes.

    Raises:
        LcmError: when it is no truth folder, or the shop has no closed form.
    """
    path = folder / PARAMETERS
    if not path.is_file():
        raise LcmError(f"there is no {path}", "give the folder OUT/truth that `lcm-ml simulate --out OUT` wrote")
    truth = json.loads(path.read_text(encoding="utf-8"))
    if truth["preset"] != "plain" or truth["sensitive_effect"]:
        raise LcmError(
            f"{path}: only the preset plain has a ceiling in closed form, this is {truth['preset']}",
            "simulate with --preset plain, without --sensitive-effect",
        )
    return BgNbd(**truth["preset_parameters"]["purchases"])


def ceiling(truth: BgNbd, orders: pl.DataFrame, test: Frame) -> FloatArray:
    """Probability of no purchase in the horizon for the rows of `test`, which holds one date.

    Args:
        truth: the parameters, in days.
        orders: user_id and ordered_at of every order.
        test: the users to predict.

    Returns:
        Shape (rows,).
    """
    moment = _start(test.dates()[0])
    history = (
        orders.filter(pl.col("ordered_at") < moment)
        .group_by("user_id")
        .agg(
            x=(pl.len() - 1).cast(pl.Float64),
            t_x=_days(pl.col("ordered_at").max() - pl.col("ordered_at").min()),
            age=_days(pl.lit(moment) - pl.col("ordered_at").min()),
        )
    )
    own = test.data.select("user_id").join(history, on="user_id", how="left", maintain_order="left")
    x, t_x, age = (own.get_column(name).to_numpy() for name in ("x", "t_x", "age"))
    return truth.probability_no_purchase(x, t_x, age, test.horizon_days)


def with_ceiling(fold: Fold, truth: BgNbd, orders: pl.DataFrame, frame: Frame) -> Fold:
    """The fold with the ceiling among its outcomes."""
    best = ceiling(truth, orders, frame.at(fold.split.test))
    like = next(iter(fold.outcomes.values()))
    return replace(fold, outcomes={**fold.outcomes, CEILING: Outcome(like.users, like.y, best, best)})


def reached(mean: dict[str, dict[str, Measured]], baseline: str, models: list[str]) -> list[dict[str, Any]]:
    """How much of the way from the baseline to the ceiling each model goes.

    Returns:
        model_name, metric, value, baseline, ceiling and share (1.0 is all of it) for AUC and log loss.
    """
    return [
        {
            "model_name": model,
            "metric": metric,
            "value": mean[model][metric].value,
            "baseline": mean[baseline][metric].value,
            "ceiling": mean[CEILING][metric].value,
            "share": way(mean[model][metric].value, mean[baseline][metric].value, mean[CEILING][metric].value),
        }
        for model in models
        for metric in ("auc", "log_loss")
    ]


def way(value: float, baseline: float, best: float) -> float:
    """The share of the way from a baseline to the best there is; 1.0 is all of it."""
    return (value - baseline) / (best - baseline)


def _start(day: date) -> datetime:
    return datetime.combine(day, time())


def _days(duration: pl.Expr) -> pl.Expr:
    return duration.dt.total_microseconds() / 86_400_000_000
