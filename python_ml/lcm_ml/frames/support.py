"""Tickets, articles and a user's own facts, as they were known at an as_of_date."""

from dataclasses import fields
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import built_settings, read
from lcm_ml.insights.words.language import plain_texts
from lcm_ml.support.answers import Facts
from lcm_ml.warehouse.connection import rows, table_exists


def articles(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """The knowledge base: article_id, intent, title, body, sorted by article_id."""
    return read(con, "select article_id, intent, title, body from marts.kb_articles order by article_id")


def tickets_before(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Tickets opened strictly before `as_of`, oldest first.

    Returns:
        ticket_id, user_id (as known then), created_at, created_date, text, intent (the label), is_open (not resolved
        before), and plain, is_cut and language of the text.
    """
    found = read(
        con,
        f"""
        select
            ticket_id, {USER_AT} as user_id, created_at, created_date, text, intent,
            coalesce(resolved_date >= $as_of, true) as is_open
        from marts.support_tickets
        where created_date < $as_of
        order by created_at, ticket_id
        """,
        {"as_of": as_of},
    )
    return plain_texts(found)


def standing(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Value and churn risk of users by the newest runs whose date is not after `as_of`.

    Returns:
        user_id, value_decile (1 is the most), churn_probability; either is null where it is not known.
    """
    return read(
        con,
        """
        with worth as (
            select user_id, value_decile
            from ml.user_lifetime_values
            where as_of_date = (select max(as_of_date) from ml.user_lifetime_values where as_of_date <= $as_of)
        ),

        risk as (
            select user_id, churn_probability
            from serving.churn_scores_history
            where as_of_date = (select max(as_of_date) from serving.churn_scores_history where as_of_date <= $as_of)
        )

        select
            coalesce(worth.user_id, risk.user_id) as user_id,
            worth.value_decile,
            risk.churn_probability
        from worth
        full join risk on worth.user_id = risk.user_id
        order by 1
        """,
        {"as_of": as_of},
    )


def judged_sentiments(con: duckdb.DuckDBPyConnection, as_of: date) -> pl.DataFrame:
    """Sentiments of tickets that `lcm-ml words` judged at `as_of` or before.

    Returns:
        ticket_id, sentiment.
    """
    if not table_exists(con, "ml", "text_sentiments"):
        return pl.DataFrame(schema={"ticket_id": pl.String, "sentiment": pl.Float64})
    return read(
        con,
        """
        select substr(text_id, 8) as ticket_id, arg_max(sentiment, as_of_date) as sentiment
        from ml.text_sentiments
        where kind = 'ticket' and as_of_date <= $as_of and sentiment is not null
        group by text_id
        """,
        {"as_of": as_of},
    )


def facts_of(con: duckdb.DuckDBPyConnection, user_id: str) -> Facts | None:
    """What is known of a user at the scoring date; None where there is no such user.

    Raises:
        LcmError: when the marts may not be read.
    """
    built_settings(con)
    names = ", ".join(field.name for field in fields(Facts))
    found = rows(con, f"select {names} from serving.support_facts_latest where user_id = ?", [user_id])
    return Facts(**found[0]) if found else None
