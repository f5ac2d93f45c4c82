"""Charts of the models: how good they are, and what their scores rest on."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import (
    BAND_COLOURS,
    BANDS,
    INK,
    LETTERS,
    QUIET,
    SERIES,
    Drawing,
    draw,
    series_colour,
    series_shape,
)


def over_dates(rows: pl.DataFrame, title: str, names: Sequence[str]) -> Drawing:
    """One metric by date and model with its interval. Columns: as_of_date, model_name, value, ci_low, ci_high."""
    base = alt.Chart(rows.with_columns(pl.col("as_of_date").cast(pl.String))).encode(
        x=alt.X("as_of_date:O", title=None, axis=alt.Axis(labelAngle=0, grid=False)),
        xOffset=alt.XOffset("model_name:N", sort=list(names)),
        color=series_colour("model_name", names),
    )
    rules = base.mark_rule(strokeWidth=1.5).encode(
        y=alt.Y("ci_low:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)), y2="ci_high:Q"
    )
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y="value:Q", shape=series_shape("model_name", names)
    )
    return draw(alt.layer(rules, points), height=240, names=names)


def calibration(bins: pl.DataFrame, names: Sequence[str]) -> Drawing:
    """Predicted against realised churn. Columns: model_name, mean_probability, churn_rate, ci_low, ci_high."""
    most = max(bins["mean_probability"].max(), bins["churn_rate"].max())  # type: ignore[type-var]
    ideal = alt.Chart(pl.DataFrame({"x": [0.0, most], "y": [0.0, most]})).mark_line(strokeDash=[4, 4], color=QUIET)
    base = alt.Chart(bins).encode(
        x=alt.X("mean_probability:Q", title="predicted", axis=alt.Axis(format="%", tickCount=6)),
        color=series_colour("model_name", names),
    )
    y = alt.Y("churn_rate:Q", title="churned", axis=alt.Axis(format="%", tickCount=6))
    return draw(
        alt.layer(
            ideal.encode(x="x:Q", y="y:Q"),
            base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("ci_low:Q", title="churned"), y2="ci_high:Q"),
            base.mark_line(strokeWidth=1).encode(y=y),
            base.mark_point(filled=True, size=50, opacity=1).encode(y=y, shape=series_shape("model_name", names)),
        ),
        height=280,
        names=names,
    )


def lift(bins: pl.DataFrame, names: Sequence[str]) -> Drawing:
    """Lift by decile of risk. Columns: model_name, decile, lift."""
    base = alt.Chart(bins).encode(
        x=alt.X("decile:O", title="decile of predicted risk, 1 is highest", axis=alt.Axis(labelAngle=0, grid=False)),
        y=alt.Y("lift:Q", title="times the average"),
        color=series_colour("model_name", names),
    )
    average = alt.Chart(pl.DataFrame({"y": [1.0]})).mark_rule(strokeDash=[4, 4], color=QUIET).encode(y="y:Q")
    return draw(alt.layer(average, *_lines(base, names)), height=240, names=names)


def gain(bins: pl.DataFrame, names: Sequence[str]) -> Drawing:
    """Share of churners found by share of users contacted. Columns: model_name, contacted, cumulative_gain."""
    base = alt.Chart(bins).encode(
        x=alt.X("contacted:Q", title="users, riskiest first", axis=alt.Axis(format="%", tickCount=5)),
        y=alt.Y("cumulative_gain:Q", title="churners among them", axis=alt.Axis(format="%", tickCount=5)),
        color=series_colour("model_name", names),
    )
    chance = alt.Chart(pl.DataFrame({"x": [0.0, 1.0]})).mark_line(strokeDash=[4, 4], color=QUIET)
    return draw(alt.layer(chance.encode(x="x:Q", y="x:Q"), *_lines(base, names)), height=240, names=names)


def _lines(base: alt.Chart, names: Sequence[str]) -> tuple[alt.Chart, alt.Chart]:
    shape = series_shape("model_name", names)
    return base.mark_line(strokeWidth=1.5), base.mark_point(filled=True, size=40, opacity=1).encode(shape=shape)


def profit(curve: pl.DataFrame, threshold: float) -> Drawing:
    """Profit by threshold. Columns: threshold, expected_profit, realised_profit, ci_low, ci_high."""
    names = ("realised", "expected")
    x = alt.X(
        "threshold:Q",
        title="contact users with a churn probability above",
        axis=alt.Axis(format="%", tickCount=6),
    )
    lines = (
        curve.select("threshold", realised="realised_profit", expected="expected_profit")
        .unpivot(index="threshold", variable_name="kind", value_name="profit")
        .sort("kind", "threshold")
    )
    band = alt.Chart(curve).mark_area(opacity=0.18, color=SERIES[0]).encode(x=x, y="ci_low:Q", y2="ci_high:Q")
    line = (
        alt.Chart(lines)
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("profit:Q", title="profit"),
            color=series_colour("kind", names),
            strokeDash=alt.StrokeDash("kind:N", scale=alt.Scale(domain=names, range=[[1, 0], [6, 4]])),
        )
    )
    chosen = alt.Chart(pl.DataFrame({"threshold": [threshold], "text": [f"chosen: {threshold:.1%}"]}))
    rule = chosen.mark_rule(color=INK, strokeWidth=1.5).encode(x="threshold:Q")
    label = chosen.mark_text(align="left", dx=5, baseline="bottom", fontSize=LETTERS, color=INK).encode(
        x="threshold:Q", y=alt.value("height"), text="text:N"
    )
    return draw(alt.layer(band, line, rule, label), height=240, names=names)


def score_distribution(scores: pl.DataFrame) -> Drawing:
    """Users per churn probability. Columns: low (lower end of a bin 0.05 wide), risk_band, users."""
    return draw(
        alt.Chart(scores.with_columns(high=pl.col("low") + 0.05))
        .mark_bar(stroke=INK, strokeWidth=0.6)
        .encode(
            x=alt.X(
                "low:Q",
                bin=alt.Bin(binned=True, step=0.05),
                title="churn probability",
                axis=alt.Axis(format="%", tickCount=6),
            ),
            x2="high:Q",
            y=alt.Y("users:Q", title="users", axis=alt.Axis(tickCount=5)),
            color=alt.Color("risk_band:N", scale=alt.Scale(domain=BANDS, range=BAND_COLOURS)),
        ),
        height=240,
        names=BANDS,
    )
