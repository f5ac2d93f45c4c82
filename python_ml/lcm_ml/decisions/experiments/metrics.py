"""What experiments are judged by: each metric is a figure per user, from what the user did within its window."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.errors import UsageError

Floats = npt.NDArray[np.float64]
COUNTS = ("orders", "amount", "refunds", "views", "carts", "sessions", "tickets", "contacts", "responses")
"""Columns of user days, beside user_id, day (from the assignment; negative before it) and event_date."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: as commands take it.
        title: in words.
        value: the column that is summed for each user.
        per: the column it is divided by, all users together (a ratio); None for a mean over users.
        is_share: each user counts as 0 or 1: whether there was any.
        is_late: only the second half of the window counts.
        better: 1 where more is better, -1 where less is.
        form: how it is shown: share, money or number.
    """

    name: str
    title: str
    value: str
    per: str | None = None
    is_share: bool = False
    is_late: bool = False
    better: int = 1
    form: str = "number"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("conversion", "users with a purchase", "orders", is_share=True, form="share"),
        Metric("retention", "users with a purchase in the second half", "orders", None, True, True, form="share"),
        Metric("revenue_per_user", "revenue per user", "amount", form="money"),
        Metric("orders_per_user", "orders per user", "orders"),
        Metric("order_value", "revenue per order", "amount", "orders", form="money"),
        Metric("sessions_per_user", "visits per user", "sessions"),
        Metric("ctr", "responses per contact", "responses", "contacts", form="share"),
        Metric("cart_rate", "carts per view", "carts", "views", form="share"),
        Metric("refunds_per_user", "refunds per user", "refunds", better=-1),
        Metric("tickets_per_user", "support requests per user", "tickets", better=-1),
    )
}


def metric_named(name: str) -> Metric:
    """The metric of this name.

    Raises:
        UsageError: when there is none.
    """
    if name not in METRICS:
        raise UsageError(f"there is no metric {name!r}", f"take one of {', '.join(METRICS)}")
    return METRICS[name]


@dataclass(frozen=True)
class Values:
    """A metric user by user, in the order that was asked for, (n,) each.

    Attributes:
        value: the figure within the window.
        weight: its denominator; None for a mean.
        pre_value: the figure in the pre-period.
        pre_weight: likewise.
    """

    value: Floats
    weight: Floats | None
    pre_value: Floats
    pre_weight: Floats | None


def measure(
    metric: Metric, user_ids: pl.Series, days: pl.DataFrame, window_days: int, pre_days: int, before: date
) -> Values:
    """A metric within the window and before it, for each user.

    Args:
        metric: what to measure.
        user_ids: the users; those without a row in `days` count as 0.
        days: user_id, day, event_date and COUNTS.
        window_days: days 0 to window_days - 1 count.
        pre_days: days -pre_days to -1 are the pre-period.
        before: only what happened strictly before this shop day.
    """
    first = window_days // 2 if metric.is_late else 0
    known = days.filter(pl.col("event_date") < before)
    after = _per_user(metric, user_ids, known.filter(pl.col("day").is_between(first, window_days - 1)))
    earlier = _per_user(metric, user_ids, known.filter(pl.col("day").is_between(-pre_days, -1)))
    # How many orders tells more than whether there was one, so a share is adjusted by the count.
    return Values(
        (after[0] > 0).astype(float) if metric.is_share else after[0],
        after[1] if metric.per else None,
        np.minimum(earlier[0], np.quantile(earlier[0], 0.99)) if metric.is_share and len(earlier[0]) else earlier[0],
        earlier[1] if metric.per else None,
    )


def _per_user(metric: Metric, user_ids: pl.Series, days: pl.DataFrame) -> tuple[Floats, Floats]:
    per = metric.per or metric.value
    sums = days.group_by("user_id").agg(value=pl.col(metric.value).sum(), weight=pl.col(per).sum())
    rows = pl.DataFrame({"user_id": user_ids}).join(sums, on="user_id", how="left", maintain_order="left")
    numbers = rows.select(pl.col("value", "weight").cast(pl.Float64).fill_null(0.0))
    return numbers["value"].to_numpy(), numbers["weight"].to_numpy()
