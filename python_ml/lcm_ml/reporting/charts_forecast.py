"""Charts of what is to come."""

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import SERIES, Drawing, draw


def fan(history: pl.DataFrame, ahead: pl.DataFrame, title: str) -> Drawing:
    """What was, what is expected, and the 80 % and 95 % intervals around it.

    Args:
        history: date, value.
        ahead: date, value, low_80, high_80, low_95, high_95.
        title: of the axis of values.
    """
    names = ("was", "expected")
    lines = pl.concat(
        [frame.select("date", "value", kind=pl.lit(kind)) for frame, kind in zip((history, ahead), names, strict=True)]
    )
    x = alt.X("date:T", title=None, axis=alt.Axis(grid=False))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(format="~s", tickCount=5))
    bands = [
        alt.Chart(ahead)
        .mark_area(opacity=opacity, color=SERIES[1])
        .encode(x=x, y=alt.Y(f"low_{percent}:Q", title=title), y2=f"high_{percent}:Q")
        for percent, opacity in ((95, 0.18), (80, 0.28))
    ]
    line = (
        alt.Chart(lines)
        .mark_line(strokeWidth=1.8)
        .encode(
            x=x,
            y=y,
            color=alt.Color("kind:N", scale=alt.Scale(domain=names, range=SERIES[:2])),
            strokeDash=alt.StrokeDash("kind:N", scale=alt.Scale(domain=names, range=[[1, 0], [6, 3]])),
        )
    )
    return draw(alt.layer(*bands, line), height=220, names=names)
