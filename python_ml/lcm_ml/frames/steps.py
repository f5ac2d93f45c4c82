"""Steps that users took, in order: within sessions, between purchases, and before something that came or did not."""

from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.events import USER_AT
from lcm_ml.frames.frame import read

LAST_STEPS = 12
"""Steps of a user that a cohort's sequences are looked for in."""
LANDMARK_DAYS = 7
"""Days after a first purchase whose steps count, and in which a second one takes a user out of the comparison."""
LABELLED_DATES = 6

GAP_BANDS = ("1-7 days", "8-14 days", "15-28 days", "29-56 days", "57+ days")
GAP_BAND = """case
            when gap <= 7 then '1-7 days'
            when gap <= 14 then '8-14 days'
            when gap <= 28 then '15-28 days'
            when gap <= 56 then '29-56 days'
            else '57+ days'
        end"""


def session_steps(con: duckdb.DuckDBPyConnection, as_of: date, since: date) -> pl.DataFrame:
    """Steps in sessions from `since` on, strictly before `as_of`: a run of events of one type is one step.

    Users that were suspected bots at `as_of` are left out: their sessions are many and nobody's path.

    Returns:
        trail (a session of a user), user, state (the event type), started_at and channel, in the order of trail and
        time.
    """
    return read(
        con,
        f"""
        with seen as (
            select {USER_AT} as user_id, session_key, event_time, event_id, event_type, channel
            from marts.shop_events
            where event_date >= $since and event_date < $as_of
        ),

        bots as (
            select user_id from marts.user_features where as_of_date = $as_of and is_suspected_bot
        ),

        runs as (
            select
                *,
                lag(event_type) over (partition by user_id, session_key order by event_time, event_id) as before
            from seen
            anti join bots using (user_id)
        )

        select
            hash(user_id, session_key) as trail,
            hash(user_id) as user,
            event_type as state,
            event_time as started_at,
            channel
        from runs
        where before is distinct from event_type
        order by trail, event_time, event_id
        """,
        {"as_of": as_of, "since": since},
    )


def gap_steps(con: duckdb.DuckDBPyConnection, as_of: date, since: date) -> pl.DataFrame:
    """Gaps between days of purchase, from `since` on: what a shop without clicks knows of a user's way.

    Returns:
        As session_steps; a trail is a user, a state one of GAP_BANDS, at the day the gap ended.
    """
    return read(
        con,
        f"""
        with days as (
            select distinct {USER_AT} as user_id, event_date
            from marts.shop_events
            where event_type = 'purchase' and event_date < $as_of
        ),

        gaps as (
            select
                user_id,
                event_date,
                event_date - lag(event_date) over (partition by user_id order by event_date) as gap
            from days
        ),

        banded as (
            select user_id, event_date, {GAP_BAND} as state
            from gaps
            where gap is not null and event_date >= $since
        )

        select
            hash(user_id) as trail,
            hash(user_id) as user,
            state,
            cast(event_date as timestamp) as started_at,
            cast(null as varchar) as channel
        from banded
        qualify state is distinct from lag(state) over (partition by user_id order by event_date)
        order by trail, started_at
        """,
        {"as_of": as_of, "since": since},
    )


def churn_cohort(con: duckdb.DuckDBPyConnection, as_of: date, days: int, horizon_days: int) -> pl.DataFrame:
    """Users of the last LABELLED_DATES dates whose label was known by `as_of`, each user at one of its dates.

    One date a user, drawn by a hash, so that nobody counts twice and users with a short history are not preferred.

    Returns:
        subject (0, 1, 2 ...), user_id, from_day and until_day (exclusive) of the steps, outcome (it churned).
    """
    return read(
        con,
        """
        with labelled as (
            select user_id, as_of_date, is_churned
            from marts.user_churn_labels
            where horizon_days = $horizon and as_of_date + horizon_days <= $as_of
            qualify dense_rank() over (order by as_of_date desc) <= $dates
        ),

        drawn as (
            select *
            from labelled
            qualify row_number() over (partition by user_id order by md5(user_id || as_of_date)) = 1
        )

        select
            row_number() over (order by user_id) - 1 as subject,
            user_id,
            as_of_date - cast($days as integer) as from_day,
            as_of_date as until_day,
            is_churned as outcome
        from drawn
        order by subject
        """,
        {"as_of": as_of, "days": days, "horizon": horizon_days, "dates": LABELLED_DATES},
    )


def second_purchase_cohort(con: duckdb.DuckDBPyConnection, as_of: date, days: int, horizon_days: int) -> pl.DataFrame:
    """First-time buyers of a window of `days`, and whether they bought again within the horizon.

    Steps up to LANDMARK_DAYS after the first purchase count, and only users who had not bought again by then: else
    those who soon came back would have had less time for steps (the landmark method of Anderson and others 1983).

    Returns:
        As churn_cohort; outcome: a second day of purchase within the horizon. Purchases that are the first ones since
        the data began may follow others that nobody recorded, so the first `days` of the data are left out.
    """
    return read(
        con,
        f"""
        with bought as (
            select distinct
                {USER_AT} as user_id,
                purchase_date
            from marts.purchase_days
            where purchase_date < $as_of
        ),

        ranked as (
            select
                user_id,
                purchase_date as first_date,
                lead(purchase_date) over (partition by user_id order by purchase_date) as second_date,
                min(purchase_date) over () as data_begin
            from bought
            qualify row_number() over (partition by user_id order by purchase_date) = 1
        )

        select
            row_number() over (order by user_id) - 1 as subject,
            user_id,
            first_date - cast($days as integer) as from_day,
            first_date + cast($landmark as integer) as until_day,
            coalesce(second_date < first_date + cast($horizon as integer), false) as outcome
        from ranked
        where first_date + cast($horizon as integer) <= $as_of
            and first_date >= $as_of - cast($horizon + $days as integer)
            and first_date >= data_begin + cast($days as integer)
            and (second_date is null or second_date >= first_date + cast($landmark as integer))
        order by subject
        """,
        {"as_of": as_of, "days": days, "horizon": horizon_days, "landmark": LANDMARK_DAYS},
    )


MATCHED = """
    matched as (
        select people.subject, people.until_day, events.*
        from people
        inner join marts.shop_events as events on people.user_id = events.user_id
        where events.event_date >= people.from_day and events.event_date < people.until_day
            and (events.linked_date is null or events.linked_date >= people.until_day)
        union all
        select people.subject, people.until_day, events.*
        from people
        inner join marts.shop_events as events on people.user_id = events.linked_user_id
        where events.event_date >= people.from_day and events.event_date < people.until_day
            and events.linked_date < people.until_day
    )"""
STEPS_OF = {
    "event": """
        select subject, event_type as state, event_time as step_time, event_id as tie
        from matched
        qualify event_type is distinct from
            lag(event_type) over (partition by subject, session_key order by event_time, event_id)
    """,
    "category": """
        select subject, arg_max(category, (spent, category)) as state, min(step_time) as step_time, order_key as tie
        from (
            select subject, order_key, category, sum(amount) as spent, min(event_time) as step_time
            from matched
            where event_type = 'purchase' and category is not null
            group by subject, order_key, category
        )
        group by subject, order_key
    """,
    "gap": f"""
        select subject, if(is_open, 'silent ', '') || {GAP_BAND} as state, cast(event_date as timestamp) as step_time,
            is_open as tie
        from (
            select
                subject,
                event_date,
                event_date - lag(event_date) over (partition by subject order by event_date) as gap,
                false as is_open
            from (select distinct subject, event_date from matched where event_type = 'purchase')
            union all
            select
                subject,
                max(event_date) as event_date,
                any_value(until_day) - max(event_date) as gap,
                true as is_open
            from matched
            where event_type = 'purchase'
            group by subject
        )
        where gap is not null
    """,
}


def steps_before(con: duckdb.DuckDBPyConnection, cohort: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The last LAST_STEPS steps of each subject within its window.

    Args:
        con: an open connection to a built warehouse.
        cohort: as from churn_cohort; a visitor counts as the user it was known to be at until_day.
        kind: event (a run of events of one type in a session), category (that with most money, of each order) or gap
            (between days of purchase, and last the time of silence up to until_day).

    Returns:
        subject, position (1 is the oldest) and state; subjects without a step are not in it.
    """
    con.register("people", cohort.to_arrow())
    try:
        return read(
            con,
            f"""
            with {MATCHED},

            steps as ({STEPS_OF[kind]})

            select
                subject,
                row_number() over (partition by subject order by step_time, tie) as position,
                state
            from steps
            qualify row_number() over (partition by subject order by step_time desc, tie desc) <= $last
            order by subject, position
            """,
            {"last": LAST_STEPS},
        )
    finally:
        con.unregister("people")
