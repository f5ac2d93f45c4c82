"""Where users stand, how they move, and who comes back."""

import duckdb
import polars as pl

from lcm_ml.frames.frame import STAGES
from lcm_ml.reporting import charts_lifecycle
from lcm_ml.reporting.sankey import Flow, sankey
from lcm_ml.reporting.section import Figure, MakeSection, Section, Table, count, listed, plural, rows_of, share
from lcm_ml.warehouse.state import settings

BUILD = "dbt build"
FLOW_DATES = 4
COHORTS, PERIODS = 13, 12
ALL = "(all)"


def stages_now(con: duckdb.DuckDBPyConnection) -> Section:
    """How many users stand in each stage on the scoring date, and a step before."""
    rows = rows_of(
        con,
        "marts.lifecycle_transitions",
        """
        with dates as (
            select as_of_date, row_number() over (order by as_of_date desc) as back
            from (select distinct as_of_date from marts.lifecycle_transitions)
        )

        select
            to_stage as stage,
            coalesce(sum(users) filter (where back = 1), 0) as users,
            coalesce(sum(users) filter (where back = 2), 0) as before,
            max(as_of_date) filter (where back = 2) as before_date,
            count(distinct back) as n_dates
        from marts.lifecycle_transitions
        inner join dates using (as_of_date)
        where back <= 2
        group by to_stage
        """,
    )
    title = "Users per lifecycle stage"
    text = "Every user seen so far is in exactly one stage; the cut-offs follow each user's own rhythm of buying."
    if rows.is_empty():
        return Section("stages", title, text, filled_by=BUILD)
    total, before = rows["users"].sum(), rows["before"].sum()
    known = {row["stage"]: row for row in rows.to_dicts()}
    ordered = [stage for stage in STAGES if stage in known] + sorted(set(known) - set(STAGES))
    cells = tuple(
        (
            stage,
            count(known[stage]["users"]),
            share(known[stage]["users"] / total),
            f"{100 * (known[stage]['users'] / total - known[stage]['before'] / before):+.1f}" if before else "-",
        )
        for stage in ordered
    )
    since = next((row["before_date"] for row in known.values() if row["before_date"]), None)
    headers = ("stage", "users", "share", f"points since {since}" if since else "change")
    return Section("stages", title, text, table=Table(title, headers, cells))


def stage_mix(con: duckdb.DuckDBPyConnection) -> Section:
    """Shares of the stages, week by week."""
    weekly = rows_of(
        con, "marts.lifecycle_weekly", "select as_of_date, stage, users from marts.lifecycle_weekly order by 1, 2"
    )
    title = "Stages over time"
    text = "Share of all users seen so far in each stage, week by week. A widening band at the top is a loss."
    if weekly.is_empty():
        return Section("stage-mix", title, text, filled_by=BUILD)
    shares = weekly.with_columns(share=pl.col("users") / pl.col("users").sum().over("as_of_date"))
    dates = weekly["as_of_date"].unique().sort(descending=True).to_list()
    first, last = dates[-1], dates[0]
    ends = {
        day: {row["stage"]: row["share"] for row in shares.filter(pl.col("as_of_date") == day).to_dicts()}
        for day in (first, last)
    }
    told = [
        f"{stage} {share(ends[first].get(stage, 0), 0)} to {share(ends[last].get(stage, 0), 0)}"
        for stage in STAGES
        if stage in ends[first] or stage in ends[last]
    ]
    table = Table(
        "Users per week and stage",
        ("week", *STAGES),
        tuple(_week(weekly, day) for day in dates),
    )
    says = f"From {first} to {last}: {listed(told)}."
    return Section("stage-mix", title, text, (Figure(charts_lifecycle.stage_mix(weekly), says, table),))


def _week(weekly: pl.DataFrame, day: object) -> tuple[str, ...]:
    users = {row["stage"]: row["users"] for row in weekly.filter(pl.col("as_of_date") == day).to_dicts()}
    return (str(day), *(count(users.get(stage, 0)) for stage in STAGES))


def flow(con: duckdb.DuckDBPyConnection) -> Section:
    """Who went from which stage to which between the last dates of the grid."""
    rows = rows_of(
        con,
        "marts.lifecycle_transitions",
        """
        select moves.as_of_date, moves.from_stage, moves.to_stage, moves.users
        from marts.lifecycle_transitions as moves
        inner join marts.as_of_dates as dates on moves.as_of_date = dates.as_of_date
        where dates.is_on_grid
        order by 1, 2, 3
        """,
    )
    title = "Flow between stages"
    text = (
        "Each column is a date, each block a stage, each ribbon the users who went from one to the next. Ribbons of "
        "users who stayed are grey, the others have the colour of the stage they went to."
    )
    dates = rows["as_of_date"].unique().sort().to_list() if rows.height else []
    if len(dates) < 2:
        return Section("flow", title, text, filled_by=BUILD, once="the data reaches over two dates of the grid")
    shown = dates[-FLOW_DATES:]
    moves = rows.filter(pl.col("as_of_date").is_in(shown[1:]))
    flows = [
        Flow(shown.index(row["as_of_date"]) - 1, row["from_stage"], row["to_stage"], row["users"])
        for row in moves.to_dicts()
    ]
    changed = moves.filter(pl.col("from_stage") != pl.col("to_stage")).sort(
        "as_of_date", "users", "from_stage", "to_stage", descending=[True, True, False, False]
    )
    table = Table(
        "Users who changed stage",
        ("from", "to", "at date", "users"),
        tuple((r["from_stage"], r["to_stage"], str(r["as_of_date"]), count(r["users"])) for r in changed.to_dicts()),
        labels=3,
    )
    newest = changed.filter(pl.col("as_of_date") == shown[-1]).head(4).to_dicts()
    told = [f"{row['from_stage']} to {row['to_stage']} ({row['users']:,})" for row in newest]
    says = (
        f"The largest moves from {shown[-2]} to {shown[-1]}: {listed(told)}."
        if told
        else f"Nobody changed stage from {shown[-2]} to {shown[-1]}."
    )
    drawing = sankey([str(day) for day in shown], flows)
    return Section("flow", title, text, (Figure(drawing, says, table),))


def cohorts(con: duckdb.DuckDBPyConnection) -> Section:
    """Of the users who came together, how many still buy: by month, and by what brought them."""
    known = settings(con)
    step = int(known["as_of_step_days"])
    rows = rows_of(
        con,
        "marts.cohort_retention",
        """
        select acquisition_channel, cohort_month, period, cohort_users, buyers, retention
        from marts.cohort_retention where period > 0 order by 1, 2, 3
        """,
    )
    title = "Cohort retention"
    text = (
        "Each row is the users with their first purchase in a month; each tile the share of them, in percent, with a "
        f"purchase in that period of {step} days after their own first one. Periods that are not over yet for the "
        "whole cohort are left out. The first cohorts of the data hold customers from before it began."
    )
    if rows.is_empty():
        return Section("cohorts", title, text, filled_by=BUILD, once="a cohort is old enough")
    figures = [_by_month(rows.filter(pl.col("acquisition_channel") == ALL), step)]
    channels = _pooled(rows, int(known["min_group_size"]))
    if channels.height:
        figures.append(_by_channel(channels, step))
    return Section("cohorts", title, text, tuple(figures))


def _by_month(rows: pl.DataFrame, step: int) -> Figure:
    shown = rows["cohort_month"].unique().sort().to_list()[-COHORTS:]
    cells = rows.filter(pl.col("cohort_month").is_in(shown), pl.col("period") <= PERIODS).with_columns(
        cohort=pl.format("{} ({})", pl.col("cohort_month").dt.strftime("%Y-%m"), pl.col("cohort_users"))
    )
    first = cells.filter(pl.col("period") == 1)
    average = int(first["buyers"].sum()) / int(first["cohort_users"].sum())
    newest = first.sort("cohort_month").row(-1, named=True)
    says = (
        f"{share(average, 0)} of the users of these cohorts bought again in days {step} to {2 * step - 1} after their "
        f"first purchase; of the newest cohort ({newest['cohort_month']:%Y-%m}, "
        f"{plural(newest['cohort_users'], 'user')}) {share(newest['retention'], 0)}."
    )
    sizes = dict(cells.select("cohort_month", "cohort_users").unique().iter_rows())
    table = _retention_table(
        "Share with a purchase by cohort and period",
        "cohort",
        {f"{day:%Y-%m}": (sizes[day], cells.filter(pl.col("cohort_month") == day)) for day in shown},
    )
    drawing = charts_lifecycle.retention(cells.select("cohort", "period", "retention"), step)
    return Figure(drawing, says, table, "By month of the first purchase")


def _pooled(rows: pl.DataFrame, smallest: int) -> pl.DataFrame:
    """The cohorts of a channel that have a period behind them together; without few users, who tell little."""
    return (
        rows.filter(pl.col("acquisition_channel") != ALL, pl.col("period") <= PERIODS)
        .group_by("acquisition_channel", "period")
        .agg(pl.col("cohort_users", "buyers").sum())
        .filter(pl.col("cohort_users") >= smallest)
        .with_columns(retention=pl.col("buyers") / pl.col("cohort_users"))
        .sort("acquisition_channel", "period")
    )


def _by_channel(pooled: pl.DataFrame, step: int) -> Figure:
    sizes = dict(pooled.filter(pl.col("period") == 1).select("acquisition_channel", "cohort_users").iter_rows())
    cells = pooled.with_columns(
        cohort=pl.format("{} ({})", pl.col("acquisition_channel"), pl.col("acquisition_channel").replace_strict(sizes))
    )
    first = cells.filter(pl.col("period") == 1).sort("retention", "acquisition_channel", descending=True).to_dicts()
    best, worst = first[0], first[-1]
    says = (
        f"In days {step} to {2 * step - 1} after their first purchase {share(best['retention'], 0)} of the users who "
        f"came by {best['acquisition_channel']} bought again, {share(worst['retention'], 0)} of those by "
        f"{worst['acquisition_channel']}."
    )
    table = _retention_table(
        "Share with a purchase by channel and period",
        "acquisition channel",
        {name: (sizes[name], cells.filter(pl.col("acquisition_channel") == name)) for name in sorted(sizes)},
    )
    drawing = charts_lifecycle.retention(cells.select("cohort", "period", "retention"), step)
    return Figure(drawing, says, table, "By acquisition channel")


def _retention_table(caption: str, header: str, cohorts_of: dict[str, tuple[int, pl.DataFrame]]) -> Table:
    periods = sorted({period for _, cells in cohorts_of.values() for period in cells["period"].to_list()})
    rows = []
    for name, (size, cells) in cohorts_of.items():
        known = dict(cells.select("period", "retention").iter_rows())
        rows.append((name, count(size), *(share(known.get(period), 0) for period in periods)))
    return Table(caption, (header, "users", *(f"period {period}" for period in periods)), tuple(rows))


SECTIONS: tuple[MakeSection, ...] = (stages_now, stage_mix, flow, cohorts)
