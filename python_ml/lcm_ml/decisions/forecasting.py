"""From series to forecasts with intervals: which model serves, how wide the intervals are, and how good both were."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lcm_ml.decisions.forecast_models import COMBINED, NAIVE, Model, forecasts_of, models_of
from lcm_ml.decisions.rolling import MOST_HISTORY, Rolling, block_interval, level_of, roll
from lcm_ml.decisions.series import DAYS, FloatArray, Series

LEVELS = {80: 0.8, 95: 0.95}
BANDS = {"day": (7, 14), "week": (2,)}
"""Last steps of the bands of the horizon within which errors are alike; a last band takes the rest."""
ALL_STEPS = "all"


@dataclass(frozen=True)
class Forecast:
    """One series: `rows` of ml.forecasts, `metrics` of ml.forecast_metrics (both without run and as_of_date)."""

    series: Series
    served: str
    rows: pl.DataFrame
    metrics: pl.DataFrame


def bands_of(grain: str, steps: int) -> dict[str, slice]:
    """Parts of the horizon by name: days 1-7, 8-14 and 15-28, say."""
    edges = [0, *(edge for edge in BANDS[grain] if edge < steps), steps]
    return {f"{first + 1}-{last}": slice(first, last) for first, last in itertools.pairwise(edges)}


def half_widths(rolling: Rolling, model: str, known: int, bands: dict[str, slice]) -> dict[int, FloatArray]:
    """Half the width of each step's interval as a share of the level, by nominal percentage, (steps,).

    Conformal (Vovk and others 2005): the quantile of the absolute errors of the first `known` origins, pooled within a
    band of the horizon, of which one more would lie below it with the nominal probability.
    """
    steps = rolling.actual.shape[1]
    relative = np.abs(rolling.errors(model)[:known]) / rolling.level[:known, None]
    found = {}
    for percent, nominal in LEVELS.items():
        widths = np.empty(steps)
        for band in bands.values():
            pooled = np.sort(relative[:, band].ravel())
            rank = min(len(pooled), int(np.ceil((len(pooled) + 1) * nominal)))
            widths[band] = pooled[rank - 1]
        # What is further ahead is not known better, whatever few errors say.
        found[percent] = np.maximum.accumulate(widths)
    return found


def choose(rolling: Rolling) -> str:
    """The model with the least mean MASE over the origins that are not reported on; of equals the plainer one."""
    mean = {name: float(np.mean(rolling.mase(name)[rolling.for_choosing])) for name in rolling.forecasts}
    return min(mean, key=lambda name: mean[name])


def forecast(series: Series, days: int) -> Forecast | None:
    """Forecast a series; None where it is too short.

    Args:
        series: what is known of it.
        days: of the horizon, rounded up to whole weeks for weekly series.
    """
    steps = -(-days // DAYS[series.grain])
    models = models_of(series.grain, series.season)
    rolling = roll(series, steps, models)
    if rolling is None:
        return None
    served, bands = choose(rolling), bands_of(series.grain, steps)
    past = series.values[-MOST_HISTORY[series.grain] :]
    value = _served(past, steps, models, served)
    level = level_of(past, series.grain)
    widths = half_widths(rolling, served, len(rolling.origins), bands)
    rows = pl.DataFrame(
        {
            "date": [series.date_at(len(series.values) + step) for step in range(steps)],
            "model_name": served,
            "value": value,
            **{
                f"{end}_{percent}": np.maximum(value + sign * widths[percent] * level, 0.0)
                for percent in LEVELS
                for end, sign in (("low", -1), ("high", 1))
            },
        }
    )
    return Forecast(series, served, rows, pl.DataFrame(_metrics(rolling, served, bands)))


def _served(past: FloatArray, steps: int, models: dict[str, Model], served: str) -> FloatArray:
    chosen = models if served == COMBINED else {served: models[served]}
    return forecasts_of(past, steps, chosen)[served]


def _metrics(rolling: Rolling, served: str, bands: dict[str, slice]) -> list[dict[str, Any]]:
    rows = []
    part, block = rolling.evaluated, rolling.lag
    actual = rolling.actual[part]
    ones = np.ones(len(actual))

    def add(model: str, metric: str, horizon: str, numerator: FloatArray, denominator: FloatArray) -> None:
        value, low, high = block_interval(numerator, denominator, block)
        rows.append(
            {
                "model_name": model,
                "metric": metric,
                "horizon": horizon,
                "value": _finite(value),
                "ci_low": _finite(low),
                "ci_high": _finite(high),
                "n_origins": len(actual),
                "is_served": model == served,
            }
        )

    for model in rolling.forecasts:
        error, expected = np.abs(rolling.errors(model)[part]), rolling.forecasts[model][part]
        both = np.abs(expected) + np.abs(actual)
        mase = rolling.mase(model)
        add(model, "mase", ALL_STEPS, mase[part], ones)
        add(model, "smape", ALL_STEPS, np.mean(2 * error / np.where(both == 0, 1.0, both), axis=1), ones)
        add(model, "wape", ALL_STEPS, error.sum(axis=1), actual.sum(axis=1))
        if model != NAIVE:
            add(model, "mase_less_naive", ALL_STEPS, (mase - rolling.mase(NAIVE))[part], ones)
        if model == served:
            for percent, inside in _inside(rolling, served, bands).items():
                add(model, f"coverage_{percent}", ALL_STEPS, inside.mean(axis=1), ones)
                for horizon, band in bands.items():
                    add(model, f"coverage_{percent}", horizon, inside[:, band].mean(axis=1), ones)
    return rows


def _inside(rolling: Rolling, model: str, bands: dict[str, slice]) -> dict[int, FloatArray]:
    """Whether the interval held what came, by nominal percentage, from what was known at each evaluated origin."""
    found: dict[int, list[FloatArray]] = {percent: [] for percent in LEVELS}
    for origin in range(rolling.first_evaluated, len(rolling.origins)):
        widths = half_widths(rolling, model, origin - rolling.lag + 1, bands)
        error = np.abs(rolling.errors(model)[origin]) / rolling.level[origin]
        for percent in LEVELS:
            found[percent].append((error <= widths[percent]).astype(float))
    return {percent: np.stack(rows) for percent, rows in found.items()}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def forecast_all(
    series: Sequence[Series], days: int, advance: Callable[[str, float], None]
) -> tuple[list[Forecast], list[Series]]:
    """Forecasts of the series that are long enough, and the others."""
    made, short = [], []
    for done, each in enumerate(series):
        advance(f"{each.name} by {each.grain}", done / len(series))
        found = forecast(each, days)
        if found is None:
            short.append(each)
        else:
            made.append(found)
    return made, short
