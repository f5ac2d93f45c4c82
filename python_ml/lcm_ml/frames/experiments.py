"""Who may take part in an experiment, who got what, and what each of them did before and after."""

from collections.abc import Sequence
from datetime import date, datetime

import duckdb
import polars as pl

from lcm_ml.decisions.experiments.analysis import Look
from lcm_ml.decisions.experiments.assignment import SEPARATOR
from lcm_ml.decisions.experiments.design import Experiment, from_row
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import built_settings, read, scoring_date
from lcm_ml.warehouse.connection import first_row, rows, table_exists

STRATA = ("stage", "value_band", "activity_band", "country", "acquisition_channel")
ARRIVAL_WEEKS = 8


def eligible_users(
    con: duckdb.DuckDBPyConnection, as_of: date, stages: Sequence[str] = (), needs_consent: bool = False
) -> pl.DataFrame:
    """Users that could take part at an as_of_date, sorted by user_id.

    Those with an event in the active window, or, where stages are named, all users in one of them; without suspected
    bots. The bands are thirds by what was known then.

    Returns:
        user_id, STRATA, is_new (came, or came into its stage, within ARRIVAL_WEEKS weeks).
    """
    return read(
        con,
        """
        with seen as (
            select
                stages.user_id,
                stages.stage,
                coalesce(features.amount_84d, 0) as amount,
                coalesce(features.active_days_84d, 0) as active_days,
                coalesce(accounts.country, 'unknown') as country,
                coalesce(accounts.acquisition_channel, 'unknown') as acquisition_channel,
                case when len($stages) > 0 then stages.stage_since_date else stages.first_seen_date end
                    >= $as_of - $arrival_days as is_new
            from marts.user_lifecycle as stages
            left join marts.user_features as features
                on features.user_id = stages.user_id and features.as_of_date = stages.as_of_date
            left join staging.stg_users as accounts on accounts.user_id = stages.user_id
            where
                stages.as_of_date = $as_of
                and case when len($stages) > 0 then stages.stage in $stages else features.user_id is not null end
                and not coalesce(features.is_suspected_bot, false)
                and (coalesce(accounts.marketing_consent, false) or not $needs_consent)
        )

        select
            user_id,
            stage,
            case when amount <= 0 then 'none' else
                ['low', 'middle', 'high'][ntile(3) over (partition by amount > 0 order by amount, user_id)] end
                as value_band,
            case when active_days = 0 then 'none' else
                ['low', 'middle', 'high'][
                    ntile(3) over (partition by active_days > 0 order by active_days, user_id)
                ] end as activity_band,
            country,
            acquisition_channel,
            is_new
        from seen
        order by user_id
        """,
        {
            "as_of": as_of,
            "stages": list(stages),
            "needs_consent": needs_consent,
            "arrival_days": 7 * ARRIVAL_WEEKS,
        },
    )


def with_stratum(users: pl.DataFrame, strata: Sequence[str]) -> pl.DataFrame:
    """user_id and stratum: the users' levels of `strata` in one text."""
    levels = [
        pl.col(name).cast(pl.String).fill_null("unknown").str.replace_all("|", "/", literal=True) for name in strata
    ]
    text = pl.concat_str(levels, separator=SEPARATOR) if levels else pl.lit("all")
    return users.select("user_id", stratum=text)


def traffic(con: duckdb.DuckDBPyConnection, as_of: date, users: pl.DataFrame) -> tuple[float, float]:
    """How many of the users come in a day and in a week: means over the four weeks before `as_of`."""
    con.register("asked_users", users.select("user_id").to_arrow())
    try:
        found = first_row(
            con,
            """
            with visits as (
                select distinct events.user_id, events.event_date, date_diff('day', events.event_date, ?) as ago
                from marts.shop_events as events
                inner join asked_users on asked_users.user_id = coalesce(events.linked_user_id, events.user_id)
                where events.event_date < ? and events.event_date >= ? - 28
            )

            select count(*) / 28, count(distinct (user_id, (ago - 1) // 7)) / 4 from visits
            """,
            [as_of, as_of, as_of],
        )
    finally:
        con.unregister("asked_users")
    return (float(found[0]), float(found[1])) if found else (0.0, 0.0)


def measured_date(con: duckdb.DuckDBPyConnection, as_of: date, window_days: int) -> date | None:
    """The newest as_of_date whose window of so many days is over by `as_of`; None where there is none."""
    found = first_row(
        con, "select max(as_of_date) from marts.as_of_dates where as_of_date + ? <= ?", [window_days, as_of]
    )
    return found[0] if found else None


def midnight(con: duckdb.DuckDBPyConnection, day: date) -> datetime:
    """The start of a shop day in UTC."""
    zone = str(built_settings(con)["shop_timezone"])
    found = first_row(con, "select cast(timezone(?, cast(? as timestamp)) as timestamp)", [zone, day])
    assert found is not None
    start: datetime = found[0]
    return start


def user_days(
    con: duckdb.DuckDBPyConnection, users: pl.DataFrame, as_of: date, window_days: int, pre_days: int
) -> pl.DataFrame:
    """What users did around their assignment, strictly before `as_of`.

    A day is 24 hours from the user's assignment on: day 0 holds what came strictly after it, day -1 what came before. A
    visitor's events count for the user that it was linked to by the assignment; what is linked later changes nobody.

    Args:
        con: an open connection to a built warehouse.
        users: user_id, assigned_on (shop day), assigned_at (UTC).
        as_of: the as_of_date.
        window_days: days after the assignment.
        pre_days: days before.

    Returns:
        user_id, day, event_date and the columns of decisions.experiments.metrics.COUNTS; amount is in base currency,
        less refunds.
    """
    con.register("members", users.select("user_id", "assigned_on", "assigned_at").to_arrow())
    try:
        return read(
            con,
            """
            with mine as (
                select members.user_id, members.assigned_at, events.* exclude (user_id)
                from marts.shop_events as events
                inner join members on members.user_id = events.user_id
                where not coalesce(events.linked_date < members.assigned_on, false)
                union all
                select members.user_id, members.assigned_at, events.* exclude (user_id)
                from marts.shop_events as events
                inner join members
                    on members.user_id = events.linked_user_id and events.linked_date < members.assigned_on
            ),

            behaviour as (
                select
                    user_id,
                    event_date,
                    cast(ceil((epoch_us(event_time) - epoch_us(assigned_at)) / 86400e6) as integer) - 1 as day,
                    count(distinct order_key) filter (where event_type = 'purchase') as orders,
                    coalesce(sum(amount) filter (where event_type in ('purchase', 'refund')), 0) as amount,
                    count(*) filter (where event_type = 'refund') as refunds,
                    count(*) filter (where event_type = 'view') as views,
                    count(*) filter (where event_type = 'cart') as carts,
                    count(distinct session_key) as sessions,
                    count(*) filter (where event_type = 'support') as tickets,
                    0 as contacts,
                    0 as responses
                from mine
                where event_date < $as_of
                group by all
            ),

            touches as (
                select
                    members.user_id, touched.touched_date as event_date, touched.touched_at as happened_at,
                    members.assigned_at, 1 as contacts, 0 as responses
                from staging.stg_campaign_touches as touched
                inner join members on members.user_id = touched.user_id
                where touched.touched_date < $as_of and touched.arm != 'control'
                union all
                select
                    members.user_id, touched.responded_date as event_date, touched.responded_at as happened_at,
                    members.assigned_at, 0 as contacts, 1 as responses
                from staging.stg_campaign_touches as touched
                inner join members on members.user_id = touched.user_id
                where touched.responded_date < $as_of and touched.arm != 'control'
            ),

            answers as (
                select
                    user_id,
                    event_date,
                    cast(ceil((epoch_us(happened_at) - epoch_us(assigned_at)) / 86400e6) as integer) - 1 as day,
                    0 as orders, 0 as amount, 0 as refunds, 0 as views, 0 as carts, 0 as sessions, 0 as tickets,
                    sum(contacts) as contacts,
                    sum(responses) as responses
                from touches
                group by all
            )

            select
                user_id, day, event_date,
                sum(orders)::double as orders, sum(amount)::double as amount, sum(refunds)::double as refunds,
                sum(views)::double as views, sum(carts)::double as carts, sum(sessions)::double as sessions,
                sum(tickets)::double as tickets, sum(contacts)::double as contacts, sum(responses)::double as responses
            from (select * from behaviour union all by name select * from answers)
            where day between -$pre_days and $window_days - 1
            group by all
            order by all
            """,
            {"as_of": as_of, "window_days": window_days, "pre_days": pre_days},
        )
    finally:
        con.unregister("members")


def experiments(con: duckdb.DuckDBPyConnection) -> list[Experiment]:
    """All experiments, the oldest design first."""
    if not table_exists(con, "ml", "experiments"):
        return []
    return [from_row(row) for row in rows(con, "select * from ml.experiments order by as_of_date, experiment_id")]


def find_experiment(con: duckdb.DuckDBPyConnection, experiment_id: str) -> Experiment:
    """The experiment of this id.

    Raises:
        UsageError: when there is none.
    """
    known = experiments(con)
    for experiment in known:
        if experiment.experiment_id == experiment_id:
            return experiment
    names = ", ".join(experiment.experiment_id for experiment in known if experiment.kind == "experiment") or "none"
    raise UsageError(f"there is no experiment {experiment_id!r}: there are {names}", "`lcm-ml experiment design` it")


def assigned(con: duckdb.DuckDBPyConnection, experiment_id: str) -> pl.DataFrame:
    """Who has an arm, sorted by user_id: user_id, arm, stratum, place, method, assigned_on, assigned_at."""
    return read(
        con,
        """
        select user_id, arm, stratum, place, method, as_of_date as assigned_on, assigned_at
        from ml.experiment_assignments
        where experiment_id = $id
        order by user_id
        """,
        {"id": experiment_id},
    )


def taken_users(con: duckdb.DuckDBPyConnection, experiment: Experiment) -> pl.DataFrame:
    """user_id of those in another running experiment of the same layer."""
    return read(
        con,
        """
        select distinct assignments.user_id
        from ml.experiment_assignments as assignments
        inner join ml.experiments as others on others.experiment_id = assignments.experiment_id
        where others.status = 'running' and others.layer = $layer and others.experiment_id != $id
        """,
        {"layer": experiment.layer, "id": experiment.experiment_id},
    )


def looks_so_far(con: duckdb.DuckDBPyConnection, experiment_id: str) -> list[Look]:
    """The looks that were taken at an experiment, oldest first."""
    found = con.execute(
        """
        select distinct as_of_date, information_fraction
        from ml.experiment_results
        where experiment_id = ? and look is not null
        order by 1
        """,
        [experiment_id],
    ).fetchall()
    return [Look(day, fraction) for day, fraction in found]


def touched_users(con: duckdb.DuckDBPyConnection, campaign_id: str, as_of: date, window_days: int) -> pl.DataFrame:
    """A campaign's touches as an assignment: each user's first one, where its window is over by `as_of`.

    Returns:
        user_id, arm, stratum (the stage at the newest as_of_date by then), assigned_on, assigned_at (the touch).

    Raises:
        LcmError: when there are none, or not of both arms.
    """
    found = read(
        con,
        """
        with first_touches as (
            select user_id, arm, touched_date, touched_at
            from staging.stg_campaign_touches
            where campaign_id = $campaign and touched_date + $window_days < $as_of
            qualify row_number() over (partition by user_id order by touched_at, arm) = 1
        )

        select
            touches.user_id,
            touches.arm,
            coalesce(stages.stage, 'unknown') as stratum,
            touches.touched_date as assigned_on,
            touches.touched_at as assigned_at
        from first_touches as touches
        asof left join marts.user_lifecycle as stages
            on stages.user_id = touches.user_id and stages.as_of_date <= touches.touched_date
        order by touches.user_id
        """,
        {"campaign": campaign_id, "window_days": window_days, "as_of": as_of},
    )
    if set(found["arm"].unique()) != {"treatment", "control"}:
        arms = ", ".join(sorted(found["arm"].unique())) or "no arm"
        raise LcmError(
            f"campaign {campaign_id} has {arms} among the touches whose {window_days} days are over by {as_of}; a "
            "comparison needs treatment and control",
            "take a campaign with a control arm (`select distinct campaign_id, arm from raw.campaign_touches`), or a "
            "later --as-of",
        )
    return found


def analysis_date(con: duckdb.DuckDBPyConnection, as_of: date | None) -> date:
    """`as_of`, or the scoring date; outcomes are known up to there, so any day before it will do.

    Raises:
        UsageError: when it lies beyond the data.
    """
    last = scoring_date(con)
    if as_of is not None and as_of > last:
        raise UsageError(f"{as_of} lies beyond the data, which ends at {last}", "take an earlier --as-of")
    return as_of or last
