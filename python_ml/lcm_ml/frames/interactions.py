"""What users did with products, and who the users are, as known at an as_of_date."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import read

PURCHASE = "purchase"
UNITS = 1e12
"""Weights are summed as whole numbers of this part, so that the sum is the same in whatever order."""


def interactions_before(as_of: date) -> str:
    """SQL of what happened between users and products strictly before `as_of`, for `numbered`.

    Refunds, searches and what takes something back say nothing about liking and are left out.

    Returns:
        A query with the columns user_id (as known then), product_id, event_date, event_type, quantity, amount,
        discount.
    """
    return f"""
        select
            {USER_AT.replace("$as_of", f"date '{as_of}'")} as user_id,
            product_id,
            event_date,
            event_type,
            coalesce(quantity, 1) as quantity,
            coalesce(amount, 0) as amount,
            coalesce(discount, 0) as discount
        from marts.shop_events
        where event_date < date '{as_of}' and product_id is not null
            and event_type not in ('refund', 'search', 'support', 'remove_from_cart')
            and (event_type != '{PURCHASE}' or (coalesce(quantity, 1) > 0 and coalesce(amount, 0) >= 0))
        """


@dataclass(frozen=True)
class Numbered:
    """Interactions with users and products as numbers, Int32; ages are whole days before the date, 1 or more.

    Attributes:
        days: user, product, age, quantity, amount, discount: a row per day on which a user purchased a product, sorted
            by user, product, age, the oldest first.
        seen: user, product, seen_weight (fading), seen_age: what users looked at, carted and the like; sorted.
        taste: user, product, weight: all signals of both kinds, fading, heaviest first within a user.
        products: product, last_age (of anything that anybody did with it), sold_age (null: never purchased).
    """

    days: pl.DataFrame
    seen: pl.DataFrame
    taste: pl.DataFrame
    products: pl.DataFrame


def numbered(
    con: duckdb.DuckDBPyConnection,
    interactions: str,
    as_of: date,
    users: pl.Series,
    products: pl.Series,
    weights: Mapping[str, float],
    half_life_days: float,
) -> Numbered:
    """Bring interactions to numbers, in DuckDB: as texts, those of a large shop would not fit in memory.

    Args:
        con: where `interactions` can be read.
        interactions: a query or the name of a table, with the columns of `interactions_before`.
        as_of: only what happened strictly before counts.
        users: ids; a user's number is its place. What others did is left out.
        products: ids, likewise.
        weights: how much an event of a kind says about liking, of each kind once a day; others say nothing.
        half_life_days: a signal of this age counts half.
    """
    kinds = [PURCHASE, *(name for name in weights if name != PURCHASE)]
    con.register("user_numbers", _numbers("user_id", users).to_arrow())
    con.register("product_numbers", _numbers("product_id", products).to_arrow())
    con.register("kind_bits", pl.DataFrame({"event_type": kinds, "bit": [2**n for n in range(len(kinds))]}).to_arrow())
    bought, *others = (
        f"case when kinds & {2**n} > 0 then {float(weights.get(name, 0.0))} else 0 end" for n, name in enumerate(kinds)
    )
    looked = " + ".join(others) or "0"
    fading = f"{UNITS} * power(0.5, age / {float(half_life_days)})"
    con.execute(
        f"""
        create or replace temp table interaction_days as
        with found as (
            select *, event_type = '{PURCHASE}' as is_purchase
            from ({interactions})
            where event_date < $as_of
        )

        select
            user_numbers.number as user,
            product_numbers.number as product,
            cast($as_of - event_date as integer) as age,
            -- Another kind that says nothing has a bit too: it was seen.
            bit_or(coalesce(kind_bits.bit, {2 ** len(kinds)})) as kinds,
            cast(sum(quantity) filter (where is_purchase) as float) as quantity,
            cast(sum(amount) filter (where is_purchase) as float) as amount,
            cast(sum(discount) filter (where is_purchase) as float) as discount
        from found
        inner join user_numbers on found.user_id = user_numbers.user_id
        inner join product_numbers on found.product_id = product_numbers.product_id
        left join kind_bits on found.event_type = kind_bits.event_type
        group by all
        """,
        {"as_of": as_of},
    )
    con.execute(
        f"""
        create or replace temp table interaction_signals as
        select
            user,
            product,
            sum(cast(round(({bought} + {looked}) * {fading}) as bigint)) as weight,
            sum(cast(round(({looked}) * {fading}) as bigint)) as seen_weight,
            min(age) filter (where kinds > 1) as seen_age
        from interaction_days
        group by all
        """
    )
    try:
        return Numbered(
            days=read(
                con,
                """
                select user, product, age, quantity, amount, discount
                from interaction_days
                where kinds & 1 > 0
                order by user, product, age desc
                """,
            ),
            seen=read(
                con,
                f"""
                select user, product, cast(seen_weight / {UNITS} as float) as seen_weight, seen_age
                from interaction_signals
                where seen_weight > 0
                order by user, product
                """,
            ),
            taste=read(
                con,
                f"""
                select user, product, cast(weight / {UNITS} as float) as weight
                from interaction_signals
                where weight > 0
                order by user, interaction_signals.weight desc, product
                """,
            ),
            products=read(
                con,
                """
                select product, min(age) as last_age, min(age) filter (where kinds & 1 > 0) as sold_age
                from interaction_days
                group by product
                order by product
                """,
            ),
        )
    finally:
        for name in ("interaction_signals", "interaction_days"):
            con.execute(f"drop table {name}")
        for name in ("user_numbers", "product_numbers", "kind_bits"):
            con.unregister(name)


def _numbers(name: str, ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({name: ids, "number": pl.int_range(len(ids), dtype=pl.Int32, eager=True)})


def interacting_products(con: duckdb.DuckDBPyConnection, interactions: str, as_of: date) -> pl.DataFrame:
    """The products that anybody did anything with before `as_of`: product_id."""
    query = f"select distinct product_id from ({interactions}) where event_date < $as_of"
    return read(con, query, {"as_of": as_of})


def purchases_between(con: duckdb.DuckDBPyConnection, first: date, end: date) -> pl.DataFrame:
    """Who purchased which product from `first` on, before `end`: user_id (as known at `end`) and product_id, sorted."""
    return read(
        con,
        f"""
        select distinct user_id, product_id
        from ({interactions_before(end)})
        where event_type = '{PURCHASE}' and event_date >= $first
        order by all
        """,
        {"first": first},
    )


def users_at(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Everybody who had signed up or done anything strictly before `as_of`.

    Returns:
        user_id (as known then; a visitor that was linked is its user), country and acquisition_channel (null where
        not known); sorted.
    """
    return read(
        con,
        f"""
        with seen as (
            select distinct {USER_AT} as user_id from marts.shop_events where event_date < $as_of
            union
            select user_id from staging.stg_users where cast(signed_up_at as date) < $as_of
        )

        select seen.user_id, accounts.country, accounts.acquisition_channel
        from seen
        left join staging.stg_users as accounts on seen.user_id = accounts.user_id
        order by 1
        """,
        {"as_of": as_of},
    )
