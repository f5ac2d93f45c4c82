"""Settings of recommendations, from the dbt vars that a build recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

SIGNALS = {"purchase": 5.0, "cart": 3.0, "wishlist": 3.0, "review": 2.0, "share": 2.0, "view": 1.0}


@dataclass(frozen=True)
class Settings:
    """What a list may hold, and how signals count.

    Attributes:
        count: products in a list.
        in_stock_days: a product that nobody bought in this many days is taken as out of stock.
        allow_repeats: whether a list may hold what the user has bought before.
        max_per_category: at most so many products of one category in a list; no limit where None.
        horizon_days: days after a date in which purchases count as hits.
        weights: how much an event of a kind says about liking.
        half_life_days: a signal of this age counts half.
        smallest_segment: buyers that a country or channel needs for a popularity of its own.
    """

    count: int = 10
    in_stock_days: int = 28
    allow_repeats: bool = True
    max_per_category: int | None = None
    horizon_days: int = 28
    weights: Mapping[str, float] = field(default_factory=lambda: dict(SIGNALS))
    half_life_days: float = 56.0
    smallest_segment: int = 30

    @classmethod
    def of(cls, built: Mapping[str, Any]) -> Self:
        """From the settings of the last build."""
        most = built["recommend_max_per_category"]
        return cls(
            count=int(built["recommend_count"]),
            in_stock_days=int(built["recommend_in_stock_days"]),
            allow_repeats=bool(built["recommend_repeats"]),
            max_per_category=None if most is None else int(most),
            horizon_days=int(built["churn_horizon_days"]),
            weights={name: float(weight) for name, weight in built["interest_weights"].items()},
            half_life_days=float(built["interest_half_life_days"]),
            smallest_segment=int(built["min_group_size"]),
        )
