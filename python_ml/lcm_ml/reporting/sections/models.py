"""How good the models are, out of time, beside their baselines, and what they rest on."""

from typing import Any

import duckdb
import polars as pl

from lcm_ml.churn.baselines import BASELINES, RECENCY
from lcm_ml.churn.ceiling import CEILING, way
from lcm_ml.insights.intervals import wilson
from lcm_ml.reporting import charts, charts_models
from lcm_ml.reporting.section import (
    Figure,
    Form,
    MakeSection,
    Section,
    Table,
    cell,
    champion,
    count,
    feature_title,
    listed,
    number,
    plural,
    rows_of,
    sentence,
    share,
    two_digits,
    with_interval,
)

FIT, EVALUATE = "lcm-ml fit", "lcm-ml evaluate"
METRICS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "top_decile_lift": "lift, top decile",
    "ece": "calibration error",
    "calibration_slope": "calibration slope",
}
OVER_DATES = {"auc": "AUC", "log_loss": "log loss"}
DATES, FEATURES = 6, 15
GROUPS = {"lifecycle_stage": "{}", "tenure_band": "{}", "value_band": "{} value"}


def ordered(names: pl.Series, first: str) -> list[str]:
    """Models with the champion first, then the other estimators, the baselines, and the ceiling."""
    return sorted(names.unique().to_list(), key=lambda name: (name == CEILING, name in BASELINES, name != first, name))


def _called(name: str, first: str) -> str:
    return f"{name} (champion)" if name == first else f"{name} (baseline)" if name in BASELINES else name


def test_figures(con: duckdb.DuckDBPyConnection) -> Section:
    """The champion's test date, beside the other models and the baselines."""
    title = "Figures on the test date"
    text = (
        "Each model predicted a date that it had not seen; 95 % intervals are resampled by user. The champion was "
        "chosen on earlier dates. A model is worth its trouble where it is clearly better than the baselines."
    )
    known = champion(con)
    if known is None:
        return Section("test", title, text, filled_by=FIT)
    run_id, first = known
    rows = rows_of(
        con,
        "ml.model_metrics",
        "select * from ml.model_metrics where run_id = $run and split = 'test'",
        run=run_id,
    )
    if rows.is_empty():
        return Section("test", title, text, filled_by=FIT)
    figures = {(row["model_name"], row["metric"]): row for row in rows.to_dicts()}
    names = ordered(rows["model_name"], first)
    table = Table(
        title,
        ("", *(_called(name, first) for name in names)),
        tuple(
            (words, *(_cell(figures.get((name, metric)), metric) for name in names))
            for metric, words in METRICS.items()
        ),
    )
    test = rows.row(0, named=True)
    date = f"Test date {test['as_of_date']}: {test['n_users']:,} users, {test['n_churned']:,} of them churned."
    own = {metric: figures[first, metric] for metric in ("accuracy", "majority_accuracy") if (first, metric) in figures}
    notes = [date]
    if len(own) == 2:
        notes.append(
            f"Accuracy alone says little: {share(own['accuracy']['value'])} against "
            f"{share(own['majority_accuracy']['value'])} of saying the same of everybody."
        )
    return Section("test", title, text, table=table, notes=tuple(notes))


def _cell(row: dict[str, Any] | None, metric: str) -> str:
    digits = 2 if metric in ("top_decile_lift", "calibration_slope") else 3
    return cell(row, lambda value: number(value, digits))


def over_dates(con: duckdb.DuckDBPyConnection) -> Section:
    """AUC and log loss of every model on each date of the newest rolling-origin evaluation."""
    title = "Figures over several dates"
    text = (
        "Each date was predicted by models that learnt from earlier dates alone. Points are the figures, lines their "
        "95 % intervals, resampled by user. Dates differ: compare models within one."
    )
    rows = rows_of(
        con,
        "ml.model_metrics",
        """
        select * from ml.model_metrics
        where split = 'fold' and run_id = (select max(run_id) from ml.model_metrics where split = 'fold')
        order by as_of_date, model_name
        """,
    )
    if rows.is_empty():
        return Section("folds", title, text, filled_by=EVALUATE)
    first = (champion(con) or ("", ""))[1]
    names = ordered(rows["model_name"], first)
    figures = tuple(_metric_over_dates(rows.filter(metric=name), called, names) for name, called in OVER_DATES.items())
    return Section("folds", title, text, tuple(figure for figure in figures if figure is not None))


def _metric_over_dates(rows: pl.DataFrame, called: str, names: list[str]) -> Figure | None:
    rows = rows.filter(pl.col("value").is_not_null())
    if rows.is_empty():
        return None
    present = [name for name in names if name in rows["model_name"]]
    mean = {row["model_name"]: row for row in rows.filter(pl.col("as_of_date").is_null()).to_dicts()}
    by_date = rows.filter(pl.col("as_of_date").is_not_null())
    dates = by_date["as_of_date"].unique().sort().to_list()
    cells = {(row["as_of_date"], row["model_name"]): row for row in rows.to_dicts()}
    table = Table(
        f"{called} by date and model",
        ("date", *present),
        tuple(
            (str(day or f"mean of {len(dates)}"), *(cell(cells.get((day, name))) for name in present))
            for day in [*dates, *([None] if mean else [])]
        ),
    )
    told = [f"{name} {with_interval(mean[name])}" for name in present if name in mean]
    says = f"{called}, mean of {plural(len(dates), 'date')}: {listed(told)}." if told else f"{called} by date."
    if {present[0], RECENCY, CEILING} <= set(mean):
        reached = way(*(mean[name]["value"] for name in (present[0], RECENCY, CEILING)))
        says += f" {present[0]} went {share(reached, 0)} of the way from recency alone to the best there is."
    shown = by_date.filter(pl.col("as_of_date").is_in(dates[-DATES:]))
    drawing = charts_models.over_dates(
        shown.select("as_of_date", "model_name", "value", "ci_low", "ci_high"), called, present
    )
    return Figure(drawing, sentence(says), table, title=sentence(called))


def calibration(con: duckdb.DuckDBPyConnection) -> Section:
    """Whether the probabilities can be taken at their word."""
    title = "Calibration"
    text = (
        "Users of the test date in ten groups of equal size by predicted probability: of those with 30 %, about 30 % "
        "should churn. Points on the dashed line are right; lines are 95 % intervals (Wilson)."
    )
    known = champion(con)
    run_id, first = known or ("", "")
    rows = rows_of(
        con, "ml.calibration_bins", "select * from ml.calibration_bins where run_id = $run order by bin", run=run_id
    )
    if rows.is_empty():
        return Section("calibration", title, text, filled_by=FIT)
    names = ordered(rows["model_name"], first)[:3]
    bins = with_wilson(rows.filter(pl.col("model_name").is_in(names)))
    own = bins.filter(model_name=names[0])
    within = own.filter(pl.col("mean_probability").is_between("ci_low", "ci_high")).height
    top = own.row(-1, named=True)
    says = (
        f"{names[0]}: in {within} of {own.height} groups the prediction lies within the interval of what happened. Of "
        f"the riskiest group {share(top['mean_probability'])} were predicted and {share(top['churn_rate'])} churned."
    )
    table = Table(
        "Predicted and realised churn by group",
        ("model", "group", "users", "predicted", "churned (95 % interval)"),
        tuple(
            (
                row["model_name"],
                str(row["bin"]),
                count(row["n_users"]),
                share(row["mean_probability"]),
                cell(row, share, "churn_rate"),
            )
            for row in bins.sort(pl.col("model_name").replace_strict(names, list(range(len(names)))), "bin").to_dicts()
        ),
        labels=2,
    )
    drawing = charts_models.calibration(
        bins.select("model_name", "mean_probability", "churn_rate", "ci_low", "ci_high"), names
    )
    return Section("calibration", title, text, (Figure(drawing, says, table),))


def with_wilson(bins: pl.DataFrame) -> pl.DataFrame:
    """Add ci_low and ci_high of churn_rate over n_users: the score interval of Wilson (1927), at 95 %."""
    low, high = wilson(pl.col("churn_rate"), pl.col("n_users"))
    return bins.with_columns(ci_low=low, ci_high=high)


def lift_and_gain(con: duckdb.DuckDBPyConnection) -> Section:
    """What contacting the riskiest users first finds."""
    title = "Lift and gain"
    text = (
        "Users of the test date in tenths, riskiest first. Lift: how many times more often than average they churned. "
        "Gain: the share of all churners among the users contacted so far; the dashed line is contacting at random."
    )
    known = champion(con)
    run_id, first = known or ("", "")
    rows = rows_of(con, "ml.lift_bins", "select * from ml.lift_bins where run_id = $run order by decile", run=run_id)
    if rows.is_empty():
        return Section("lift", title, text, filled_by=FIT)
    names = ordered(rows["model_name"], first)
    contacted = rows.with_columns(
        contacted=pl.col("n_users").cum_sum().over("model_name") / pl.col("n_users").sum().over("model_name")
    )
    own = contacted.filter(model_name=names[0])
    baselines = [name for name in names if name in BASELINES]
    lift = _by_decile("Lift by decile", rows, names, "lift", two_digits)
    gain = _by_decile("Share of churners found", rows, names, "cumulative_gain", share)
    beside = _beside(rows, baselines, "lift", two_digits)
    says_lift = (
        f"The riskiest tenth of {names[0]} churned {own.item(0, 'lift'):.2f} times as often as the average{beside}."
    )
    fifth = own.filter(pl.col("decile") <= 2).row(-1, named=True)
    says_gain = (
        f"The riskiest {share(fifth['contacted'], 0)} of users hold {share(fifth['cumulative_gain'], 0)} of the "
        f"churners by {names[0]}{_beside(rows.filter(pl.col('decile') == 2), baselines, 'cumulative_gain', share)}."
    )
    return Section(
        "lift",
        title,
        text,
        (
            Figure(charts_models.lift(rows.select("model_name", "decile", "lift"), names), says_lift, lift, "Lift"),
            Figure(
                charts_models.gain(contacted.select("model_name", "contacted", "cumulative_gain"), names),
                says_gain,
                gain,
                "Cumulative gain",
            ),
        ),
    )


def _beside(rows: pl.DataFrame, baselines: list[str], column: str, form: Form) -> str:
    values = dict(rows.sort("decile").unique("model_name", keep="first").select("model_name", column).iter_rows())
    told = [f"{name} {form(values[name])}" for name in baselines if name in values]
    return f" ({', '.join(told)})" if told else ""


def _by_decile(caption: str, rows: pl.DataFrame, names: list[str], column: str, form: Form) -> Table:
    values = {(row["decile"], row["model_name"]): row[column] for row in rows.to_dicts()}
    deciles = rows["decile"].unique().sort().to_list()
    return Table(
        caption,
        ("decile", *names),
        tuple((str(decile), *(form(values.get((decile, name))) for name in names)) for decile in deciles),
    )


def profit(con: duckdb.DuckDBPyConnection) -> Section:
    """What contacting the users above a threshold would have earned."""
    title = "Profit by threshold"
    text = (
        "What contacting everybody above a churn probability would have earned on the test date, in base currency: "
        "realised with its 95 % interval, and as the probabilities expected. The costs imply the threshold; they are "
        "the vars contact_cost, saved_value and contact_success_rate."
    )
    run_id, first = champion(con) or ("", "")
    rows = rows_of(
        con,
        "ml.profit_curve",
        "select * from ml.profit_curve where run_id = $run and model_name = $model order by threshold",
        run=run_id,
        model=first,
    )
    if rows.is_empty():
        return Section("profit", title, text, filled_by=FIT)
    chosen = rows.filter(pl.col("is_chosen"))
    if chosen.is_empty():
        return Section("profit", title, text, notes=("The costs are such that contacting nobody pays best.",))
    row = chosen.row(0, named=True)
    says = (
        f"At the threshold {share(row['threshold'])} the champion would have contacted "
        f"{share(row['contacted_share'], 0)} of the users, found {share(row['recall'], 0)} of the churners and earned "
        f"{with_interval(row, count, 'realised_profit')}; expected were {count(row['expected_profit'])}."
    )
    table = Table(
        "Profit by threshold",
        ("threshold", "contacted", "precision", "recall", "expected", "realised (95 % interval)"),
        tuple(
            (
                share(item["threshold"]),
                share(item["contacted_share"], 0),
                share(item["precision"], 0),
                share(item["recall"], 0),
                count(item["expected_profit"]),
                cell(item, count, "realised_profit"),
            )
            for item in rows.to_dicts()
        ),
        marked=frozenset({rows["is_chosen"].to_list().index(True)}),
    )
    curve = rows.select("threshold", "expected_profit", "realised_profit", "ci_low", "ci_high")
    return Section("profit", title, text, (Figure(charts_models.profit(curve, row["threshold"]), says, table),))


def importance(con: duckdb.DuckDBPyConnection) -> Section:
    """The features that the champion's figures rest on."""
    title = "What the model rests on"
    text = (
        "How much the log loss on the test date rises when a feature's values are shuffled between users, with the "
        "95 % interval over shuffles. Features that say the same share the credit."
    )
    run_id, first = champion(con) or ("", "")
    rows = rows_of(
        con,
        "ml.feature_importance",
        """
        select * from ml.feature_importance
        where run_id = $run and model_name = $model and method = 'permutation'
        order by rank
        """,
        run=run_id,
        model=first,
    )
    if rows.is_empty():
        return Section("importance", title, text, filled_by=FIT)
    rows = rows.with_columns(label=pl.Series([feature_title(name) for name in rows["feature"]]))
    shown = rows.head(FEATURES)
    clear = rows.filter(pl.col("ci_low") > 0).height
    top = shown.row(0, named=True)
    says = (
        f"{first} rests most on {top['label']}: {with_interval(top, lambda v: number(v, 4), 'importance')}. "
        f"{clear} of {plural(rows.height, 'feature')} have an interval above 0."
    )
    table = Table(
        "Rise of the log loss by feature",
        ("feature", "in words", "rise of log loss (95 % interval)"),
        tuple(
            (row["feature"], row["label"], cell(row, lambda v: number(v, 4), "importance")) for row in rows.to_dicts()
        ),
        labels=2,
    )
    drawing = charts.bars(
        shown.select("label", "ci_low", "ci_high", value="importance"), "rise of the log loss when shuffled", ".3f"
    )
    return Section("importance", title, text, (Figure(drawing, says, table),))


def groups(con: duckdb.DuckDBPyConnection) -> Section:
    """Whether the champion is as good for some users as for others."""
    title = "By group of users"
    text = (
        "A model that is good on average may fail where it matters. AUC of the champion on the test date within each "
        "group, with 95 % intervals; groups below the var min_group_size are not shown. 0.5 is no better than chance."
    )
    run_id, first = champion(con) or ("", "")
    rows = rows_of(
        con,
        "ml.segment_metrics",
        """
        select * from ml.segment_metrics
        where
            run_id = $run
            and model_name = $model
            and as_of_date = (select max(as_of_date) from ml.segment_metrics where run_id = $run)
        order by dimension, level
        """,
        run=run_id,
        model=first,
    )
    auc = rows.filter(pl.col("metric") == "auc", pl.col("value").is_not_null()) if rows.height else rows
    if auc.is_empty():
        return Section("groups", title, text, filled_by=FIT)
    labelled = auc.with_columns(
        label=pl.Series([f"{_group(row)} ({row['n_users']:,})" for row in auc.to_dicts()], dtype=pl.String),
        name=pl.lit("AUC"),
    )
    figures = {(row["dimension"], row["level"], row["metric"]): row for row in rows.to_dicts()}
    shown = ("base_rate", "auc", "log_loss", "calibration_slope")
    table = Table(
        "Figures by group",
        ("group", "users", "base rate", "AUC", "log loss", "calibration slope"),
        tuple(
            (
                _group({"dimension": dimension, "level": level}),
                count(figures[dimension, level, "auc"]["n_users"]),
                *(cell(figures.get((dimension, level, metric))) for metric in shown),
            )
            for dimension, level in dict.fromkeys((row["dimension"], row["level"]) for row in rows.to_dicts())
        ),
    )
    worst, best = (labelled.sort("value").row(place, named=True) for place in (0, -1))
    says = (
        f"AUC is lowest for {worst['label']}: {with_interval(worst)}; and highest for {best['label']}: "
        f"{with_interval(best)}."
    )
    drawing = charts.dots(labelled.select("label", "name", "value", "ci_low", "ci_high"), "AUC", ".2f", ["AUC"])
    return Section("groups", title, text, (Figure(drawing, says, table),))


def _group(row: dict[str, Any]) -> str:
    return GROUPS.get(row["dimension"], f"{row['dimension']}: {{}}").format(row["level"])


SECTIONS: tuple[MakeSection, ...] = (
    test_figures,
    over_dates,
    calibration,
    lift_and_gain,
    profit,
    importance,
    groups,
)
