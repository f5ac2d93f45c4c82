"""Days and weeks of sales that `lcm-ml forecast` found outside what was to be expected."""

import itertools
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb

from lcm_ml.warehouse.connection import rows, table_exists

SERIES = ("revenue", "orders", "active_users")
"""In the order in which they are told: what moves one of them moves the others."""
MUCH = 0.3
"""A fall by this share of what was expected is critical when it lasts."""


@dataclass(frozen=True)
class Unusual:
    """A value outside its 99 % interval one step ahead."""

    series: str
    grain: str
    date: date
    value: float
    expected: float
    low: float
    high: float

    @property
    def change(self) -> float:
        """As a share of what was expected."""
        return self.value / self.expected - 1 if self.expected else 0.0

    @property
    def text(self) -> str:
        """In words."""
        return (
            f"{self.date}: {self.value:,.0f} ({self.change:+.0%}; expected {self.expected:,.0f}, "
            f"99 % within {self.low:,.0f} to {self.high:,.0f})"
        )


def unusual_values(con: duckdb.DuckDBPyConnection, day: date) -> list[Unusual]:
    """What the newest forecast from `day` found; nothing before `lcm-ml forecast` ran for it."""
    if not table_exists(con, "ml", "forecast_anomalies"):
        return []
    found = rows(
        con,
        "select series, grain, date, value, expected, low, high from ml.forecast_anomalies "
        "where as_of_date = ? order by series, grain, date",
        [day],
    )
    return [Unusual(**row) for row in found]


def is_lasting_fall(found: list[Unusual]) -> bool:
    """Whether sales fell by MUCH for a whole week, or on two days running (in order of time)."""
    fallen = [each for each in found if each.change <= -MUCH]
    if any(each.grain == "week" for each in fallen):
        return True
    return any(after.date - before.date == timedelta(days=1) for before, after in itertools.pairwise(fallen))
