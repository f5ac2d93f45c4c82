"""Campaign touches with what was known of their users then, and what these users did afterwards, as Polars frames."""

from collections.abc import Iterator
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.frame import is_drawn, read, share_of_users
from lcm_ml.frames.purchase_history import FEATURE_TABLES, USERS_AT_ONCE
from lcm_ml.warehouse.connection import first_row

CONTROL = "control"
KEYS = ("campaign_id", "user_id", "touched_date")
STALE = (
    # Known as of the touch itself, under names that begin with touch_.
    *("touches_84d", "touches_total", "days_since_last_touch"),
    *("responses_84d", "responses_total", "response_rate_total"),
    # Tells months apart, of which those to come are none.
    "as_of_month",
)
NOT_FEATURES = {
    *KEYS,
    *("ends_date", "arm", "responded_date", "cost"),
    *("orders", "spend", "is_purchased", "is_responded", "is_active_buyer"),
    "is_open",
    # Dozens of levels each, of which a few thousand touches tell nothing.
    *("favourite_category", "favourite_brand"),
}
_FIRST_OF_A_DAY = "qualify row_number() over (partition by campaign_id, user_id, touched_date order by touched_at) = 1"
"""Of several touches of a user by a campaign on one day."""
_PURCHASES = """
    purchases as (
        select user_id, purchase_date, orders, amount, date '0001-01-01' as linked_date
        from marts.purchase_days
        union all
        select linked_user_id, purchase_date, orders, amount, linked_date
        from marts.purchase_days
        where linked_user_id is not null
    )"""


def touching_share(con: duckdb.DuckDBPyConnection, as_of: date, most: int | None) -> float:
    """The share of users whose touches before `as_of` are no more than `most` together."""
    row = first_row(con, "select count(*) from marts.campaign_touches where touched_date < ?", [as_of])
    return share_of_users(row[0] if row else 0, most)


def touches_before(con: duckdb.DuckDBPyConnection, as_of: date, share: float = 1.0) -> pl.DataFrame:
    """Touches strictly before `as_of`, of every arm; a response that came later is none yet.

    Args:
        con: an open connection to a built warehouse.
        as_of: the as_of_date.
        share: of the users, drawn as those of a training frame, with all of their touches.

    Returns:
        campaign_id, kind, channel, ends_date, user_id, touched_date, arm, responded_date and cost, sorted by date,
        campaign and user. Of several touches of a user by a campaign on one day, the first. A campaign whose kind or
        channel is not known has `unknown`.
    """
    return read(
        con,
        f"""
        select
            campaign_id,
            coalesce(kind, 'unknown') as kind,
            coalesce(channel, 'unknown') as channel,
            ends_date,
            user_id,
            touched_date,
            arm,
            case when responded_date < $as_of then responded_date end as responded_date,
            cast(cost as double) as cost
        from marts.campaign_touches
        where touched_date < $as_of and {is_drawn("user_id", share)}
        {_FIRST_OF_A_DAY}
        order by touched_date, campaign_id, user_id
        """,
        {"as_of": as_of},
    )


def with_outcomes(con: duckdb.DuckDBPyConnection, touches: pl.DataFrame, as_of: date, days: int) -> pl.DataFrame:
    """The touches whose outcome window [touched_date, touched_date + days) is over at `as_of`, and what came in it.

    Returns:
        The rows with is_responded, orders, spend and is_purchased.
    """
    known = touches.filter(pl.col("touched_date").dt.offset_by(f"{days}d") <= as_of)
    con.register("touches_asked", known.select(KEYS).to_arrow())
    outcomes = read(
        con,
        f"""
        with {_PURCHASES}

        select
            t.campaign_id,
            t.user_id,
            t.touched_date,
            cast(sum(p.orders) as double) as orders,
            cast(sum(p.amount) as double) as spend
        from touches_asked as t
        inner join purchases as p
            on
                t.user_id = p.user_id
                and p.linked_date < $as_of
                and p.purchase_date >= t.touched_date
                and p.purchase_date < t.touched_date + {int(days)}
        group by all
        """,
        {"as_of": as_of},
    )
    con.unregister("touches_asked")
    lag = (pl.col("responded_date") - pl.col("touched_date")).dt.total_days()
    return known.join(outcomes, on=KEYS, how="left", maintain_order="left").with_columns(
        pl.col("orders", "spend").fill_null(0.0),
        is_purchased=(pl.col("orders") > 0).fill_null(False),
        is_responded=((lag >= 0) & (lag < days)).fill_null(False),
    )


def with_features(con: duckdb.DuckDBPyConnection, touches: pl.DataFrame) -> pl.DataFrame:
    """What was known of each row's user: features of the last as_of_date by then, and recency as of the day itself.

    Args:
        con: an open connection to a built warehouse.
        touches: user_id and touched_date among its columns.

    Returns:
        The rows whose user was in marts.user_features or lapsed_user_features then, with these features, is_lapsed, and
        touch_ columns as of touched_date: days since the last purchase, orders and money of 28 and 84 days, contacts so
        far, responses that were known, and days since the last contact.
    """
    con.register("touches_asked", touches.select("user_id", "touched_date").unique().to_arrow())
    active, lapsed = FEATURE_TABLES
    try:
        features = read(
            con,
            f"""
            with {_PURCHASES},

            dated as (
                select t.user_id, t.touched_date, max(d.as_of_date) as as_of_date
                from touches_asked as t
                inner join marts.as_of_dates as d on d.as_of_date <= t.touched_date
                group by all
            ),

            bought as (
                select
                    t.user_id,
                    t.touched_date,
                    t.touched_date - max(p.purchase_date) as touch_days_since_last_purchase,
                    {_sums("orders", 28)},
                    {_sums("orders", 84)},
                    {_sums("amount", 28)},
                    {_sums("amount", 84)}
                from touches_asked as t
                inner join purchases as p
                    on t.user_id = p.user_id and p.purchase_date < t.touched_date and p.linked_date < t.touched_date
                group by t.user_id, t.touched_date
            ),

            known as (
                select * from marts.campaign_touches
                semi join touches_asked using (user_id)
                {_FIRST_OF_A_DAY}
            ),

            contacted as (
                select
                    t.user_id,
                    t.touched_date,
                    count(*) as touch_contacts,
                    count(*) filter (where k.responded_date < t.touched_date) as touch_responses,
                    t.touched_date - max(k.touched_date) as touch_days_since_last_contact
                from touches_asked as t
                inner join known as k
                    on t.user_id = k.user_id and k.touched_date < t.touched_date and k.arm != '{CONTROL}'
                group by t.user_id, t.touched_date
            ),

            features as (
                select *, false as is_lapsed from {active}
                union all by name
                select *, true as is_lapsed from {lapsed}
            )

            select
                dated.touched_date,
                features.* exclude (as_of_date, {", ".join(STALE)}),
                bought.* exclude (user_id, touched_date),
                coalesce(contacted.touch_contacts, 0) as touch_contacts,
                coalesce(contacted.touch_responses, 0) as touch_responses,
                contacted.touch_days_since_last_contact
            from dated
            inner join features on dated.user_id = features.user_id and dated.as_of_date = features.as_of_date
            left join bought on dated.user_id = bought.user_id and dated.touched_date = bought.touched_date
            left join contacted on dated.user_id = contacted.user_id and dated.touched_date = contacted.touched_date
            """,
        )
    finally:
        con.unregister("touches_asked")
    decimals = [name for name, kind in features.schema.items() if kind.is_decimal()]
    return touches.join(
        features.with_columns(pl.col(decimals).cast(pl.Float64), pl.col("^touch_(orders|amount)_.*$").fill_null(0.0)),
        on=["user_id", "touched_date"],
        how="inner",
        maintain_order="left",
    )


def _sums(column: str, days: int) -> str:
    within = f"filter (where p.purchase_date >= t.touched_date - {days})"
    return f"coalesce(cast(sum(p.{column}) {within} as double), 0) as touch_{column}_{days}d"


def rows_to_score(con: duckdb.DuckDBPyConnection, as_of: date) -> Iterator[pl.DataFrame]:
    """Everybody known at `as_of` with every kind of campaign so far, as touched then, USERS_AT_ONCE at a time."""
    users, kinds = known_users(con, as_of), kinds_to_score(con, as_of)
    # Once also where there is nobody: no rows have columns too.
    for start in range(0, max(users.height, 1), USERS_AT_ONCE):
        yield with_features(con, users.slice(start, USERS_AT_ONCE)).join(kinds, how="cross")


def known_users(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Everybody with features at `as_of`, active or lapsed, as touched then: user_id, touched_date."""
    active, lapsed = FEATURE_TABLES
    return read(
        con,
        f"""
        select user_id, as_of_date as touched_date
        from (
            select user_id, as_of_date from {active} union select user_id, as_of_date from {lapsed}
        )
        where as_of_date = $as_of
        order by user_id
        """,
        {"as_of": as_of},
    )


def with_untouched(con: duckdb.DuckDBPyConnection, touches: pl.DataFrame, share: float = 1.0) -> pl.DataFrame:
    """The touches and, as controls of each campaign, everybody it left alone, of the same share of the users.

    They are those with features at the last as_of_date at or before the campaign's commonest day of contact, as of
    that day.
    """
    con.register("touches_asked", touches.select("campaign_id", "user_id", "touched_date").to_arrow())
    active, lapsed = FEATURE_TABLES
    alone = read(
        con,
        f"""
        with campaigns as (
            select campaign_id, mode(touched_date) as touched_date
            from touches_asked
            group by campaign_id
        ),

        dated as (
            select c.campaign_id, c.touched_date, max(d.as_of_date) as as_of_date
            from campaigns as c
            inner join marts.as_of_dates as d on d.as_of_date <= c.touched_date
            group by all
        ),

        users as (
            select user_id, as_of_date from {active} where {is_drawn("user_id", share)}
            union
            select user_id, as_of_date from {lapsed} where {is_drawn("user_id", share)}
        )

        select dated.campaign_id, users.user_id, dated.touched_date
        from dated
        inner join users on dated.as_of_date = users.as_of_date
        anti join touches_asked as t on dated.campaign_id = t.campaign_id and users.user_id = t.user_id
        order by 3, 1, 2
        """,
    )
    con.unregister("touches_asked")
    campaigns = touches.select("campaign_id", "kind", "channel", "ends_date").unique("campaign_id")
    controls = alone.join(campaigns, on="campaign_id", maintain_order="left").with_columns(
        arm=pl.lit(CONTROL), responded_date=pl.lit(None, pl.Date), cost=pl.lit(0.0)
    )
    treated = touches.filter(pl.col("arm") != CONTROL)
    return pl.concat([treated, controls.select(treated.columns)]).sort("touched_date", "campaign_id", "user_id")


def touch_features(touches: pl.DataFrame) -> list[str]:
    """Columns that models may use: what was known at the touch, and the campaign's kind and channel."""
    return [name for name in touches.columns if name not in NOT_FEATURES]


def kinds_to_score(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Kinds of campaigns that had touched somebody before `as_of`.

    Returns:
        kind, channel (its commonest one), is_open (whether one of it is, at `as_of`), sorted by kind.
    """
    return read(
        con,
        f"""
        with channels as (
            select
                coalesce(kind, 'unknown') as kind,
                coalesce(channel, 'unknown') as channel,
                count(*) as touches,
                bool_or(coalesce(ends_date >= $as_of, false)) as is_open
            from marts.campaign_touches
            where touched_date < $as_of and arm != '{CONTROL}'
            group by 1, 2
        )

        select kind, arg_min(channel, (-touches, channel)) as channel, bool_or(is_open) as is_open
        from channels
        group by kind
        order by kind
        """,
        {"as_of": as_of},
    )
