"""Series over time without gaps: the frames of `frames.sales` as arrays."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

FloatArray = npt.NDArray[np.float64]

DAYS = {"day": 1, "week": 7}
SEASONS = {"day": 7, "week": 1}
"""Steps after which a pattern repeats; 1: none."""
YEAR = {"day": 364, "week": 52}
"""Whole weeks, so that weekdays stay weekdays."""


@dataclass(frozen=True)
class Series:
    """Values at equal steps, oldest first. `start` is the date of the first one; `grain` day or week."""

    name: str
    grain: str
    start: date
    values: FloatArray

    @property
    def season(self) -> int:
        """Steps of a season."""
        return SEASONS[self.grain]

    def date_at(self, place: int) -> date:
        """Date of the value at a place; places after the last one are to come."""
        return self.start + timedelta(days=DAYS[self.grain] * int(place))


def make_series(rows: pl.DataFrame, ends: dict[str, date]) -> list[Series]:
    """Fill gaps with zeros, from the first row of each series and grain to the last step before its end.

    Args:
        rows: series, grain, date, value.
        ends: by grain, the first date that is not known yet. A shop that closed has zeros up to it.

    Returns:
        One per series and grain, sorted by these.
    """
    found = []
    for (name, grain), part in rows.sort("series", "grain", "date").group_by("series", "grain", maintain_order=True):
        dates: list[date] = part["date"].to_list()
        step = DAYS[str(grain)]
        values = np.zeros(max(0, -(-(ends[str(grain)] - dates[0]).days // step)))
        places = np.array([(day - dates[0]).days // step for day in dates])
        values[places] = part["value"].to_numpy()
        found.append(Series(str(name), str(grain), dates[0], values))
    return found


def shop_series(sales: pl.DataFrame, stages: pl.DataFrame, as_of: date) -> list[Series]:
    """The series of `frames.sales` up to `as_of`: whole days, whole weeks, and the stages on Mondays."""
    monday = as_of - timedelta(days=as_of.weekday())
    return [
        *make_series(sales, {"day": as_of, "week": monday}),
        # The stages of a Monday are known on it.
        *make_series(stages, {"week": monday + timedelta(days=7)}),
    ]
