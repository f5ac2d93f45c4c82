"""Users, products and texts as they were known at an as_of_date, as Polars frames."""

from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.frame import read

USER_AT = "case when linked_date < $as_of then linked_user_id else user_id end"
"""The user of a row, as known at $as_of: a visitor counts as itself until the day after it was linked."""


def products_at(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Products with their attributes, as known at `as_of`, sorted by product_id.

    Returns:
        product_id, department, category, brand, title, price (the list price; without one, the median price paid for
        a unit before `as_of`) and first_sold_date (null for what nobody had bought by then). Products that were bought
        but are not in the product table have null attributes.
    """
    return read(
        con,
        """
        with sold as (
            select
                product_id,
                median(cast(amount as double) / cast(quantity as double)) filter (where quantity > 0 and amount > 0)
                    as paid,
                min(event_date) as first_sold_date
            from marts.shop_events
            where event_type = 'purchase' and event_date < $as_of and product_id is not null
            group by product_id
        )

        select
            coalesce(catalogue.product_id, sold.product_id) as product_id,
            catalogue.department,
            catalogue.category,
            catalogue.brand,
            catalogue.title,
            coalesce(catalogue.price, sold.paid) as price,
            sold.first_sold_date
        from marts.products as catalogue
        full join sold on catalogue.product_id = sold.product_id
        order by 1
        """,
        {"as_of": as_of},
    )


def texts_before(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Reviews and tickets written strictly before `as_of`, sorted by text_id.

    Returns:
        text_id, kind, user_id (as known then), written_date, written_at, text, rating, product_id, intent.
    """
    return read(
        con,
        f"""
        select
            text_id, kind, {USER_AT} as user_id, written_date, written_at, text, rating, product_id, intent
        from marts.user_texts
        where written_date < $as_of
        order by text_id
        """,
        {"as_of": as_of},
    )
