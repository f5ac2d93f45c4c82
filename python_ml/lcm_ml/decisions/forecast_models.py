"""Models of a series: from its past to its next steps. statsforecast's where it is installed, and plain ones beside."""

import importlib.util
from collections.abc import Callable

import numpy as np

from lcm_ml.decisions.anomalies import tamed
from lcm_ml.decisions.series import YEAR, FloatArray

NAIVE = "seasonal_naive"
COMBINED = "combination"
LEVEL_STEPS = {"day": 28, "week": 4}
"""Steps whose mean is the level of a series."""

Model = Callable[[FloatArray, int], FloatArray]
"""Past values and number of steps to the forecast of each."""


def is_installed() -> bool:
    """Whether statsforecast (extra forecast) can be imported."""
    return importlib.util.find_spec("statsforecast") is not None


def seasonal_naive(values: FloatArray, steps: int, season: int) -> FloatArray:
    """The last season again and again."""
    return np.resize(values[-season:], steps)


def last_year(values: FloatArray, steps: int, grain: str) -> FloatArray:
    """The same weeks a year ago, at today's level; NaN where that is not known. Holidays are where they were then."""
    year, back = YEAR[grain], LEVEL_STEPS[grain]
    if len(values) < year + back or steps > year:
        return np.full(steps, np.nan)
    then = float(np.mean(values[-year - back : -year]))
    if then <= 0:
        return np.full(steps, np.nan)
    return values[len(values) - year : len(values) - year + steps] * (float(np.mean(values[-back:])) / then)


def models_of(grain: str, season: int) -> dict[str, Model]:
    """The models of a grain by name, the plainest first.

    Beside the plain ones: exponential smoothing (Hyndman and others 2002), Theta (Assimakopoulos and Nikolopoulos
    2000), for days STL with smoothing of what remains, and the mean of these, which is often better than each of them
    (Makridakis and others 2020).
    """
    found: dict[str, Model] = {
        NAIVE: lambda values, steps: seasonal_naive(values, steps, season),
        "last_year": lambda values, steps: last_year(values, steps, grain),
    }
    if not is_installed():
        return found
    from statsforecast.models import MSTL, AutoETS, Theta

    if season > 1:
        library = {
            # Without a trend: Theta and STL have one, and choosing among all forms takes ten times as long.
            "ets": AutoETS(season_length=season, model="ANA"),
            "theta": Theta(season_length=season),
            "mstl": MSTL(season_length=[season], trend_forecaster=AutoETS(model="ZZN")),
        }
    else:
        library = {"ets": AutoETS(season_length=1, model="ZZN"), "theta": Theta(season_length=1)}
    for name, model in library.items():
        found[name] = _of_library(model, season)
    return found


def _of_library(model: object, season: int) -> Model:
    def forecast(values: FloatArray, steps: int) -> FloatArray:
        if np.all(values == values[-1]):
            return np.full(steps, values[-1])
        mean = model.forecast(y=tamed(values, season), h=steps)["mean"]  # type: ignore[attr-defined]
        return np.asarray(mean, dtype=float)

    return forecast


def forecasts_of(values: FloatArray, steps: int, models: dict[str, Model]) -> dict[str, FloatArray]:
    """What each model and their combination expect of the next steps; never below 0."""
    found = {name: np.maximum(model(values, steps), 0.0) for name, model in models.items()}
    library = [found[name] for name in found if name not in (NAIVE, "last_year")]
    if library:
        found[COMBINED] = np.mean(library, axis=0)
    return found
