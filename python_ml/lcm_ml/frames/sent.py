"""Actions that were recorded, with what their users did before and after, as Polars frames."""

from datetime import date, timedelta

import duckdb
import polars as pl

from lcm_ml.frames.decisions import SENT_DATE
from lcm_ml.frames.frame import read
from lcm_ml.frames.touches import with_outcomes
from lcm_ml.warehouse.state import settings

DAYS_BEFORE = 84


def sent_actions(con: duckdb.DuckDBPyConnection, as_of: date, window_days: int, horizon_days: int) -> pl.DataFrame:
    """Recorded actions whose horizon was over by `as_of` and began within the window before that.

    Args:
        con: an open connection to a built warehouse.
        as_of: only what happened strictly before it is known.
        window_days: actions from so many days before the newest that count.
        horizon_days: outcomes within so many days of the contact.

    Returns:
        The columns of ml.actions_sent that tell what was decided, sent_date, spend, orders and is_purchased (in the
        horizon), and spend_before (of the 84 days before the contact, base currency). Sorted by campaign and user.
    """
    sent = read(
        con,
        f"""
        with sent as (
            select
                campaign_id, user_id, arm, rule_id, offer, channel, stage, uplift_segment, churn_probability,
                value_decile, expected_profit, contact_cost, discount_share, {SENT_DATE} as sent_date
            from ml.actions_sent
        ),

        over as (
            select * from sent where sent_date + $horizon <= $as_of
        )

        select * from over
        where sent_date > (select max(sent_date) from over) - $window
        order by campaign_id, user_id
        """,
        {"as_of": as_of, "window": window_days, "horizon": horizon_days, "zone": settings(con)["shop_timezone"]},
    )
    keyed = sent.select("campaign_id", "user_id", touched_date="sent_date", responded_date=pl.lit(None, pl.Date))
    after = with_outcomes(con, keyed, as_of, horizon_days)
    earlier = keyed.with_columns(pl.col("touched_date") - timedelta(days=DAYS_BEFORE))
    before = with_outcomes(con, earlier, as_of, DAYS_BEFORE)
    return sent.join(
        after.select("campaign_id", "user_id", "spend", "orders", "is_purchased"),
        on=["campaign_id", "user_id"],
        how="left",
        maintain_order="left",
    ).join(
        before.select("campaign_id", "user_id", spend_before="spend"),
        on=["campaign_id", "user_id"],
        how="left",
        maintain_order="left",
    )
