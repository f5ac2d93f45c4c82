"""Charts of cohorts: how many stay, and when the next purchase is due."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import SERIES, Drawing, draw, series_colour

DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3], [10, 4])


def survival(rows: pl.DataFrame, title: str, names: Sequence[str]) -> Drawing:
    """Step curves with their intervals. Columns: name, days, survival, ci_low, ci_high (null: no interval)."""
    x = alt.X("days:Q", title="days since the first purchase", axis=alt.Axis(tickCount=7, grid=False))
    # Bands lie on each other: pale enough for all of them to be seen.
    colour = series_colour("name", names)
    if len(names) > 1:
        colour = colour.legend(symbolOpacity=1)
    bands = (
        alt.Chart(rows.drop_nulls("ci_low"))
        .mark_area(opacity=0.18, interpolate="step-after")
        .encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=colour)
    )
    lines = (
        alt.Chart(rows)
        .mark_line(strokeWidth=2, interpolate="step-after")
        .encode(
            x=x,
            y=alt.Y("survival:Q", title=title, axis=alt.Axis(format="%", tickCount=5), scale=alt.Scale(domain=[0, 1])),
            color=colour,
            strokeDash=_dash(names),
        )
    )
    return draw(alt.layer(bands, lines), height=260, names=names)


def _dash(names: Sequence[str]) -> alt.StrokeDash:
    dashes = [DASHES[place % len(DASHES)] for place in range(len(names))]
    scale = alt.Scale(domain=list(names), range=dashes)
    dash = alt.StrokeDash("name:N", scale=scale)
    return dash if len(names) > 1 else dash.legend(None)


def hazard(rows: pl.DataFrame, title: str, form: str) -> Drawing:
    """A rate by days since the last purchase, with its interval. Columns: days, value, ci_low, ci_high."""
    base = alt.Chart(rows).encode(
        x=alt.X("days:Q", title="days since the last purchase", axis=alt.Axis(tickCount=8, grid=False))
    )
    band = base.mark_area(opacity=0.2, color=SERIES[0]).encode(y="ci_low:Q", y2="ci_high:Q")
    line = base.mark_line(strokeWidth=2, color=SERIES[0]).encode(
        y=alt.Y("value:Q", title=title, axis=alt.Axis(format=form, tickCount=5), scale=alt.Scale(zero=True))
    )
    points = base.mark_point(filled=True, size=22, opacity=1, color=SERIES[0]).encode(y="value:Q")
    return draw(alt.layer(band, line, points), height=230)
