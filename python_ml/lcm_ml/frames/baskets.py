"""What was bought together before an as_of_date, and what it is called."""

from collections.abc import Iterable
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import read

ITEM_OF = {"category": "category", "product": "product_id"}


def baskets_before(con: duckdb.DuckDBPyConnection, as_of: date, level: str, since: date | None = None) -> pl.DataFrame:
    """Items of each basket strictly before `as_of`: a basket is an order of a user on a day.

    Args:
        con: an open connection to a built warehouse.
        as_of: the as_of_date.
        level: category or product.
        since: the first shop day to read; everything where None.

    Returns:
        basket (0 to the number of baskets less 1) and item; a row once. Purchases without an item are left out.
    """
    lines = read(
        con,
        f"""
        select distinct hash({USER_AT}, order_key, event_date) as basket, {ITEM_OF[level]} as item
        from marts.shop_events
        where event_type = 'purchase' and event_date < $as_of and event_date >= $since
            and {ITEM_OF[level]} is not null
        """,
        {"as_of": as_of, "since": since or date.min},
    )
    return lines.select(pl.col("basket").rank("dense").cast(pl.UInt32) - 1, "item").sort("basket", "item")


def item_names(con: duckdb.DuckDBPyConnection, level: str, items: Iterable[str]) -> dict[str, str]:
    """Items in words, each its own: a product's title, else its category, with the id where it is not alone in it."""
    wanted = sorted(set(items))
    if level == "category":
        return {item: item for item in wanted}
    rows = read(
        con,
        """
        with named as (
            select product_id, coalesce(title, category) as name
            from marts.products
            where product_id in $wanted and coalesce(title, category) is not null
        )

        select product_id, if(count(*) over (partition by name) > 1, name || ' (' || product_id || ')', name) as name
        from named
        """,
        {"wanted": wanted},
    )
    known: dict[str, str] = dict(rows.iter_rows())
    return {item: known.get(item, item) for item in wanted}
