"""Values far from what the same weekdays before them were.

Expected is the median of the last values at the same place of the season: one closed day or one sale moves a median
little. How far is far comes from the differences of the past, without those so far out that they were anomalies
themselves: a closed Christmas must not hide that sales halve in March.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from lcm_ml.decisions.series import FloatArray, Series

BACK = 6
"""Seasons whose median is expected."""
LEAST_PAST, MOST_PAST = {"day": 42, "week": 16}, {"day": 364, "week": 104}
CHECKED = {"day": 7, "week": 1}
"""Newest values that are looked at."""
OUTSIDE = 0.01
NORMAL_Z, MAD_TO_SD = 2.5758, 1.4826
TRIMMED_Z, TRIMMED_SHARE = 5.0, 0.01
"""Of the past, the furthest out and no more than this share count as anomalies: a shop may have wild days by nature."""


@dataclass(frozen=True)
class Surprise:
    """One-step-ahead expectation of each value of a series, and the 99 % interval around it; NaN where unknown.

    `z`: the difference in robust standard deviations.
    """

    expected: FloatArray
    low: FloatArray
    high: FloatArray
    z: FloatArray


def expectations(values: FloatArray, season: int) -> FloatArray:
    """Median of the BACK values before each one at the same place of the season; NaN for the first of them."""
    found = np.full(len(values), np.nan)
    first = BACK * season
    if len(values) > first:
        lagged = np.stack([values[first - k * season : len(values) - k * season] for k in range(1, BACK + 1)])
        found[first:] = np.median(lagged, axis=0)
    return found


def surprises(series: Series, places: range) -> Surprise:
    """Expectation and 99 % interval at some places of a series, each from what came before it alone."""
    values, season = series.values, series.season
    expected = expectations(values, season)
    level = np.array(
        [np.mean(values[max(0, k - 4 * season * (7 // season)) : k]) if k else 0.0 for k in range(len(values))]
    )
    relative = (values - expected) / np.maximum(level, 1e-9)
    low, high, z = (np.full(len(values), np.nan) for _ in range(3))
    for place in places:
        past = relative[max(0, place - MOST_PAST[series.grain]) : place]
        past = past[np.isfinite(past)]
        if len(past) < LEAST_PAST[series.grain] or level[place] <= 0:
            continue
        middle = np.median(past)
        spread = MAD_TO_SD * np.median(np.abs(past - middle)) or float(np.std(past)) or 1e-9
        usual = _usual(past, float(middle), float(spread))
        below, above = _tails(usual, float(middle), float(spread))
        low[place] = max(0.0, expected[place] + below * level[place])
        high[place] = expected[place] + above * level[place]
        z[place] = (relative[place] - middle) / spread
    return Surprise(expected, low, high, z)


def _usual(past: FloatArray, middle: float, spread: float) -> FloatArray:
    """Past differences without the few that were anomalies, sorted."""
    distance = np.abs(past - middle)
    most = int(np.ceil(TRIMMED_SHARE * len(past)))
    out = np.argsort(distance)[len(past) - most :]
    return np.sort(np.delete(past, out[distance[out] > TRIMMED_Z * spread]))


def _tails(usual: FloatArray, middle: float, spread: float) -> tuple[float, float]:
    """Lower and upper limit: conformal quantiles, or those of a normal where there are too few for them."""
    rank = int(np.ceil((len(usual) + 1) * (1 - OUTSIDE / 2)))
    if rank > len(usual):
        return middle - NORMAL_Z * spread, middle + NORMAL_Z * spread
    return float(usual[len(usual) - rank]), float(usual[rank - 1])


def anomalies(series: Series) -> pl.DataFrame:
    """The newest values outside their 99 % interval.

    Returns:
        series, grain, date, value, expected, low, high, z; empty where nothing is or too little is known.
    """
    count = len(series.values)
    places = range(max(0, count - CHECKED[series.grain]), count)
    found = surprises(series, places)
    rows = [
        {
            "series": series.name,
            "grain": series.grain,
            "date": series.date_at(place),
            "value": float(series.values[place]),
            "expected": float(found.expected[place]),
            "low": float(found.low[place]),
            "high": float(found.high[place]),
            "z": float(found.z[place]),
        }
        for place in places
        if series.values[place] < found.low[place] or series.values[place] > found.high[place]
    ]
    return pl.DataFrame(rows)


def tamed(values: FloatArray, season: int) -> FloatArray:
    """The values with those far outside brought to the edge of the usual, so that a closed day bends no model.

    A change that lasts is not held back for long: the medians follow it.
    """
    expected = expectations(values, season)
    difference = values - expected
    known = np.isfinite(difference)
    if known.sum() < 2 * season + 5:
        return values
    middle = np.median(difference[known])
    edge = TRIMMED_Z * MAD_TO_SD * np.median(np.abs(difference[known] - middle))
    clipped = np.clip(values, expected + middle - edge, expected + middle + edge)
    return np.where(known & (edge > 0), clipped, values)
