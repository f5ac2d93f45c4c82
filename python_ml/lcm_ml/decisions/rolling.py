"""Rolling origins (Tashman 2000): forecasts from past moments, against what came after them."""

from dataclasses import dataclass

import numpy as np

from lcm_ml.decisions.forecast_models import LEVEL_STEPS, Model, forecasts_of
from lcm_ml.decisions.series import FloatArray, Series

STEP = {"day": 7, "week": 1}
LEAST_HISTORY = {"day": 56, "week": 8}
MOST_HISTORY = {"day": 728, "week": 156}
MOST_ORIGINS = 52
LEAST_ORIGINS = 12
EVALUATED_SHARE = 0.4
DRAWS = 1000


@dataclass(frozen=True)
class Rolling:
    """Forecasts of a series from several origins, the oldest first.

    Attributes:
        origins: place of the first value forecast from each origin, (n,).
        actual: what came, (n, steps).
        forecasts: by model, (n, steps).
        scale: in-sample mean absolute error of the seasonal naive at each origin (Hyndman and Koehler 2006), (n,).
        level: mean of the last four weeks at each origin, (n,).
        first_evaluated: origins from this one on are reported on, and had no part in choosing.
        lag: origins until the outcome of one is known whole.
    """

    origins: list[int]
    actual: FloatArray
    forecasts: dict[str, FloatArray]
    scale: FloatArray
    level: FloatArray
    first_evaluated: int
    lag: int

    @property
    def for_choosing(self) -> slice:
        """Origins whose outcome was known whole before the first one that is reported on."""
        return slice(0, max(1, self.first_evaluated - self.lag + 1))

    @property
    def evaluated(self) -> slice:
        """Origins that are reported on."""
        return slice(self.first_evaluated, len(self.origins))

    def errors(self, model: str) -> FloatArray:
        """Forecast less actual, (n, steps)."""
        return self.forecasts[model] - self.actual

    def mase(self, model: str) -> FloatArray:
        """Mean absolute scaled error of each origin, (n,)."""
        return np.asarray(np.mean(np.abs(self.errors(model)), axis=1) / self.scale)


def level_of(values: FloatArray, grain: str) -> float:
    """Mean of the last four weeks; of all where that is 0."""
    return float(np.mean(values[-LEVEL_STEPS[grain] :])) or float(np.mean(values)) or 1.0


def naive_scale(values: FloatArray, season: int) -> float:
    """In-sample mean absolute error of the seasonal naive; 1 where nothing ever changed."""
    return float(np.mean(np.abs(values[season:] - values[:-season]))) or 1.0


def roll(series: Series, steps: int, models: dict[str, Model]) -> Rolling | None:
    """Forecast `steps` values from every origin; None where there are too few origins.

    A model that cannot forecast from all origins (last year's values, say) is left out.
    """
    values, grain, step = series.values, series.grain, STEP[series.grain]
    newest = len(values) - steps
    origins = list(range(newest, LEAST_HISTORY[grain] - 1, -step))[:MOST_ORIGINS][::-1]
    if len(origins) < LEAST_ORIGINS:
        return None
    pasts = [values[max(0, origin - MOST_HISTORY[grain]) : origin] for origin in origins]
    made = [forecasts_of(past, steps, models) for past in pasts]
    stacked = {name: np.stack([each[name] for each in made]) for name in made[0]}
    return Rolling(
        origins,
        np.stack([values[origin : origin + steps] for origin in origins]),
        {name: rows for name, rows in stacked.items() if np.isfinite(rows).all()},
        np.array([naive_scale(past, series.season) for past in pasts]),
        np.array([level_of(past, grain) for past in pasts]),
        len(origins) - int(len(origins) * EVALUATED_SHARE),
        -(-steps // step),
    )


def block_interval(
    numerator: FloatArray, denominator: FloatArray, block: int, seed: int = 0
) -> tuple[float, float, float]:
    """A ratio of sums over origins with its 95 % moving-block bootstrap interval (Kuensch 1989).

    Origins closer than the horizon share what they forecast: they are drawn in blocks of as many.

    Args:
        numerator: (n,), one per origin.
        denominator: (n,); ones for a mean.
        block: neighbours drawn together.
        seed: of the draws.
    """
    count = len(numerator)
    length = min(block, count)
    starts = np.random.default_rng(seed).integers(0, count, (DRAWS, -(-count // length)))
    drawn = ((starts[:, :, None] + np.arange(length)) % count).reshape(DRAWS, -1)[:, :count]
    total = denominator[drawn].sum(axis=1)
    ratios = numerator[drawn].sum(axis=1) / np.where(total == 0, np.nan, total)
    if not denominator.sum() or np.isnan(ratios).all():
        return (float("nan"),) * 3
    low, high = np.nanpercentile(ratios, [2.5, 97.5])
    return float(numerator.sum() / denominator.sum()), float(low), float(high)
