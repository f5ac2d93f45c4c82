"""How good forecasts of purchases and spend were, once the horizon is over, and which model should serve."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights import purchase_model, spend_trees
from lcm_ml.insights.purchase_model import tenth

FloatArray = npt.NDArray[np.float64]

NAIVE = "naive"
MAX_TOTAL_ERROR = 0.1
"""A sum of expected spend further off than this share is not served where another is nearer."""
DRAWS, FEWEST_DRAWS, CELLS = 500, 100, 20_000_000


def evaluate(forecasts: Mapping[str, pl.DataFrame], outcome: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Figures of each model with 95 % intervals, bootstrapped by user with the same draws for all models.

    Args:
        forecasts: by model: expected_purchases, expected_amount and, where it has intervals, amount_low, amount_high.
        outcome: purchases and amount; row i of every frame is the same user.
        seed: of the resampling.

    Returns:
        model_name, metric, value, ci_low, ci_high, n_users. Metrics, of spend unless they say otherwise: total_ratio
        (expected over realised), spearman, mae, rmse, coverage_80 (share of users inside their interval),
        purchases_total_ratio, purchases_mae, and mae_less_NAME (paired difference to naive and BG/NBD).
    """
    users = outcome.height
    rng = np.random.default_rng(seed)
    draws = int(np.clip(CELLS // max(users, 1), FEWEST_DRAWS, DRAWS))
    parts = {name: _Errors(frame, outcome) for name, frame in forecasts.items()}
    everybody = _figures(parts, np.ones(users))
    resampled = [_figures(parts, rng.poisson(1.0, users).astype(float)) for _ in range(draws)]
    rows = []
    for (name, metric), value in everybody.items():
        low = high = None
        # A rank correlation of a constant is no number.
        if not np.isnan(value):
            low, high = np.nanpercentile([draw[name, metric] for draw in resampled], [2.5, 97.5]).tolist()
        rows.append(
            {
                "model_name": name,
                "metric": metric,
                "value": None if np.isnan(value) else value,
                "ci_low": low,
                "ci_high": high,
                "n_users": users,
            }
        )
    return pl.DataFrame(rows, schema=FIGURES)


FIGURES = {
    "model_name": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n_users": pl.Int64,
}


class _Errors:
    """What the figures of one model are sums and ranks of, user by user."""

    def __init__(self, forecast: pl.DataFrame, outcome: pl.DataFrame) -> None:
        self.expected, self.realised = forecast["expected_amount"].to_numpy(), outcome["amount"].to_numpy()
        self.purchases, self.purchased = forecast["expected_purchases"].to_numpy(), outcome["purchases"].to_numpy()
        self.error = np.abs(self.expected - self.realised)
        self.ranks = [np.unique(values, return_inverse=True)[1] for values in (self.expected, self.realised)]
        self.inside = None
        if "amount_low" in forecast.columns:
            low, high = (forecast[end].to_numpy() for end in ("amount_low", "amount_high"))
            # What went through the log scale and back is not the same in its last digits.
            slack = 1e-9 * (1 + self.realised)
            self.inside = ((self.realised >= low - slack) & (self.realised <= high + slack)).astype(float)

    def figures(self, weight: FloatArray) -> dict[str, float]:
        total = weight.sum()
        found = {
            "total_ratio": _ratio(weight @ self.expected, weight @ self.realised),
            "spearman": _rank_correlation(self.ranks[0], self.ranks[1], weight),
            "mae": _ratio(weight @ self.error, total),
            "rmse": float(np.sqrt(_ratio(weight @ self.error**2, total))),
            "purchases_total_ratio": _ratio(weight @ self.purchases, weight @ self.purchased),
            "purchases_mae": _ratio(weight @ np.abs(self.purchases - self.purchased), total),
        }
        return found if self.inside is None else {**found, "coverage_80": _ratio(weight @ self.inside, total)}


def _figures(parts: Mapping[str, _Errors], weight: FloatArray) -> dict[tuple[str, str], float]:
    found = {(name, metric): value for name, each in parts.items() for metric, value in each.figures(weight).items()}
    for reference in (NAIVE, purchase_model.NAME):
        for name in parts:
            if reference in parts and name not in (NAIVE, reference):
                found[name, f"mae_less_{reference}"] = found[name, "mae"] - found[reference, "mae"]
    return found


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else float("nan")


def _rank_correlation(left: npt.NDArray[Any], right: npt.NDArray[Any], weight: FloatArray) -> float:
    """Spearman's, of rows that count `weight` times; `left` and `right` number the distinct values in order."""
    centred = []
    for places in (left, right):
        counts = np.bincount(places, weight)
        rank = (np.cumsum(counts) - counts / 2)[places]
        centred.append(rank - weight @ rank / max(weight.sum(), 1e-300))
    (a, b), spread = centred, [weight @ values**2 for values in centred]
    return float(weight @ (a * b) / np.sqrt(spread[0] * spread[1])) if min(spread) > 0 else float("nan")


def by_decile(forecasts: Mapping[str, pl.DataFrame], outcome: pl.DataFrame) -> pl.DataFrame:
    """Expected beside realised spend in tenths of the expected spend.

    Returns:
        model_name, decile (1 expects most), n_users, expected_amount and realised_amount (means).
    """
    parts = [
        frame.select("expected_amount", decile=tenth(pl.col("expected_amount")))
        .with_columns(realised_amount=outcome["amount"])
        .group_by("decile")
        .agg(pl.len().cast(pl.Int64).alias("n_users"), pl.col("expected_amount", "realised_amount").mean())
        .select(pl.lit(name).alias("model_name"), "decile", "n_users", "expected_amount", "realised_amount")
        .sort("decile")
        for name, frame in forecasts.items()
    ]
    return pl.concat(parts)


def served_model(figures: pl.DataFrame) -> str:
    """The model that should serve a horizon, by its figures out of time.

    The trees serve where their mean absolute error is below that of BG/NBD with Gamma-Gamma by more than chance (the
    paired interval lies below 0), and their total is within MAX_TOTAL_ERROR of what was realised, or nearer to it. In
    doubt the model with eight parameters serves, which knows every user and every horizon.
    """
    known = {(row["model_name"], row["metric"]): row for row in figures.to_dicts()}
    difference = known.get((spend_trees.NAME, f"mae_less_{purchase_model.NAME}"))
    if difference is None or difference["ci_high"] is None or difference["ci_high"] >= 0:
        return purchase_model.NAME

    def off(name: str) -> float:
        ratio = known[name, "total_ratio"]["value"]
        return abs(ratio - 1) if ratio is not None else float("inf")

    good = off(spend_trees.NAME) <= max(MAX_TOTAL_ERROR, off(purchase_model.NAME))
    return spend_trees.NAME if good else purchase_model.NAME
