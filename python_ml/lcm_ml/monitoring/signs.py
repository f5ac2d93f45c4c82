"""Vital signs of the shop: a few rates for each window of 28 days before a date, compared with the windows before.

A sign is abnormal when it lies further from the median of the past windows than chance and its own past spread allow
(a robust z-score, Iglewicz and Hoaglin 1993), and by an amount that matters.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import numpy as np
import polars as pl

from lcm_ml.frames.frame import read

WINDOW_DAYS = 28
PAST_WINDOWS = 12
MIN_PAST = 3
MAD_TO_SD = 1.4826
WARNING_Z, CRITICAL_Z = 3.0, 4.5
LEAST_SPREAD = 0.01
"""Spread that is always allowed for, relative or of a share: three to twelve windows cannot tell a smaller one."""


@dataclass(frozen=True)
class Sign:
    """A rate now and in the past windows, the latest first. `n` is what it was counted on, for its chance error.

    `least` is the smallest relative change that matters; `absolute` says that the change is a difference of shares.
    """

    name: str
    subject: str
    value: float
    past: tuple[float, ...]
    n: float
    least: float
    absolute: bool = False

    @property
    def usual(self) -> float:
        """Median of the past windows."""
        return float(np.median(self.past))

    @property
    def change(self) -> float:
        """Against the usual: a share of it, or a difference of shares."""
        if self.absolute:
            return self.value - self.usual
        return self.value / self.usual - 1 if self.usual else 0.0

    @property
    def z(self) -> float:
        """The change in units of its spread, past and by chance."""
        scale = 1.0 if self.absolute else max(abs(self.usual), 1e-12)
        spread = MAD_TO_SD * float(np.median(np.abs(np.array(self.past) - self.usual))) / scale
        # Counts err by their square root, shares by the binomial's standard error.
        odds = min(max(self.usual, 0.01), 0.99)
        chance = np.sqrt((odds * (1 - odds) if self.absolute else 1.0) / max(self.n, 1.0))
        # The past spread has chance in it already.
        return self.change / float(np.sqrt(max(spread, chance) ** 2 + LEAST_SPREAD**2))

    @property
    def severity(self) -> str | None:
        """critical, warning or None."""
        if len(self.past) < MIN_PAST or abs(self.change) < self.least:
            return None
        if abs(self.z) >= CRITICAL_Z:
            return "critical"
        return "warning" if abs(self.z) >= WARNING_Z else None


@dataclass(frozen=True)
class DataLimits:
    """Settings beyond which the state of the data is an alert."""

    stale_after_hours: float
    max_quarantined_share: float

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "DataLimits":
        """From the dbt vars of the last build."""
        return cls(float(settings["stale_after_hours"]), float(settings["max_quarantined_share"]))


@dataclass(frozen=True)
class DataSign:
    """How old or how clean the data is. `kind`: freshness or quality; without a limit it is only shown."""

    kind: str
    subject: str
    metric: str
    value: float
    limit: float | None = None

    @property
    def is_alert(self) -> bool:
        """Whether it is beyond its limit."""
        return self.limit is not None and self.value > self.limit


# Sign, the smallest change that matters, and whether it is a difference of shares.
SIGNS = {
    "events_per_user": (0.35, False),
    "active_users": (0.25, False),
    "top_users_share": (0.05, True),
    "price_level": (0.05, False),
    "missing_product": (0.10, True),
    "missing_session": (0.10, True),
    "churn_rate": (0.05, True),
}


def vital_signs(con: duckdb.DuckDBPyConnection, as_of_date: date) -> list[Sign]:
    """The signs at a date, from what happened strictly before it."""
    found = read(
        con,
        """
        with windowed as (
            select
                *,
                (date_diff('day', event_date, cast($day as date)) - 1) // $size as back
            from intermediate.int_events
            where event_date < $day and event_date >= cast($day as date) - cast($span as integer)
        ),

        by_user as (
            select back, user_id, count(*) as events
            from windowed
            group by 1, 2
        ),

        ranked as (
            select
                back,
                events,
                row_number() over (partition by back order by events desc, user_id) as place,
                count(*) over (partition by back) as users
            from by_user
        ),

        windows as (
            select
                back,
                max(users) as users,
                sum(events) filter (where place <= greatest(1, users // 100)) / sum(events) as top_share,
                sum(events) as events
            from ranked
            group by 1
        ),

        types as (
            select
                back,
                event_type,
                count(*) as events,
                count(*) filter (where product_id is null) / count(*) as missing_product,
                count(*) filter (where session_id is null) / count(*) as missing_session
            from windowed
            group by 1, 2
        ),

        prices as (
            select
                back,
                product_id,
                avg(cast(amount as double) / quantity) as price
            from windowed
            where event_type = 'purchase' and quantity > 0 and amount > 0 and product_id is not null
            group by 1, 2
        ),

        usual_prices as (
            select product_id, median(price) as usual_price
            from prices
            where back > 0
            group by 1
        ),

        -- Each product against itself: what is bought may change, that is no change of prices.
        levels as (
            select
                prices.back,
                median(prices.price / usual_prices.usual_price) as price_level
            from prices
            inner join usual_prices on prices.product_id = usual_prices.product_id
            group by 1
        )

        select
            back, 'active_users' as name, 'users' as subject, cast(users as double) as value, cast(users as double) as n
        from windows
        union all
        select back, 'top_users_share', 'events', top_share, events
        from windows
        union all
        select types.back, 'events_per_user', types.event_type, types.events / windows.users, types.events
        from types inner join windows on types.back = windows.back
        union all
        select back, 'missing_product', event_type, missing_product, events
        from types where event_type in ('view', 'cart', 'purchase')
        union all
        select back, 'missing_session', event_type, missing_session, events
        from types
        union all
        -- A price is set, not drawn: no chance error.
        select back, 'price_level', 'purchase', price_level, 1e12
        from levels
        union all
        select
            (date_diff('day', as_of_date, cast($day as date)) - $size) // $size,
            'churn_rate',
            'users',
            avg(cast(is_churned as integer)),
            count(*)
        from marts.user_churn_labels
        where as_of_date + horizon_days <= cast($day as date)
        group by as_of_date
        """,
        {"day": as_of_date, "size": WINDOW_DAYS, "span": WINDOW_DAYS * (PAST_WINDOWS + 1)},
    )
    signs = []
    for (name, subject), rows in found.sort("back").group_by("name", "subject", maintain_order=True):
        sign = _sign(str(name), str(subject), rows)
        if sign is not None:
            signs.append(sign)
    return sorted(signs, key=lambda sign: (sign.name, sign.subject))


def _sign(name: str, subject: str, rows: pl.DataFrame) -> Sign | None:
    now = rows.filter(pl.col("back") == 0)
    past = rows.filter(pl.col("back").is_between(1, PAST_WINDOWS))
    if past.height < MIN_PAST:
        return None
    least, absolute = SIGNS[name]
    usual_n = float(np.median(past.get_column("n").to_numpy()))
    if name == "events_per_user" and usual_n < 50:
        return None
    if name == "churn_rate" and now.is_empty():
        return None
    # A type that stopped altogether has no row: that is a rate of 0, and the most telling one.
    value = now.item(0, "value") if now.height else 0.0
    return Sign(name, subject, float(value), tuple(past.get_column("value").to_list()), usual_n, least, absolute)
