"""Kinds of users: by what they do, and by the fifths of recency and frequency."""

import duckdb
import polars as pl

from lcm_ml.insights.segments.scaling import TITLES
from lcm_ml.reporting import charts, charts_segments
from lcm_ml.reporting.sankey import UNSEEN, Flow, sankey
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    count,
    feature_title,
    listed,
    newest_date,
    number,
    plural,
    rows_of,
    sentence,
    share,
)

SEGMENT = "lcm-ml segment"
FLOW_DATES = 4
GONE = "not seen"


def behaviour(con: duckdb.DuckDBPyConnection) -> Section:
    """The segments of the newest date against all users."""
    title = "Segments by behaviour"
    text = (
        "Users who behave alike, found from recency, frequency, money, baskets, prices, discounts, breadth, browsing "
        "and tenure. A tile is how far the segment's mean lies from that of all users, in standard deviations."
    )
    rows = rows_of(
        con,
        "ml.segment_profiles",
        f"""
        select *
        from ml.segment_profiles
        where as_of_date = {newest_date("ml.segment_profiles")}
            and method = (
                select min(method)
                from ml.segment_profiles
                where as_of_date = {newest_date("ml.segment_profiles")}
            )
        order by n_users desc, segment_id
        """,
    )
    if rows.is_empty():
        return Section("segments", title, text, filled_by=SEGMENT)
    day, method = rows.item(0, "as_of_date"), rows.item(0, "method")
    cells = rows_of(
        con,
        "ml.segment_features",
        """
        select segment_id, feature, median, population_median, standardised_difference as difference
        from ml.segment_features
        where as_of_date = $day and method = $method
        """,
        day=day,
        method=method,
    )
    sizes = Table(
        "Segments",
        ("id", "segment", "users", "share", "silhouette", "what sets it apart"),
        tuple(
            (
                str(row["segment_id"]),
                row["name"],
                count(row["n_users"]),
                share(row["share"]),
                number(row["silhouette"], 2),
                row["description"],
            )
            for row in rows.to_dicts()
        ),
        labels=2,
    )
    return Section("segments", title, text, (_apart(rows, cells),), table=sizes, notes=_chosen(con, rows))


def _apart(rows: pl.DataFrame, cells: pl.DataFrame) -> Figure:
    segments = rows["segment_id"].to_list()
    spread = cells.group_by("feature").agg(pl.col("difference").abs().max())
    features = spread.sort("difference", "feature", descending=[True, False])["feature"].to_list()
    by_cell = {(row["segment_id"], row["feature"]): row for row in cells.to_dicts()}
    drawn = [
        {
            "trait": TITLES.get(feature, feature),
            "segment": str(segment),
            "difference": by_cell[segment, feature]["difference"],
        }
        for feature in features
        for segment in segments
    ]
    largest = rows.row(0, named=True)
    told = listed([f"{row['name']} ({share(row['share'], 0)})" for row in rows.to_dicts()])
    return Figure(
        charts_segments.differences(pl.DataFrame(drawn)),
        f"{sentence(told)}. The largest, segment {largest['segment_id']}: {largest['description']}.",
        Table(
            "Medians by segment",
            ("trait", "all users", *(f"segment {segment}" for segment in segments)),
            tuple(
                (
                    feature_title(feature),
                    number(by_cell[segments[0], feature]["population_median"], 2),
                    *(number(by_cell[segment, feature]["median"], 2) for segment in segments),
                )
                for feature in features
            ),
        ),
    )


def _chosen(con: duckdb.DuckDBPyConnection, rows: pl.DataFrame) -> tuple[str, ...]:
    tried = rows_of(
        con,
        "ml.segment_choices",
        """
        select clusters, silhouette, stability, is_chosen
        from ml.segment_choices
        where as_of_date = $day and method = $method
        order by clusters
        """,
        day=rows.item(0, "as_of_date"),
        method=rows.item(0, "method"),
    )
    told = [
        f"{row['clusters']}{' (taken)' if row['is_chosen'] else ''}: {number(row['silhouette'], 2)} and "
        f"{number(row['stability'], 2)}"
        for row in tried.to_dicts()
    ]
    return (
        f"{rows.item(0, 'method')} at {rows.item(0, 'as_of_date')}. Number of segments, with its silhouette and its "
        f"stability on halves of the users: {'; '.join(told)}.",
    )


def migration(con: duckdb.DuckDBPyConnection) -> Section:
    """Who went from which segment to which."""
    title = "Moves between segments"
    text = (
        "Each column is a date, each block a segment by its id (S1 is segment 1), each ribbon the users who went from "
        "one to the next. "
        "A segment keeps its id as long as most of its users stay together."
    )
    rows = rows_of(
        con,
        "ml.segment_migrations",
        f"""
        select as_of_date, previous_as_of_date, from_segment_id, to_segment_id, n_users
        from ml.segment_migrations
        where method = (
            select min(method)
            from ml.segment_profiles
            where as_of_date = {newest_date("ml.segment_profiles")}
        )
        order by as_of_date, from_segment_id, to_segment_id
        """,
    )
    chain = _chain(rows)
    if len(chain) < 2:
        return Section("segment-moves", title, text, filled_by=SEGMENT, once="it has run at two dates")
    moves = rows.filter(pl.col("as_of_date").is_in(chain[1:])).with_columns(
        source=pl.format("S{}", "from_segment_id").fill_null(UNSEEN),
        target=pl.format("S{}", "to_segment_id").fill_null(GONE),
    )
    flows = [
        Flow(chain.index(row["as_of_date"]) - 1, row["source"], row["target"], row["n_users"])
        for row in moves.to_dicts()
    ]
    newest = moves.filter(pl.col("as_of_date") == chain[-1])
    both = newest.drop_nulls(["from_segment_id", "to_segment_id"])
    users = int(both["n_users"].sum())
    stayed = int(both.filter(pl.col("source") == pl.col("target"))["n_users"].sum())
    table = Table(
        f"Users by segment at {chain[-2]} and {chain[-1]}",
        ("from", "to", "users"),
        tuple((row["source"], row["target"], count(row["n_users"])) for row in newest.to_dicts()),
        labels=2,
    )
    says = (
        f"Of the {plural(users, 'user')} there at both {chain[-2]} and {chain[-1]}, "
        f"{share(stayed / users if users else None, 0)} stayed in their segment."
    )
    return Section("segment-moves", title, text, (Figure(sankey([str(day) for day in chain], flows), says, table),))


def _chain(rows: pl.DataFrame) -> list[object]:
    """The newest dates that follow one another, oldest first."""
    before = dict(rows.select("as_of_date", "previous_as_of_date").unique().iter_rows()) if rows.height else {}
    chain = [max(before)] if before else []
    while chain and chain[0] in before and len(chain) < FLOW_DATES:
        chain.insert(0, before[chain[0]])
    return chain


def rfm(con: duckdb.DuckDBPyConnection) -> Section:
    """Buyers by the classic fifths of recency and frequency."""
    title = "RFM segments"
    text = (
        "Everybody who ever purchased, by fifths of how recently and how often. The cut-offs are fifths: these "
        "segments always have about the same sizes, so look at who is in them, not at how many."
    )
    rows = rows_of(
        con,
        "marts.user_rfm",
        """
        select
            segments.rfm_segment as label,
            count(*) as value,
            median(lifecycle.days_since_last_purchase) as days,
            median(lifecycle.purchase_days) as purchase_days
        from marts.user_rfm as segments
        inner join marts.as_of_dates as dates on segments.as_of_date = dates.as_of_date and dates.is_scoring_date
        inner join marts.user_lifecycle as lifecycle
            on segments.user_id = lifecycle.user_id and segments.as_of_date = lifecycle.as_of_date
        group by 1
        order by 2 desc, 1
        """,
    )
    if rows.is_empty():
        return Section("rfm", title, text, filled_by="dbt build", once="somebody has purchased")
    table = Table(
        title,
        ("segment", "users", "days since the last purchase (median)", "days with a purchase (median)"),
        tuple(
            (row["label"], count(row["value"]), count(row["days"]), count(row["purchase_days"]))
            for row in rows.to_dicts()
        ),
    )
    told = listed([f"{row['label']} ({row['value']:,})" for row in rows.head(3).to_dicts()])
    return Section(
        "rfm",
        title,
        text,
        (Figure(charts.bars(rows.select("label", "value"), "users", ",d"), f"The largest: {told}.", table),),
    )


SECTIONS: tuple[MakeSection, ...] = (behaviour, migration, rfm)
