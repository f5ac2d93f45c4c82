"""Ways through the shop: funnels, the most frequent paths, and what follows what."""

from collections.abc import Mapping, Sequence

import polars as pl

from lcm_ml.insights.intervals import wilson

FUNNEL = ("view", "cart", "purchase")
EVERYWHERE, UNKNOWN = "(all)", "(unknown)"
START, END = "(start)", "(end)"
TOLD_STEPS = 8
"""Of a path; what comes after is told as one ..."""
MORE = "..."
PURCHASE = "purchase"

FUNNELS = {
    "channel": pl.String,
    "step": pl.Int32,
    "event_type": pl.String,
    "sessions": pl.Int64,
    "users": pl.Int64,
    "sessions_with_type": pl.Int64,
    "share_of_first": pl.Float64,
    "share_of_previous": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "drop_off": pl.Float64,
    "median_seconds": pl.Float64,
    "p90_seconds": pl.Float64,
}
PATHS = {
    "path": pl.String,
    "steps": pl.Int32,
    "path_rank": pl.Int32,
    "trails": pl.Int64,
    "users": pl.Int64,
    "share": pl.Float64,
    "ends_in_purchase": pl.Boolean,
    "purchase_share": pl.Float64,
}
TRANSITIONS = {
    "from_state": pl.String,
    "to_state": pl.String,
    "transitions": pl.Int64,
    "probability": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "median_seconds": pl.Float64,
}


def _shaped(rows: pl.DataFrame, schema: Mapping[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    return rows.select(pl.col(name).cast(kind) for name, kind in schema.items())


def has_clicks(steps: pl.DataFrame) -> bool:
    """Whether sessions are ways: at least one in a hundred has steps of more than one kind."""
    if steps.is_empty():
        return False
    several = steps.group_by("trail").agg(pl.col("state").n_unique() > 1)["state"].mean()
    return float(several or 0) >= 0.01  # type: ignore[arg-type]


def funnels(steps: pl.DataFrame, types: Sequence[str] = FUNNEL) -> pl.DataFrame:
    """Sessions that took each step after the one before it, over all channels and by channel.

    A session takes a step with its first event of the type that comes with or after the step before. Its channel is
    that of its first event that has one.

    Args:
        steps: trail, user, state, started_at and channel, in the order of trail and time.
        types: of events, first to last.

    Returns:
        Columns FUNNELS; channels from the most sessions to the fewest after EVERYWHERE.
    """
    if steps.is_empty():
        return pl.DataFrame(schema=FUNNELS)
    channels = steps.group_by("trail").agg(pl.col("channel").drop_nulls().first().fill_null(UNKNOWN))
    taken = _everywhere_too(pl.concat(_taken(steps, types)).join(channels, on="trail"))
    with_type = _everywhere_too(
        steps.filter(pl.col("state").is_in(list(types))).select("trail", "state").unique().join(channels, on="trail")
    )
    grid = (
        _everywhere_too(channels)
        .group_by("channel")
        .agg(every=pl.len())
        .join(pl.DataFrame({"step": range(1, len(types) + 1), "event_type": types}), how="cross")
    )
    counted = taken.group_by("channel", "step").agg(
        sessions=pl.len(),
        users=pl.col("user").n_unique(),
        median_seconds=pl.col("seconds").median(),
        p90_seconds=pl.col("seconds").quantile(0.9, "linear"),
    )
    rows = (
        grid.join(counted, on=["channel", "step"], how="left")
        .join(
            with_type.group_by("channel", event_type="state").agg(sessions_with_type=pl.len()),
            on=["channel", "event_type"],
            how="left",
        )
        .with_columns(pl.col("sessions", "users", "sessions_with_type").fill_null(0))
        .sort(pl.col("channel") != EVERYWHERE, -pl.col("every").cast(pl.Int64), "channel", "step")
    )
    previous = pl.col("sessions").shift(1).over("channel")
    rows = rows.with_columns(
        previous=previous,
        share_of_first=_ratio("sessions", pl.col("sessions").first().over("channel")),
        share_of_previous=_ratio("sessions", previous),
    ).with_columns(drop_off=1 - pl.col("share_of_previous"))
    return _shaped(_with_interval(rows, "sessions", "previous"), FUNNELS)


def _taken(steps: pl.DataFrame, types: Sequence[str]) -> list[pl.DataFrame]:
    """For each step the sessions that took it: trail, user, at, seconds since the step before, step."""
    reached: list[pl.DataFrame] = []
    for step, event_type in enumerate(types, start=1):
        events = steps.filter(pl.col("state") == event_type).select("trail", "user", at="started_at")
        if reached:
            events = events.join(reached[-1].select("trail", since="at"), on="trail").filter(
                pl.col("at") >= pl.col("since")
            )
        else:
            events = events.with_columns(since=pl.lit(None, events.schema["at"]))
        firsts = events.group_by("trail").agg(pl.col("user", "since").first(), pl.col("at").min())
        reached.append(
            firsts.select(
                "trail",
                "user",
                "at",
                seconds=(pl.col("at") - pl.col("since")).dt.total_microseconds() / 1e6,
                step=pl.lit(step, pl.Int64),
            )
        )
    return reached


def _everywhere_too(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([rows, rows.with_columns(channel=pl.lit(EVERYWHERE))])


def _ratio(part: str, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(pl.col(part) / whole)


def _with_interval(rows: pl.DataFrame, hits: str, n: str) -> pl.DataFrame:
    """Add ci_low and ci_high of hits / n; null where n is 0 or null."""
    of = pl.when(pl.col(n) > 0).then(pl.col(n).cast(pl.Float64))
    low, high = wilson(pl.col(hits) / of, of)
    return rows.with_columns(ci_low=low, ci_high=high)


def frequent_paths(
    steps: pl.DataFrame, most: int = 100, purchases: bool = True, told: int = TOLD_STEPS
) -> pl.DataFrame:
    """The most frequent trails, repeats told once.

    Args:
        steps: trail, user and state, in the order of trail and time; no state follows itself.
        most: paths to tell.
        purchases: whether states are event types, of which one is a purchase.
        told: steps of a path; longer trails that begin alike are one path, ending with MORE.

    Returns:
        Columns PATHS, the most frequent first.
    """
    if steps.is_empty():
        return pl.DataFrame(schema=PATHS)
    bought = pl.col("state") == PURCHASE
    trails = steps.group_by("trail", maintain_order=True).agg(
        pl.col("user").first(),
        path=pl.col("state").head(told),
        length=pl.len(),
        is_bought=bought.any(),
        ends_in_purchase=bought.last(),
    )
    is_longer = pl.col("length") > told
    paths = (
        trails.with_columns(
            path=pl.col("path").list.join(" > ") + pl.when(is_longer).then(pl.lit(f" > {MORE}")).otherwise(pl.lit("")),
            ends_in_purchase=pl.when(~is_longer & purchases).then(pl.col("ends_in_purchase")),
        )
        .group_by("path")
        .agg(
            pl.col("ends_in_purchase").first(),
            steps=pl.col("length").first().clip(upper_bound=told),
            trails=pl.len(),
            users=pl.col("user").n_unique(),
            share=pl.len() / trails.height,
            purchase_share=pl.col("is_bought").mean() if purchases else pl.lit(None, pl.Float64),
        )
        .sort("trails", "path", descending=[True, False])
        .head(most)
        .with_columns(path_rank=pl.int_range(1, pl.len() + 1))
    )
    return _shaped(paths, PATHS)


def transitions(steps: pl.DataFrame) -> pl.DataFrame:
    """How often each state follows each other one directly, with START before and END after each trail.

    Args:
        steps: trail, state and started_at, in the order of trail and time; no state follows itself.

    Returns:
        Columns TRANSITIONS; probabilities of a from_state sum to 1.
    """
    if steps.is_empty():
        return pl.DataFrame(schema=TRANSITIONS)
    same = pl.col("trail") == pl.col("trail").shift(1)
    arrivals = steps.select(
        from_state=pl.when(same).then(pl.col("state").shift(1)).otherwise(pl.lit(START)),
        to_state=pl.col("state"),
        seconds=pl.when(same).then(
            (pl.col("started_at") - pl.col("started_at").shift(1)).dt.total_microseconds() / 1e6
        ),
    ).with_columns(pl.col("from_state").fill_null(START))
    lasts = steps.group_by("trail", maintain_order=True).agg(from_state=pl.col("state").last())
    ends = lasts.select("from_state", to_state=pl.lit(END), seconds=pl.lit(None, pl.Float64))
    rows = (
        pl.concat([arrivals, ends])
        .group_by("from_state", "to_state")
        .agg(transitions=pl.len(), median_seconds=pl.col("seconds").median())
        .with_columns(leaving=pl.col("transitions").sum().over("from_state"))
        .with_columns(probability=pl.col("transitions") / pl.col("leaving"))
        .sort("from_state", "transitions", "to_state", descending=[False, True, False])
    )
    return _shaped(_with_interval(rows, "transitions", "leaving"), TRANSITIONS)
