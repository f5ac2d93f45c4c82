"""Charts of uplift: gain curves and the overlap of the arms."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import INK, SERIES, Drawing, draw, series_colour


def gain(curves: pl.DataFrame, names: Sequence[str], title: str) -> Drawing:
    """Gain by share treated, the first name with its band.

    Args:
        curves: name, share, gain, ci_low, ci_high; the band is that of the first name.
        names: of the column name, in order; the last one is treating at random.
        title: of the axis of gains.
    """
    x = alt.X("share:Q", title="share of the users touched, those ranked first", axis=alt.Axis(format="%", tickCount=6))
    # Colour is never the only sign.
    dashes = [*[[1, 0], [6, 3], [2, 3]][: len(names) - 1], [1, 4]]
    band = (
        alt.Chart(curves.filter(pl.col("name") == names[0]))
        .mark_area(opacity=0.18, color=SERIES[0])
        .encode(x=x, y=alt.Y("ci_low:Q", title=title), y2="ci_high:Q")
    )
    lines = (
        alt.Chart(curves)
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("gain:Q", title=title, axis=alt.Axis(tickCount=5)),
            color=series_colour("name", names),
            strokeDash=alt.StrokeDash("name:N", scale=alt.Scale(domain=list(names), range=dashes)),
        )
    )
    return draw(alt.layer(band, lines), height=240, names=names)


def overlap(bins: pl.DataFrame, names: Sequence[str]) -> Drawing:
    """Share of each arm by estimated probability of being touched. Columns: name, bin_low, bin_high, share."""
    base = alt.Chart(bins).encode(
        x=alt.X(
            "bin_low:Q",
            bin=alt.Bin(binned=True, step=0.05),
            title="estimated probability of being touched",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(format="%", tickCount=6),
        ),
        x2="bin_high:Q",
        y=alt.Y("share:Q", title="share of the arm", stack=None, axis=alt.Axis(format="%", tickCount=5)),
        color=series_colour("name", names),
    )
    return draw(base.mark_bar(opacity=0.5, stroke=INK, strokeWidth=0.6), height=200, names=names)
