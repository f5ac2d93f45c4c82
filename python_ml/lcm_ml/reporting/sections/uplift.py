"""Campaigns: who responds, and who purchases because of them."""

from typing import Any

import duckdb
import polars as pl

from lcm_ml.reporting import charts, charts_uplift
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    count,
    newest_date,
    number,
    plural,
    rows_of,
    share,
    two_digits,
    with_interval,
)

RESPONSE, UPLIFT = "lcm-ml response", "lcm-ml uplift"
TITLES = {
    "linear": "linear",
    "tree": "tree",
    "xgboost": "boosted trees",
    "mlp": "neural net",
    "base_rate": "the same for everybody",
    "past_rate": "the user's own past rate",
    "past_spend": "the user's own past spend",
    "t_learner": "T-learner",
    "x_learner": "X-learner",
    "dr_learner": "DR-learner",
    "response": "by response",
}
RANDOM = "at random"
SEGMENTS = {
    "persuadable": "persuadables: purchase because of a touch",
    "sure_thing": "sure things: purchase anyway",
    "lost_cause": "lost causes: purchase neither way",
    "do_not_disturb": "do-not-disturbs: a touch puts them off",
}
OF = {"purchase": "purchases", "orders": "orders", "spend": "money"}


def responses(con: duckdb.DuckDBPyConnection) -> Section:
    """Models of responses and spend on later campaigns."""
    title = "Who responds to campaigns"
    text = (
        "How well models tell who will respond, on campaigns later than those they learned from, beside what needs no "
        "model. An AUC of 0.5 is chance. A response is no effect: who responds may have purchased anyway."
    )
    rows = rows_of(
        con,
        "ml.response_metrics",
        f"""
        select *
        from ml.response_metrics
        where as_of_date = {newest_date("ml.response_metrics")}
        """,
    )
    if rows.is_empty():
        return Section("responses", title, text, filled_by=RESPONSE, once="several campaigns had responses")
    by_target = {target: _by_model(rows.filter(pl.col("target") == target)) for target in ("response", "spend")}
    figures = by_target["response"]
    points = [
        {"label": TITLES[name], "name": "AUC", **{key: own["auc"][key] for key in ("value", "ci_low", "ci_high")}}
        for name, own in figures.items()
    ]
    best = next(name for name, own in figures.items() if own["auc"]["is_chosen"])
    gain = figures[best]["auc_less_past_rate"]
    beyond = gain["ci_low"] is not None and gain["ci_low"] > 0
    says = (
        f"{TITLES[best].capitalize()} scores: AUC {with_interval(figures[best]['auc'])}, "
        f"{with_interval(gain)} more than the user's own past rate, which is {'' if beyond else 'not '}beyond chance."
    )
    drawing = charts.dots(pl.DataFrame(points), "AUC", ".2f", ("AUC",), line=30)
    first = rows.row(0, named=True)
    table = _table(figures, "Responses", ("auc", "average_precision", "log_loss", "brier"), 3)
    notes = (
        f"{plural(first['n_touches'], 'touch', 'touches')} of {plural(first['n_campaigns'], 'campaign')}; responses "
        f"within {first['horizon_days']} days.",
    )
    spend = _table(by_target["spend"], "Spend of touched users", ("mae", "rmse", "bias", "rank_correlation"), 2)
    return Section("responses", title, text, (Figure(drawing, says, table),), table=spend, notes=notes)


def _by_model(rows: pl.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    order = {name: place for place, name in enumerate(TITLES)}
    for row in sorted(rows.to_dicts(), key=lambda row: order[row["model_name"]]):
        found.setdefault(row["model_name"], {})[row["metric"]] = row
    return found


def _table(figures: dict[str, dict[str, dict[str, Any]]], caption: str, metrics: tuple[str, ...], digits: int) -> Table:
    return Table(
        caption,
        ("model", *(metric.replace("_", " ").replace("auc", "AUC").replace("mae", "MAE") for metric in metrics)),
        tuple(
            (TITLES[name], *(cell(own[metric], lambda value: number(value, digits)) for metric in metrics))
            for name, own in figures.items()
        ),
        marked=frozenset(place for place, own in enumerate(figures.values()) if own[metrics[0]]["is_chosen"]),
    )


def effects(con: duckdb.DuckDBPyConnection) -> Section:
    """Gain curves on campaigns held out, and the segments."""
    title = "Who purchases because of a touch"
    text = (
        "What campaigns add, against users who were not touched. The further a curve lies above the line of touching "
        "at random, the better the ranking finds users on whom a touch is well spent; the Qini coefficient is the area "
        "between. Measured on campaigns that the models did not learn from."
    )
    rows = rows_of(
        con,
        "ml.uplift_metrics",
        f"select * from ml.uplift_metrics where part = 'held_out' and as_of_date = {newest_date('ml.uplift_metrics')}",
    )
    if rows.is_empty():
        return Section("uplift", title, text, filled_by=UPLIFT, once="campaigns had a control arm")
    learner = rows.filter(pl.col("is_chosen")).item(0, "learner")
    curves = rows_of(
        con,
        "ml.uplift_curves",
        f"select * from ml.uplift_curves where as_of_date = {newest_date('ml.uplift_metrics')} order by learner, share",
    )
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows.to_dicts():
        figures.setdefault(row["learner"], {})[row["metric"]] = row
    own = figures[learner]
    outcome = OF[rows.item(0, "outcome")]
    beats = own["qini"]["ci_low"] is not None and own["qini"]["ci_low"] > 0
    says = (
        f"The {TITLES[learner]} has a Qini coefficient of {with_interval(own['qini'], _small)}, "
        f"{'above' if beats else 'not beyond'} chance. Touching all adds {with_interval(own['gain_all'], _small)} "
        f"{outcome} per user, the first 30 % of its ranking alone {with_interval(own['gain_top_30'], _small)}."
    )
    table = Table(
        "Rankings",
        ("ranking", "Qini", "AUUC", "gain of the first 30 %", "calibration slope"),
        tuple(
            (
                TITLES[name],
                *(cell(each[metric], _small) for metric in ("qini", "auuc", "gain_top_30")),
                cell(each.get("calibration_slope"), two_digits),
            )
            for name, each in sorted(figures.items(), key=lambda item: item[0] != learner)
        ),
    )
    drawing = charts_uplift.gain(
        _lines(curves, learner), (TITLES[learner], TITLES["response"], RANDOM), f"{outcome} gained per user"
    )
    first = rows.row(0, named=True)
    notes = (
        f"{first['n_touches']:,} rows held out, {first['design']} arms, {outcome} within {first['horizon_days']} days.",
    )
    found = [Figure(drawing, says, table, "Gain by users touched"), *_segments(con)]
    return Section("uplift", title, text, tuple(found), notes=notes)


def _small(value: float | None) -> str:
    return number(value, 4 if value is None or abs(value) < 1 else 2)


def _lines(curves: pl.DataFrame, learner: str) -> pl.DataFrame:
    shown = curves.filter(pl.col("learner").is_in([learner, "response"]))
    own = curves.filter(pl.col("learner") == learner)
    columns = ["name", "share", "gain", "ci_low", "ci_high"]
    return pl.concat(
        [
            shown.with_columns(name=pl.col("learner").replace(TITLES)).select(columns),
            own.with_columns(name=pl.lit(RANDOM), gain=pl.col("random_gain")).select(columns),
        ]
    )


def _segments(con: duckdb.DuckDBPyConnection) -> list[Figure]:
    rows = rows_of(
        con,
        "serving.uplift_scores_latest",
        """
        select
            uplift_segment,
            count(*) as value,
            avg(effect) as effect,
            avg(baseline_probability) as baseline
        from serving.uplift_scores_latest
        where is_best_kind
        group by uplift_segment
        """,
    )
    if rows.is_empty():
        return []
    counted = {row["uplift_segment"]: row for row in rows.to_dicts()}
    total = sum(row["value"] for row in counted.values())
    known = [(label, counted[name]) for name, label in SEGMENTS.items() if name in counted]
    table = Table(
        "Segments, by each user's best kind of campaign",
        ("segment", "users", "share", "mean effect", "purchase anyway"),
        tuple(
            (label, count(row["value"]), share(row["value"] / total), _small(row["effect"]), share(row["baseline"]))
            for label, row in known
        ),
    )
    bars = pl.DataFrame([{"label": label, "value": row["value"]} for label, row in known])
    largest, row = max(known, key=lambda item: item[1]["value"])
    says = f"The most users, {count(row['value'])} of {count(total)}, are {largest}."
    return [Figure(charts.bars(bars, "users", ",d"), says, table, "Segments")]


def comparable(con: duckdb.DuckDBPyConnection) -> Section:
    """Overlap of touched and untouched users."""
    title = "Whether touched and untouched users compare"
    text = (
        "The probability of being touched that features tell, for those who were and for those who were not. Where "
        "arms were drawn at random, both lie alike around one value. Users at the edges have no counterpart in the "
        "other arm."
    )
    rows = rows_of(
        con,
        "ml.uplift_overlap",
        f"""
        select arm, bin_low, bin_high, cast(sum(n_touches) as bigint) as n_touches
        from ml.uplift_overlap
        where as_of_date = {newest_date("ml.uplift_overlap")}
        group by all
        order by arm desc, bin_low
        """,
    )
    if rows.is_empty():
        return Section("uplift-overlap", title, text, filled_by=UPLIFT, once="campaigns had a control arm")
    drawn = rows.with_columns(
        name=pl.col("arm").replace({"treatment": "touched", "control": "not touched"}),
        share=pl.col("n_touches") / pl.col("n_touches").sum().over("arm"),
    )
    metrics = rows_of(
        con,
        "ml.uplift_metrics",
        f"""
        select campaign_kind, metric, value, n_touches, design
        from ml.uplift_metrics
        where part = 'overlap' and as_of_date = {newest_date("ml.uplift_metrics")}
        order by campaign_kind
        """,
    ).to_dicts()
    auc = next(row for row in metrics if row["metric"] == "propensity_auc")
    says = (
        f"Features tell the arms apart with an AUC of {number(auc['value'], 2)} (0.5 is chance): {auc['design']} arms."
    )
    table = Table(
        "Rows with a counterpart in the other arm",
        ("kind of campaign", "rows", "share"),
        tuple(
            (row["campaign_kind"], count(row["n_touches"]), share(row["value"]))
            for row in metrics
            if row["metric"] == "overlap_share"
        ),
    )
    drawing = charts_uplift.overlap(drawn, ("touched", "not touched"))
    return Section("uplift-overlap", title, text, (Figure(drawing, says, table),))


SECTIONS: tuple[MakeSection, ...] = (responses, effects, comparable)
