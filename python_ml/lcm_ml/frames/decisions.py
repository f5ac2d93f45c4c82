"""What is known of users when deciding whom to contact, and what a marketer has set, as Polars frames."""

from datetime import date
from typing import Any

import duckdb
import polars as pl

from lcm_ml.errors import LcmError
from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import read
from lcm_ml.warehouse.connection import first_row, table_exists
from lcm_ml.warehouse.state import settings

SEEDS = ("contact_channels", "offers", "action_rules", "action_rule_examples")
SENT_DATE = "cast(timezone($zone, timezone('UTC', sent_at)) as date)"
"""SQL: the shop's day of a row of ml.actions_sent; the parameter zone is the var shop_timezone."""
Users = tuple[str, str] | None
"""The first and the last user_id of some users; None: everybody."""


def setting_table(con: duckdb.DuckDBPyConnection, name: str) -> pl.DataFrame:
    """A table that a marketer edits (one of SEEDS), in the order of its first column.

    Raises:
        LcmError: when it is not in the warehouse yet.
    """
    if not table_exists(con, "marts", name):
        raise LcmError(f"marts.{name} is not there", f"run `dbt build`: it loads seeds/decisions/{name}.csv")
    rows = read(con, f"select * from marts.{name} order by 1")
    decimals = [column for column, kind in rows.schema.items() if kind.is_decimal()]
    return rows.with_columns(pl.col(decimals).cast(pl.Float64))


def parts_of_users(con: duckdb.DuckDBPyConnection, as_of: date, at_once: int) -> list[Users]:
    """Everybody seen before `as_of` in parts of `at_once`, in the order of user_id; never without a part."""
    parts = con.execute(
        """
        with numbered as (
            select user_id, (row_number() over (order by user_id) - 1) // $most as part
            from marts.user_lifecycle
            where as_of_date = $as_of
        )

        select min(user_id), max(user_id) from numbered group by part order by part
        """,
        {"as_of": as_of, "most": at_once},
    ).fetchall()
    return [*parts] if len(parts) > 1 else [None]


def _within(user: str, users: Users) -> str:
    return "true" if users is None else f"{user} between $first and $last"


def _asked(as_of: date, users: Users) -> dict[str, Any]:
    return {"as_of": as_of} | ({} if users is None else {"first": users[0], "last": users[1]})


def order_value_before(con: duckdb.DuckDBPyConnection, as_of: date) -> float:
    """The mean value of all orders before `as_of`, base currency; 0 where there is none."""
    total = first_row(
        con,
        """
        select cast(sum(amount) as double) / nullif(cast(sum(orders) as double), 0)
        from marts.purchase_days
        where purchase_date < ?
        """,
        [as_of],
    )
    return float(total[0] or 0.0) if total else 0.0


def users_to_decide(con: duckdb.DuckDBPyConnection, as_of: date, users: Users = None) -> pl.DataFrame:
    """Everybody seen before `as_of`, with what decisions look at; what was found for another date is not of this one.

    Returns:
        user_id, stage, days_in_stage, days_since_last_purchase, typical_gap_days, has_purchased, orders, amount (ever,
        base currency), churn_probability, risk_band (null: not scored), probability_alive, value_decile,
        lifetime_value (null: not known), marketing_consent (null: never asked), is_suspected_bot, favourite_weekday
        (1 is Monday) and favourite_daypart (null but for the scoring date). Sorted by user_id.
    """
    return read(
        con,
        f"""
        with bought as (
            select
                {USER_AT} as user_id,
                cast(sum(orders) as double) as orders,
                cast(sum(amount) as double) as amount
            from marts.purchase_days
            where purchase_date < $as_of and {_within(f"({USER_AT})", users)}
            group by all
        ),

        scored as (
            select user_id, churn_probability, risk_band
            from ml.churn_scores
            where as_of_date = $as_of and is_served and {_within("user_id", users)}
            qualify row_number() over (partition by user_id order by scored_at desc, model_version) = 1
        ),

        alive as (
            select user_id, max(probability_alive) as probability_alive
            from ml.user_values
            where as_of_date = $as_of and is_served and {_within("user_id", users)}
            group by user_id
        )

        select
            stages.user_id,
            stages.stage,
            stages.days_in_stage,
            stages.days_since_last_purchase,
            stages.typical_gap_days,
            stages.first_purchase_date is not null as has_purchased,
            coalesce(bought.orders, 0) as orders,
            coalesce(bought.amount, 0) as amount,
            scored.churn_probability,
            scored.risk_band,
            alive.probability_alive,
            worth.value_decile,
            worth.lifetime_value,
            accounts.marketing_consent,
            coalesce(features.is_suspected_bot, false) as is_suspected_bot,
            habits.favourite_weekday,
            habits.favourite_daypart
        from marts.user_lifecycle as stages
        left join bought on stages.user_id = bought.user_id
        left join scored on stages.user_id = scored.user_id
        left join alive on stages.user_id = alive.user_id
        left join ml.user_lifetime_values as worth
            on stages.user_id = worth.user_id and stages.as_of_date = worth.as_of_date
        left join staging.stg_users as accounts on stages.user_id = accounts.user_id
        left join marts.user_features as features
            on stages.user_id = features.user_id and stages.as_of_date = features.as_of_date
        left join marts.user_preferences as habits
            on stages.user_id = habits.user_id and stages.as_of_date = habits.as_of_date
        where stages.as_of_date = $as_of and {_within("stages.user_id", users)}
        order by stages.user_id
        """,
        _asked(as_of, users),
    )


def contacts_before(con: duckdb.DuckDBPyConnection, as_of: date, users: Users = None) -> pl.DataFrame:
    """Contacts so far by user and channel.

    Users that a campaign held back were not contacted. What `lcm-ml act` sent counts from its record: at once, not
    with the next build; also where it was sent after `as_of`, as the data lags behind; and for who was held back too,
    or the two arms would not be treated alike from then on.

    Returns:
        user_id, channel (unknown where the campaign is), last_contact_date, contacts_28d.
    """
    return read(
        con,
        f"""
        with sent as (
            select * from ml.actions_sent where {_within("user_id", users)}
        ),

        contacts as (
            select user_id, coalesce(channel, 'unknown') as channel, touched_date as contact_date
            from marts.campaign_touches as touches
            anti join sent
                on lower(touches.campaign_id) = lower(sent.campaign_id) and touches.user_id = sent.user_id
            where touched_date < $as_of and arm != 'control' and {_within("user_id", users)}

            union all

            select user_id, channel, {SENT_DATE}
            from sent
            where as_of_date <= $as_of
        )

        select
            user_id,
            channel,
            max(contact_date) as last_contact_date,
            count(*) filter (where contact_date >= $as_of - 28) as contacts_28d
        from contacts
        group by all
        order by all
        """,
        _asked(as_of, users) | {"zone": settings(con)["shop_timezone"]},
    )


def effects_at(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """What `uplift_at` has of everybody, without the users: campaign_kind, effect and standard_error."""
    return read(
        con,
        "select campaign_kind, effect, standard_error from ml.uplift_scores where as_of_date = $as_of",
        {"as_of": as_of},
    )


def uplift_at(con: duckdb.DuckDBPyConnection, as_of: date, users: Users = None) -> pl.DataFrame:
    """Effects of `lcm-ml uplift` at this very date; no rows where none was measured.

    Returns:
        user_id, campaign_kind, outcome, effect, standard_error, baseline_probability, uplift_segment, is_best_kind.
    """
    return read(
        con,
        f"""
        select
            user_id, campaign_kind, outcome, effect, standard_error, baseline_probability, uplift_segment, is_best_kind
        from ml.uplift_scores
        where as_of_date = $as_of and {_within("user_id", users)}
        order by user_id, campaign_kind
        """,
        _asked(as_of, users),
    )


def recommended_at(con: duckdb.DuckDBPyConnection, as_of: date, users: Users = None) -> pl.DataFrame:
    """The first recommendation of a new product at this very date, and the first of one bought before.

    Returns:
        user_id, rank, product_id, is_repeat; sorted by user and rank.
    """
    return read(
        con,
        f"""
        select user_id, rank, product_id, is_repeat
        from ml.recommendations
        where as_of_date = $as_of and {_within("user_id", users)}
        qualify row_number() over (partition by user_id, is_repeat order by rank) = 1
        order by user_id, rank
        """,
        _asked(as_of, users),
    )


def tried_channels(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Channels that each kind of campaign went through before `as_of`: campaign_kind, channel."""
    return read(
        con,
        """
        select distinct kind as campaign_kind, channel
        from marts.campaign_touches
        where touched_date < $as_of and arm != 'control' and kind is not null and channel is not null
        order by all
        """,
        {"as_of": as_of},
    )


def sent_for(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """What `lcm-ml act` recorded for this as_of_date: the rows of ml.actions_sent."""
    return read(con, "select * from ml.actions_sent where as_of_date = $as_of order by all", {"as_of": as_of})


def product_titles(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """product_id, title."""
    return read(con, "select product_id, title from marts.products where title is not null order by 1")
