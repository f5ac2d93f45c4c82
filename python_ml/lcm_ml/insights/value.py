"""Expected purchases and spend per user: two models, held against what happened and against the naive guess."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from lcm_ml.insights import conformal, purchase_model, spend_trees
from lcm_ml.insights.conformal import LogScale
from lcm_ml.insights.purchase_model import PurchaseModel, fit_purchase_model
from lcm_ml.insights.spend_trees import SpendTrees, fit_spend_trees, with_history
from lcm_ml.insights.value_evaluation import NAIVE

HORIZONS = (30, 90, 365)
KEYS = ["user_id", "as_of_date"]
VALUE_COLUMNS = [*KEYS, "expected_purchases", "expected_amount", "amount_low", "amount_high", "probability_alive"]


@dataclass(frozen=True)
class Past:
    """What was known of a horizon at a date: other dates whose horizon was over by then.

    Attributes:
        summaries: of `frames.purchase_history.purchase_summaries`, at those dates.
        features: of `frames.purchase_history.buyers_features`, at those dates.
        outcomes: of `frames.purchase_history.purchase_outcomes`, at those dates.
    """

    summaries: pl.DataFrame
    features: pl.DataFrame
    outcomes: pl.DataFrame

    def dates(self) -> list[date]:
        """The dates, oldest first."""
        return self.summaries["as_of_date"].unique().sort().to_list()


@dataclass(frozen=True)
class Forecast:
    """What two models expect of the users of one date in one horizon.

    Attributes:
        by_history: VALUE_COLUMNS, every user who had purchased.
        by_trees: the same of those who have features; None where the trees cannot be fitted.
        trees: what gave by_trees.
    """

    by_history: pl.DataFrame
    by_trees: pl.DataFrame | None = None
    trees: SpendTrees | None = None

    def combined(self) -> pl.DataFrame | None:
        """by_trees, and by_history where the trees know nothing, in the order of by_history."""
        if self.by_trees is None:
            return None
        left = self.by_history.join(self.by_trees, on=KEYS, how="left", suffix="_trees", maintain_order="left")
        return left.select(
            *KEYS,
            *(
                pl.coalesce(f"{name}_trees", name).alias(name) if name != "probability_alive" else pl.col(name)
                for name in VALUE_COLUMNS[2:]
            ),
        )


def with_outcomes(rows: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """The rows with purchases and amount, 0 where nothing was purchased, in the same order."""
    joined = rows.join(outcomes, on=KEYS, how="left", maintain_order="left")
    return joined.with_columns(pl.col("purchases", "amount").fill_null(0.0))


def naive(users: pl.DataFrame, horizon_days: int) -> pl.DataFrame:
    """The same as last period: what was purchased in the `horizon_days` before the date, once more."""
    return users.select(
        *KEYS,
        expected_purchases=pl.col(f"purchases_last_{horizon_days}"),
        expected_amount=pl.col(f"amount_last_{horizon_days}"),
    )


def forecast(
    users: pl.DataFrame,
    features: Iterable[pl.DataFrame],
    model: PurchaseModel,
    quantiles: Mapping[int, "conformal.FloatArray"],
    past: Past | None,
    horizon_days: int,
    seed: int = 0,
    use_trees: bool = True,
) -> Forecast:
    """What is expected of the users of one date.

    Args:
        users: summaries of everybody who had purchased by the date.
        features: of those who have any, some users at a time.
        model: fitted to `users`.
        quantiles: of the spend by horizon, from `model.quantiles(users, ...)`.
        past: what is known of the horizon; None where no other date's horizon is over.
        horizon_days: the horizon.
        seed: of simulation and trees.
        use_trees: whether to fit them.

    Returns:
        The forecasts. Without a past, the intervals are the purchase model's own, and there are no trees.
    """
    moment = users.item(0, "as_of_date")
    scale = LogScale(model.unit)
    margin = _margin_of_history(past, horizon_days, seed) if past is not None else 0.0
    ends = conformal.moved(conformal.from_quantiles(scale.to(quantiles[horizon_days])), margin)
    by_history = model.predict(users, horizon_days).with_columns(
        amount_low=scale.back(ends.low), amount_high=scale.back(ends.high)
    )
    by_history = by_history.select(VALUE_COLUMNS)
    if past is None or not use_trees:
        return Forecast(by_history)
    rows = with_outcomes(with_history(past.features, past.summaries, model, horizon_days), past.outcomes)
    trees = fit_spend_trees(rows, moment, horizon_days, model.unit, seed)
    if trees is None:
        return Forecast(by_history)
    known = (with_history(part, users, model, horizon_days) for part in features)
    # Ids of their own: those that DuckDB gave would hold all columns of their part in memory.
    own_ids = pl.concat_str("user_id", pl.lit(""))
    parts = [trees.predict(part).with_columns(own_ids) for part in known if part.height]
    if not parts:
        return Forecast(by_history)
    predicted = pl.concat(parts).sort("user_id")
    alive = by_history.select(*KEYS, "probability_alive")
    return Forecast(by_history, predicted.join(alive, on=KEYS).select(VALUE_COLUMNS), trees)


def _margin_of_history(past: Past, horizon_days: int, seed: int) -> float:
    """How far the purchase model's intervals missed, at the last date known, when fitted to what was known then."""
    users = past.summaries.filter(pl.col("as_of_date") == past.dates()[-1])
    if not purchase_model.is_enough(users):
        return 0.0
    model = fit_purchase_model(users, seed)
    scale = LogScale(model.unit)
    intervals = conformal.from_quantiles(scale.to(model.quantiles(users, [horizon_days], seed)[horizon_days]))
    return conformal.margin(intervals, scale.to(with_outcomes(users, past.outcomes)["amount"].to_numpy()))


def compared(forecasts: Forecast, users: pl.DataFrame, horizon_days: int) -> dict[str, pl.DataFrame]:
    """Each model's forecast of the same users in the same order, the naive one first."""
    found = {NAIVE: naive(users, horizon_days), purchase_model.NAME: forecasts.by_history}
    combined = forecasts.combined()
    return found if combined is None else {**found, spend_trees.NAME: combined}


def value_rows(forecasts: Forecast, horizon_days: int, served: str) -> pl.DataFrame:
    """Both models' forecasts as rows of ml.user_values without run_id, by user; one of each is marked as served."""
    has_trees = (
        pl.lit(False)
        if forecasts.by_trees is None or served != spend_trees.NAME
        else pl.col("user_id").is_in(forecasts.by_trees["user_id"].implode())
    )
    parts = [forecasts.by_history.with_columns(model_name=pl.lit(purchase_model.NAME), is_served=~has_trees)]
    if forecasts.by_trees is not None:
        parts.append(forecasts.by_trees.with_columns(model_name=pl.lit(spend_trees.NAME), is_served=has_trees))
    return pl.concat(parts).with_columns(horizon_days=pl.lit(horizon_days, pl.Int32)).sort("user_id", "model_name")


def concentration(lifetime: pl.DataFrame) -> dict[str, float]:
    """How unevenly value is spread.

    Args:
        lifetime: a column lifetime_value.

    Returns:
        total; top_tenth_share, the share of the total that the highest tenth of users holds; gini (0: all alike).
    """
    values = np.sort(lifetime["lifetime_value"].to_numpy())
    users, total = len(values), float(values.sum())
    if total <= 0:
        return {"total": total, "top_tenth_share": float("nan"), "gini": float("nan")}
    ranks = np.arange(1, users + 1)
    return {
        "total": total,
        "top_tenth_share": float(values[users - max(1, round(users / 10)) :].sum() / total),
        "gini": float((2 * ranks - users - 1) @ values / (users * total)),
    }
