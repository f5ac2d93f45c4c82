"""Charts of what users write."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import SYMBOL_WIDTH, Drawing, draw, series_colour, series_shape


def sentiment_weeks(rows: pl.DataFrame, kinds: Sequence[str]) -> Drawing:
    """Mean sentiment by week and kind of text with its interval. Columns: week, kind, value, ci_low, ci_high."""
    x = alt.X("week:T", title=None, axis=alt.Axis(grid=False, tickCount=6))
    base = alt.Chart(rows).encode(x=x, color=series_colour("kind", kinds))
    scale = alt.Scale(domain=[-1, 1])
    title = "mean sentiment"
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("ci_low:Q", title=title, scale=scale), y2="ci_high:Q")
    line = base.mark_line(strokeWidth=1.5).encode(y=alt.Y("value:Q", title=title, scale=scale))
    points = base.mark_point(filled=True, size=SYMBOL_WIDTH, opacity=1).encode(
        y=alt.Y("value:Q", title=title, scale=scale), shape=series_shape("kind", kinds)
    )
    return draw(alt.layer(band, line, points), height=220, names=kinds)
