"""All columns of marts.user_features at one date in Polars, as a data scientist would write them over staged events.

One pass over all events before the date, in one lazy query; nothing is kept from one date to the next. The products and
the linked users come with the events: `read` joins them once, before the time begins. `make bench` compares the values.
"""

from datetime import date
from typing import Any, NamedTuple

import polars as pl
import polars.selectors as cs

EVENTS = """
    select
        events.user_id as visitor_id, identities.user_id as linked_user_id, identities.linked_date,
        events.event_time, cast(events.event_time as date) as event_date,
        cast(extract(hour from events.event_time) as tinyint) as event_hour,
        events.event_type, coalesce(events.session_id, 'day') as session_key,
        coalesce(events.order_id, events.session_id, cast(events.event_time as varchar)) as order_key,
        events.product_id, products.category, products.brand,
        cast(events.amount as double) as amount, cast(events.discount as double) as discount,
        events.rating, events.channel, events.device
    from staging.stg_events as events
    left join staging.stg_products as products on events.product_id = products.product_id
    left join staging.stg_identities as identities on events.user_id = identities.anonymous_id
    order by events.user_id, events.event_time
"""
TOUCHES = "select user_id, touched_date, responded_date from staging.stg_campaign_touches where arm != 'control'"
TICKETS = "select user_id, created_date from staging.stg_support_tickets"
ACCOUNTS = """
    select user_id, cast(signed_up_at as date) as signed_up_date, country, acquisition_channel from staging.stg_users
"""

WORDS = ("event_type", "channel", "device", "category", "brand")
"""Of few values each: as Categorical they group faster."""

BROWSING = {
    "views": "view", "carts": "cart", "cart_removals": "remove_from_cart", "searches": "search",
    "wishlistings": "wishlist", "shares": "share", "support_requests": "support",
}  # fmt: skip
RATIOS = {
    "purchase_days_per_day": ("purchase_days_total", "days_since_first_purchase"),
    "gap_now_to_mean": ("days_since_last_purchase", "gap_mean_days"),
    "gap_now_to_median": ("days_since_last_purchase", "gap_median_days"),
    "orders_28d_share": ("orders_28d", "orders_84d"),
    "refund_rate_total": ("refunded_orders_total", "orders_total"),
    "view_to_cart_84d": ("carts_84d", "views_84d"),
    "cart_to_order_84d": ("orders_84d", "carts_84d"),
    "session_to_order_84d": ("orders_84d", "sessions_84d"),
    "response_rate_total": ("responses_total", "touches_total"),
}
COUNTS_AND_SUMS = cs.matches(
    r"^(orders|amount|purchase_days|purchase_weeks|refunds|refunded_orders|refunded_amount|products|categories|brands"
    r"|touches|responses|tickets)(_trend)?_(\d+d|total)$"
)
"""0 for a user who has none of them; all else is null then."""

DAYS_AGO = pl.col("days_ago")


class Tables(NamedTuple):
    events: pl.DataFrame
    touches: pl.DataFrame
    tickets: pl.DataFrame
    accounts: pl.DataFrame


def read(con: Any) -> Tables:
    """What the features are made of, from the staging tables."""
    events, *others = [con.sql(query).pl() for query in (EVENTS, TOUCHES, TICKETS, ACCOUNTS)]
    return Tables(events.with_columns(pl.col(WORDS).cast(pl.Categorical)), *others)


def features_at(tables: Tables, day: date) -> pl.DataFrame:
    """One row per user with an event in the 84 days before `day`."""
    events = _known(tables.events.lazy(), day)
    lines = events.filter(pl.col("event_type") == "purchase")
    orders = _orders(lines)
    features = _activity(_sessions(events))
    for others in (
        _purchases(orders),
        _gaps(orders),
        _weekdays(orders),
        _channels(orders),
        _products(lines),
        _categories(lines),
        _brands(lines),
        _refunds(events.filter(pl.col("event_type") == "refund"), lines),
        _touches(tables.touches.lazy(), day),
        _tickets(tables.tickets.lazy(), day),
        _accounts(tables.accounts.lazy(), day),
    ):
        features = features.join(others, on="user_id", how="left")
    return _whole(features, day).collect()


def _known(events: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """What the active users did before `day`; a visitor is itself until the day after it was linked to a user."""
    past = events.filter(pl.col("event_date") < day).with_columns(
        pl.when(pl.col("linked_date") < day).then("linked_user_id").otherwise("visitor_id").alias("user_id"),
        _days_before(day, "event_date").alias("days_ago"),
    )
    return past.join(past.filter(DAYS_AGO <= 84).select("user_id").unique(), on="user_id", how="semi")


def _sessions(events: pl.LazyFrame) -> pl.LazyFrame:
    rating = pl.when(pl.col("event_type") == "review").then("rating")
    kinds = BROWSING | {"reviews": "review"}
    counted = events.group_by("visitor_id", "session_key", "days_ago").agg(
        pl.col("user_id").first(),
        pl.len().alias("events"),
        *[(pl.col("event_type") == kind).sum().alias(name) for name, kind in kinds.items()],
        rating.count().alias("ratings"),
        rating.round(2, mode="half_away_from_zero").sum().alias("rating_sum"),
        rating.min().alias("rating_min"),
        pl.col("channel", "device").min(),
    )
    return counted.with_columns(cs.unsigned_integer().cast(pl.Int32), sessions=pl.lit(1))


def _activity(sessions: pl.LazyFrame) -> pl.LazyFrame:
    return sessions.group_by("user_id").agg(
        DAYS_AGO.min().alias("days_since_last_event"),
        DAYS_AGO.max().alias("days_since_first_event"),
        pl.when(pl.col("views") > 0).then("days_ago").min().alias("days_since_last_view"),
        pl.when(pl.col("carts") > 0).then("days_ago").min().alias("days_since_last_cart"),
        DAYS_AGO.filter(DAYS_AGO <= 84).n_unique().alias("active_days_84d"),
        _sums(28, "sessions", "events", *BROWSING),
        _sums(84, "sessions", "events", *BROWSING, "reviews"),
        pl.col("sessions", "events", "views", "carts", "shares", "reviews").sum().name.suffix("_total"),
        _trends(28, "sessions"),
        _ratio(pl.col("rating_sum").sum(), pl.col("ratings").sum()).alias("rating_mean"),
        _within(84, "rating_min").min().alias("rating_min_84d"),
        pl.col("channel").filter(DAYS_AGO <= 84).drop_nulls().n_unique().alias("channels_84d"),
        (_within(84, "device") == "mobile").mean().alias("mobile_share_84d"),
    )


def _orders(lines: pl.LazyFrame) -> pl.LazyFrame:
    counted = lines.group_by("visitor_id", "order_key", "days_ago").agg(
        pl.col("user_id").first(),
        pl.col("event_date").first().dt.weekday().alias("weekday"),
        pl.col("event_hour", "channel").min(),
        pl.len().alias("lines"),
        pl.col("product_id").drop_nulls().n_unique().alias("products"),
        pl.col("category").drop_nulls().n_unique().alias("categories"),
        (pl.col("discount") > 0).sum().alias("discounted_lines"),
        pl.col("amount", "discount").sum(),
    )
    return counted.with_columns(cs.unsigned_integer().cast(pl.Int32), orders=pl.lit(1))


def _purchases(orders: pl.LazyFrame) -> pl.LazyFrame:
    return orders.group_by("user_id").agg(
        DAYS_AGO.min().alias("days_since_last_purchase"),
        DAYS_AGO.max().alias("days_since_first_purchase"),
        *[_sums(days, "orders") for days in (7, 14, 28, 56, 84, 168)],
        *[_sums(days, "amount") for days in (28, 84, 168)],
        pl.col("orders", "amount").sum().name.suffix("_total"),
        _trends(28, "orders", "amount"),
        _trends(84, "orders"),
        (DAYS_AGO // 7).filter(DAYS_AGO <= 84).n_unique().alias("purchase_weeks_84d"),
        pl.col("amount").max().alias("order_value_max"),
        *_basket("84d", *[_within(84, name) for name in ("amount", "discount", "lines")]),
        *_basket("total", *[pl.col(name) for name in ("amount", "discount", "lines")]),
        _within(84, "lines").mean().alias("lines_per_order_84d"),
        pl.col("products", "categories").mean().name.suffix("_per_order_total"),
        (pl.col("discounted_lines").sum() / pl.col("lines").sum()).alias("discounted_line_share_total"),
        (pl.col("weekday") >= 6).mean().alias("weekend_share_total"),
        (~pl.col("event_hour").is_between(5, 17)).mean().alias("evening_share_total"),
        pl.col("event_hour").mean().alias("order_hour_mean"),
    )


def _basket(window: str, amount: pl.Expr, discount: pl.Expr, lines: pl.Expr) -> list[pl.Expr]:
    return [
        amount.mean().alias(f"order_value_{window}"),
        _ratio(amount.sum(), lines.sum()).alias(f"line_value_{window}"),
        _ratio(discount.sum(), (amount + discount).sum()).alias(f"discount_share_{window}"),
    ]


def _gaps(orders: pl.LazyFrame) -> pl.LazyFrame:
    """Of the days between one day of purchase and the next."""
    days = orders.select("user_id", "days_ago").unique().sort("days_ago", descending=True)
    gap = pl.col("gap")
    return (
        days.with_columns(gap=-DAYS_AGO.diff().over("user_id"))
        .group_by("user_id")
        .agg(
            pl.len().alias("purchase_days_total"),
            (DAYS_AGO <= 84).sum().alias("purchase_days_84d"),
            gap.mean().alias("gap_mean_days"),
            gap.median().alias("gap_median_days"),
            gap.std(ddof=0).fill_null(0).alias("gap_spread_days"),
            gap.max().alias("gap_max_days"),
            gap.last().alias("gap_last_days"),
        )
    )


def _weekdays(orders: pl.LazyFrame) -> pl.LazyFrame:
    counted = orders.group_by("user_id", "weekday").agg(pl.len().alias("orders"))
    return counted.group_by("user_id").agg(_favourite("weekday", "orders"), _favourite_share("weekday", "orders"))


def _channels(orders: pl.LazyFrame) -> pl.LazyFrame:
    counted = orders.drop_nulls("channel").group_by("user_id", "channel").agg(pl.len().alias("orders"))
    return counted.group_by("user_id").agg(_favourite("channel", "orders"))


def _products(lines: pl.LazyFrame) -> pl.LazyFrame:
    return _spending(lines, "product_id").group_by("user_id").agg(*_breadth("products"))


def _categories(lines: pl.LazyFrame) -> pl.LazyFrame:
    spending = _spending(lines, "category")
    recent, earlier = pl.col("recent"), pl.col("earlier")
    cosine = _ratio((recent * earlier).sum(), (recent**2).sum().sqrt() * (earlier**2).sum().sqrt())
    return spending.group_by("user_id").agg(
        *_breadth("categories"),
        _favourite("category", "amount"),
        _favourite_share("category", "amount"),
        (1 - cosine).round(9).alias("interest_drift"),
    )


def _brands(lines: pl.LazyFrame) -> pl.LazyFrame:
    spending = _spending(lines, "brand")
    return spending.group_by("user_id").agg(
        pl.len().alias("brands_total"), _favourite("brand", "amount"), _favourite_share("brand", "amount")
    )


def _spending(lines: pl.LazyFrame, of: str) -> pl.LazyFrame:
    """Per user and product, category or brand; sums are rounded as money is, so that equal ones are equal."""
    amount = pl.col("amount")
    return (
        lines.drop_nulls(of)
        .group_by("user_id", of)
        .agg(
            DAYS_AGO.min(),
            amount.sum().round(4).alias("amount"),
            _within(84, "amount").sum().round(4).alias("recent"),
            pl.when(DAYS_AGO > 84).then("amount").sum().round(4).alias("earlier"),
        )
    )


def _breadth(name: str) -> list[pl.Expr]:
    return [pl.len().alias(f"{name}_total"), (DAYS_AGO <= 84).sum().alias(f"{name}_84d")]


def _favourite(of: str, weight: str) -> pl.Expr:
    """What has the most weight; of equals the last by name."""
    return pl.col(of).sort_by(weight, of).last().alias(f"favourite_{of}")


def _favourite_share(of: str, weight: str) -> pl.Expr:
    return _ratio(pl.col(weight).max(), pl.col(weight).sum()).alias(f"favourite_{of}_share")


def _refunds(given_back: pl.LazyFrame, lines: pl.LazyFrame) -> pl.LazyFrame:
    """Each with what it was for: the order's own line before the newest line of the same product."""
    given_back = given_back.with_row_index("refund")
    bought = lines.select("visitor_id", "order_key", "product_id", "event_time", "amount")
    same_order = pl.col("order_key") == pl.col("order_key_bought")
    same_product = pl.col("product_id") == pl.col("product_id_bought")
    matched = (
        given_back.join(bought, on="visitor_id", suffix="_bought")
        .filter(pl.col("event_time") >= pl.col("event_time_bought"), same_order | same_product)
        .sort(
            same_order,
            pl.col("product_id").eq_missing(pl.col("product_id_bought")),
            *["event_time_bought", "order_key_bought", "amount_bought"],
            descending=True,
            nulls_last=True,
        )
        .unique("refund", keep="first")
        .select("refund", "order_key_bought", "amount_bought")
    )
    return (
        given_back.join(matched, on="refund", how="left")
        .group_by("user_id")
        .agg(
            *_breadth("refunds"),
            pl.col("order_key_bought").drop_nulls().n_unique().alias("refunded_orders_total"),
            pl.coalesce(pl.col("amount").abs(), "amount_bought").sum().alias("refunded_amount_total"),
        )
    )


def _touches(touches: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """A response that came later is not known yet."""
    responded = _days_before(day, "responded_date")
    return (
        touches.filter(pl.col("touched_date") < day)
        .with_columns(days_ago=_days_before(day, "touched_date"))
        .group_by("user_id")
        .agg(
            *_breadth("touches"),
            DAYS_AGO.min().alias("days_since_last_touch"),
            (responded > 0).sum().alias("responses_total"),
            responded.is_between(1, 84).sum().alias("responses_84d"),
        )
    )


def _tickets(tickets: pl.LazyFrame, day: date) -> pl.LazyFrame:
    created = tickets.filter(pl.col("created_date") < day).with_columns(days_ago=_days_before(day, "created_date"))
    return created.group_by("user_id").agg(*_breadth("tickets"))


def _accounts(accounts: pl.LazyFrame, day: date) -> pl.LazyFrame:
    opened = pl.col("signed_up_date")
    return accounts.filter(opened.is_null() | (opened < day)).select(
        "user_id", "country", "acquisition_channel", days_since_sign_up=_days_before(day, "signed_up_date")
    )


def _whole(features: pl.LazyFrame, day: date) -> pl.LazyFrame:
    """The joined features with those that are made of others."""
    log_events = (pl.col("events_84d") / pl.col("active_days_84d")).log1p()
    log_amount = pl.col("amount_84d").log1p()
    return (
        features.with_columns(COUNTS_AND_SUMS.fill_null(0))
        .with_columns(
            as_of_date=pl.lit(day),
            as_of_month=pl.lit(day.month),
            is_active_buyer=(pl.col("days_since_last_purchase") <= 84).fill_null(False),
            gap_now_z=_ratio(pl.col("days_since_last_purchase") - pl.col("gap_mean_days"), pl.col("gap_spread_days")),
            is_suspected_bot=_stands_out(log_events, log_events),
            is_suspected_reseller=_stands_out(log_amount, pl.when(log_amount > 0).then(log_amount)),
            **{name: _ratio(pl.col(part), pl.col(whole)) for name, (part, whole) in RATIOS.items()},
        )
        .with_columns(cs.integer().cast(pl.Int32), cs.categorical().cast(pl.String))
        .drop("refunded_orders_total")
    )


def _stands_out(value: pl.Expr, among: pl.Expr) -> pl.Expr:
    """Far above the median of the others, in median deviations (Iglewicz and Hoaglin 1993)."""
    spread = 1.4826 * (among - among.median()).abs().median()
    return ((value - among.median()) / spread.clip(lower_bound=0.1) > 6).fill_null(False)


def _days_before(day: date, column: str) -> pl.Expr:
    return (pl.lit(day) - pl.col(column)).dt.total_days()


def _within(days: int, *names: str) -> pl.Expr:
    return pl.when(pl.col("days_ago") <= days).then(pl.col(*names))


def _sums(days: int, *names: str) -> pl.Expr:
    return _within(days, *names).sum().name.suffix(f"_{days}d")


def _trends(days: int, *names: str) -> pl.Expr:
    """The sums of the last days less those of as many days before them."""
    return (_within(days, *names).sum() * 2 - _within(2 * days, *names).sum()).name.suffix(f"_trend_{days}d")


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """Null where there is nothing to divide by."""
    return part / pl.when(whole != 0).then(whole)
