"""Features at one date in Polars, as a data scientist would write them over the staged events: part of the columns.

Refunds, campaigns, tickets, favourites, breadth and drift are left out; so the reference does less than the project.
"""

from datetime import date, timedelta

import polars as pl

EVENTS = """
    select
        user_id, cast(event_time as date) as event_date, cast(extract(hour from event_time) as tinyint) as event_hour,
        event_type, coalesce(session_id, 'day') as session_key,
        coalesce(order_id, session_id, cast(event_time as varchar)) as order_key,
        cast(amount as double) as amount, cast(discount as double) as discount, rating, channel, device
    from staging.stg_events
"""
BROWSING = {
    "views": "view", "carts": "cart", "cart_removals": "remove_from_cart", "searches": "search",
    "wishlistings": "wishlist", "shares": "share", "support_requests": "support",
}  # fmt: skip


def features_at(events: pl.DataFrame, day: date) -> pl.DataFrame:
    """One row per user with an event in the 84 days before `day`."""
    past = events.lazy().filter(pl.col("event_date") < day)
    active = (
        past.group_by("user_id").agg(last=pl.col("event_date").max()).filter(pl.col("last") >= day - timedelta(days=84))
    ).select("user_id")
    known = past.join(active, on="user_id", how="semi").with_columns(
        days_ago=(pl.lit(day) - pl.col("event_date")).dt.total_days()
    )
    days = pl.col("days_ago")
    sessions = known.group_by("user_id", "session_key", "days_ago").agg(
        pl.len().alias("events"),
        *[(pl.col("event_type") == kind).sum().alias(name) for name, kind in BROWSING.items()],
        pl.col("rating").filter(pl.col("event_type") == "review").mean().alias("rating"),
        pl.col("channel").min(),
        pl.col("device").min(),
    )
    activity = sessions.group_by("user_id").agg(
        days.min().alias("days_since_last_event"),
        days.max().alias("days_since_first_event"),
        days.filter(pl.col("views") > 0).min().alias("days_since_last_view"),
        days.filter(pl.col("carts") > 0).min().alias("days_since_last_cart"),
        days.filter(days <= 84).n_unique().alias("active_days_84d"),
        (days <= 28).sum().alias("sessions_28d"),
        (days <= 84).sum().alias("sessions_84d"),
        pl.len().alias("sessions_total"),
        *[
            pl.col(name).filter(days <= window).sum().alias(f"{name}_{window}d")
            for window in (28, 84)
            for name in ("events", *BROWSING)
        ],
        *[pl.col(name).sum().alias(f"{name}_total") for name in ("events", "views", "carts", "shares")],
        pl.col("rating").mean().alias("rating_mean"),
        pl.col("channel").filter(days <= 84).n_unique().alias("channels_84d"),
        (pl.col("device").filter(days <= 84) == "mobile").mean().alias("mobile_share_84d"),
    )
    orders = (
        known.filter(pl.col("event_type") == "purchase")
        .group_by("user_id", "order_key", "event_date", "days_ago")
        .agg(
            pl.len().alias("lines"),
            pl.col("amount").sum(),
            pl.col("discount").sum(),
            (pl.col("discount") > 0).sum().alias("discounted_lines"),
            pl.col("event_hour").min(),
        )
    )
    purchases = orders.group_by("user_id").agg(
        days.min().alias("days_since_last_purchase"),
        days.max().alias("days_since_first_purchase"),
        *[(days <= window).sum().alias(f"orders_{window}d") for window in (7, 14, 28, 56, 84, 168)],
        pl.len().alias("orders_total"),
        *[pl.col("amount").filter(days <= window).sum().alias(f"amount_{window}d") for window in (28, 84, 168)],
        pl.col("amount").sum().alias("amount_total"),
        pl.col("amount").mean().alias("order_value_total"),
        pl.col("amount").max().alias("order_value_max"),
        pl.col("amount").filter(days <= 84).mean().alias("order_value_84d"),
        pl.col("lines").filter(days <= 84).mean().alias("lines_per_order_84d"),
        (pl.col("discounted_lines").sum() / pl.col("lines").sum()).alias("discounted_line_share_total"),
        (pl.col("discount").sum() / (pl.col("amount") + pl.col("discount")).sum()).alias("discount_share_total"),
        (pl.col("event_date").dt.weekday() >= 6).mean().alias("weekend_share_total"),
        ((pl.col("event_hour") >= 18) | (pl.col("event_hour") < 5)).mean().alias("evening_share_total"),
        pl.col("event_hour").mean().alias("order_hour_mean"),
    )
    gaps = (
        orders.select("user_id", "event_date")
        .unique()
        .sort("user_id", "event_date")
        .with_columns(gap=pl.col("event_date").diff().over("user_id").dt.total_days())
        .group_by("user_id")
        .agg(
            pl.len().alias("purchase_days_total"),
            pl.col("gap").mean().alias("gap_mean_days"),
            pl.col("gap").median().alias("gap_median_days"),
            pl.col("gap").std(ddof=0).alias("gap_spread_days"),
            pl.col("gap").max().alias("gap_max_days"),
            pl.col("gap").last().alias("gap_last_days"),
        )
    )
    return (
        active.join(activity, on="user_id", how="left")
        .join(purchases, on="user_id", how="left")
        .join(gaps, on="user_id", how="left")
        .with_columns(as_of_date=pl.lit(day))
        .collect()
    )
