"""Ways through the shop, and what comes before churn and before a second purchase."""

from typing import Any

import duckdb
import polars as pl

from lcm_ml.frames.steps import GAP_BANDS
from lcm_ml.insights.paths import END, EVERYWHERE, MORE, START
from lcm_ml.insights.sequences import NEXT
from lcm_ml.reporting import charts, charts_paths
from lcm_ml.reporting.charts import STAGE_COLOURS
from lcm_ml.reporting.sankey import Flow, Style, sankey
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    count,
    listed,
    number,
    plural,
    rows_of,
    share,
)

PATHS = "lcm-ml paths"
SANKEY_PATHS, SANKEY_STEPS = 15, 5
LISTED = 25
OF_EACH = 3
"""Sequences of a kind drawn that raise an outcome, and as many that lower it."""
EVENT_ORDER = (
    *("search", "view", "wishlist", "share", "cart", "remove_from_cart", "purchase", "review", "refund", "support"),
    *GAP_BANDS,
)
SHORT = {"remove_from_cart": "remove"}
"""Names that a ribbon's end has room for on a phone."""
ENDS = {START: "#FFFFFF", END: "#FFFFFF"}
OUTCOMES = {"churn": ("Before churn", "churned"), "second_purchase": ("Before a second purchase", "bought again")}


def funnel(con: duckdb.DuckDBPyConnection) -> Section:
    """View, cart, purchase: how many sessions get how far, and how long it takes."""
    title = "From view to purchase"
    text = (
        "Sessions that took each step after the one before it. Sessions that skip a step, a purchase without a view "
        "say, count in the last column of the table alone."
    )
    rows = rows_of(
        con,
        "serving.session_funnels_latest",
        "select * from serving.session_funnels_latest order by channel <> $all, channel, step",
        all=EVERYWHERE,
    )
    if rows.is_empty():
        return Section("funnel", title, text, filled_by=PATHS, once="sessions hold more than purchases")
    table = Table(
        title,
        (
            "channel",
            "step",
            "sessions",
            "users",
            "of the step before",
            "median time",
            "90 % within",
            "with such an event",
        ),
        tuple(
            (
                row["channel"],
                row["event_type"],
                count(row["sessions"]),
                count(row["users"]),
                cell(row, share, "share_of_previous"),
                _time(row["median_seconds"]),
                _time(row["p90_seconds"]),
                count(row["sessions_with_type"]),
            )
            for row in rows.to_dicts()
        ),
        labels=2,
    )
    everywhere = rows.filter(channel=EVERYWHERE).to_dicts()
    first, last = everywhere[0], everywhere[-1]
    lost = max(everywhere[1:], key=lambda row: row["drop_off"] or 0)
    says = (
        f"Of {count(first['sessions'])} sessions with a view in the {first['days']} days before {first['as_of_date']}, "
        f"{share(last['share_of_first'])} went on to a purchase through a cart; most are lost before the step "
        f"{lost['event_type']}, which {share(lost['share_of_previous'])} of those before it take."
    )
    bars = pl.DataFrame(
        {"label": [_funnel_label(row) for row in everywhere], "value": [row["sessions"] for row in everywhere]}
    )
    return Section("funnel", title, text, (Figure(charts.bars(bars, "sessions", "~s"), says, table),))


def _funnel_label(row: dict[str, Any]) -> str:
    if row["share_of_previous"] is None:
        return f"{row['event_type']}: {count(row['sessions'])}"
    return f"{row['event_type']}: {count(row['sessions'])} ({share(row['share_of_previous'])} of the step before)"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} s"


def _states(names: set[str]) -> list[str]:
    """States in the order in which a visit goes, others by name."""
    known = [name for event in EVENT_ORDER for name in (event, SHORT.get(event)) if name in names]
    return known + sorted(names - set(known) - set(ENDS))


def flow(con: duckdb.DuckDBPyConnection) -> Section:
    """The most frequent paths, drawn as one stream."""
    rows = rows_of(
        con, "serving.frequent_paths_latest", "select * from serving.frequent_paths_latest order by path_rank"
    )
    title = "Most frequent paths"
    text = (
        "Each column is a step of a session, each block an event type, each ribbon the sessions that went from one to "
        "the next; repeats are told once. Where a ribbon ends, the session did."
    )
    if rows.is_empty():
        return Section("paths", title, text, filled_by=PATHS, once="events follow one another")
    unit = rows.item(0, "unit")
    if unit == "user":
        text = (
            "This shop records purchases alone, so that a path is the gaps between a user's days of purchase. Each "
            "column is a step, each block a length of gap, each ribbon the users who went from one to the next; "
            "repeats are told once."
        )
    drawn = rows.head(SANKEY_PATHS)
    flows: dict[tuple[int, str, str], int] = {}
    for path, trails in drawn.select("path", "trails").iter_rows():
        steps = [SHORT.get(step, step) for step in path.split(NEXT) if step != MORE][:SANKEY_STEPS]
        if len(path.split(NEXT)) <= SANKEY_STEPS - 1:
            steps.append(END)
        for place in range(len(steps) - 1):
            key = (place, steps[place], steps[place + 1])
            flows[key] = flows.get(key, 0) + trails
    columns = [f"step {place + 1}" for place in range(max(place for place, _, _ in flows) + 2)]
    states = _states({state for _, source, target in flows for state in (source, target)})
    colours = {state: STAGE_COLOURS[place % len(STAGE_COLOURS)] for place, state in enumerate(states)}
    style = Style({**colours, **ENDS}, counted=f"{unit}s", is_late=False)
    drawing = sankey(columns, [Flow(*key, trails) for key, trails in flows.items()], style=style)
    table = Table(
        title,
        ("path", f"{unit}s", "share", "with a purchase"),
        tuple(
            (row["path"], count(row["trails"]), share(row["share"]), share(row["purchase_share"], 0))
            for row in rows.head(LISTED).to_dicts()
        ),
    )
    told = [f"{row['path']} ({share(row['share'])})" for row in rows.head(3).to_dicts()]
    covered = float(drawn["share"].sum())
    says = (
        f"The {plural(drawn.height, 'path')} drawn are those of {share(covered)} of all {unit}s in the "
        f"{rows.item(0, 'days')} days before {rows.item(0, 'as_of_date')}; the most frequent: {listed(told)}."
    )
    return Section("paths", title, text, (Figure(drawing, says, table),))


def transitions(con: duckdb.DuckDBPyConnection) -> Section:
    """What follows what, with how long it takes."""
    rows = rows_of(
        con,
        "serving.path_transitions_latest",
        "select * from serving.path_transitions_latest order by from_state, transitions desc, to_state",
    )
    title = "What follows what"
    text = "What users do next within a session, and how often."
    if rows.is_empty():
        return Section("transitions", title, text, filled_by=PATHS, once="events follow one another")
    states = _states(set(rows["from_state"]) | set(rows["to_state"]))
    graph = charts_paths.transition_graph(rows, [START, *states, END])
    matrix = charts_paths.transition_matrix(
        rows.select("from_state", "to_state", "probability"), [START, *states], [*states, END]
    )
    table = Table(
        title,
        ("from", "to", "times", "probability", "median time"),
        tuple(
            (
                row["from_state"],
                row["to_state"],
                count(row["transitions"]),
                f"{share(row['probability'])}\n{share(row['ci_low'])} to {share(row['ci_high'])}",
                _time(row["median_seconds"]),
            )
            for row in rows.to_dicts()
        ),
        labels=2,
    )
    probability = {(row["from_state"], row["to_state"]): row["probability"] for row in rows.to_dicts()}
    inner = rows.filter(pl.col("from_state") != START, pl.col("to_state") != END)
    told = [
        f"{row['from_state']} to {row['to_state']} ({share(row['probability'], 0)} of what leaves {row['from_state']}, "
        f"after {_time(row['median_seconds'])} in the median)"
        for row in inner.sort("transitions", descending=True).head(3).to_dicts()
    ]
    says = f"The most frequent: {listed(told)}." if told else "No step follows another one."
    shares = Table(
        "Share of what leaves a step",
        ("from", *(state for state in (*states, END))),
        tuple(
            (
                state,
                *(share(probability.get((state, other)), 0) for other in (*states, END)),
            )
            for state in (START, *states)
        ),
    )
    figures = (
        Figure(graph, f"{says} Thicker lines happen more often; a dot is where a line leads.", table, "The graph"),
        Figure(matrix, "How many percent of what leaves the row's step go to the column's.", shares, "The shares"),
    )
    return Section("transitions", title, text, figures)


def _lifts(con: duckdb.DuckDBPyConnection, outcome: str) -> Section:
    title, what = OUTCOMES[outcome]
    text = (
        f"Steps among a user's last ones, and how many times more often than the others such users {what}. Steps "
        "joined by > follow each other at once, by ... with others in between or not. Sequences that chance explains "
        "(false discovery rate 5 %) are left out. Users who do much have many sequences: a sign, not a cause."
    )
    rows = rows_of(
        con,
        "serving.sequence_lifts_latest",
        "select * from serving.sequence_lifts_latest where outcome = $outcome order by lift_rank",
        outcome=outcome,
    )
    if rows.is_empty():
        return Section(outcome.replace("_", "-"), title, text, filled_by=PATHS, once="enough users have the outcome")
    tested, sure = rows.height, rows.filter("is_significant")
    if sure.is_empty():
        note = f"None of {plural(tested, 'sequence')} makes a difference that chance does not explain."
        return Section(outcome.replace("_", "-"), title, text, notes=(note,))
    is_raising = pl.col("rate_with") > pl.col("rate_without")
    raising, lowering = sure.filter(is_raising), sure.filter(~is_raising)
    # A log scale has no place for a lift of 0, and there is none where nobody else had the outcome.
    shown = pl.concat([_surest(part.filter(pl.col("lift") > 0), OF_EACH) for part in (raising, lowering)])
    table = Table(
        title,
        ("steps", "kind", what, "of the others", "times", "users"),
        tuple(
            (
                row["sequence"],
                row["step_kind"],
                share(row["rate_with"]),
                share(row["rate_without"]),
                f"{number(row['lift'], 2)}\n{number(row['ci_low'], 2)} to {number(row['ci_high'], 2)}",
                count(row["users_with"]),
            )
            for row in pl.concat([_surest(raising, LISTED), _surest(lowering, LISTED)]).to_dicts()
        ),
        labels=2,
    )
    told = [
        f"{row['sequence']} ({share(row['rate_with'], 0)} {what}, {share(row['rate_without'], 0)} of the others)"
        for part in (raising, lowering)
        for row in part.head(1).to_dicts()
    ]
    says = (
        f"{raising.height} of {plural(tested, 'sequence')} raise it and {lowering.height} lower it; the surest: "
        f"{listed(told)}."
    )
    bars = shown.select("ci_low", "ci_high", label="sequence", value="lift")
    drawing = charts_paths.lifts(bars, f"times as many {what}, log scale")
    return Section(outcome.replace("_", "-"), title, text, (Figure(drawing, says, table),))


def _surest(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """The first ones of each kind of steps, in their order."""
    return rows.filter(pl.int_range(pl.len()).over("step_kind") < most)


def before_churn(con: duckdb.DuckDBPyConnection) -> Section:
    """Sequences of steps that churned users took more or less often than the others."""
    return _lifts(con, "churn")


def before_second_purchase(con: duckdb.DuckDBPyConnection) -> Section:
    """Sequences of steps of first-time buyers who bought again."""
    return _lifts(con, "second_purchase")


SECTIONS: tuple[MakeSection, ...] = (funnel, flow, transitions, before_churn, before_second_purchase)
